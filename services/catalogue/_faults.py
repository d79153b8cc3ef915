"""What is wrong with a catalogue's file, in words for whoever edited it: the row, the field, the nearest known word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import inspect

_PLACE: Final = re.compile(r" - at `\$(.*)`$")
_STEP: Final = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[(\d+)\]|\[\.\.\.\]")
_UNKNOWN_FIELD: Final = re.compile(r"unknown field `(.+)`")
_WRONG_WORD: Final = re.compile(r"Invalid enum value '(.+)'")
_ROWS: Final = {"models": "model", "providers": "provider", "routes": "route"}


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the hint that names the known word which is most like `word`; empty when none is."""
    result = difflib.get_close_matches(word, list(known), 1, cutoff=0.6)
    return f"; did you mean {result[0]!r}?" if result else ""


def misread(text: bytes, shape: type[Any], error: Exception) -> str:
    """Return what `error`, raised when `text` was read as `shape`, says: one line."""
    whole_text = " ".join(str(error).split())
    if not isinstance(error, msgspec.ValidationError):
        return _unparsed(error.__context__) or whole_text
    place = _PLACE.search(whole_text)
    steps = [result[1] or result[2] for result in _STEP.finditer(place[1])] if place else []
    what = whole_text[: place.start()] if place else whole_text
    where = _row(text, steps)
    field = ".".join(step for step in steps[2 if where else 0 :] if step and not step.isdigit())
    return ": ".join(part for part in (where, field, what + _hint(what, shape, steps)) if part)


def _unparsed(cause: Any) -> str:
    """Return where a text stops being YAML, and why; empty where the parser did not say."""
    mark, context = getattr(cause, "problem_mark", None), getattr(cause, "context_mark", None)
    if mark is None:
        return ""
    within = f" ({cause.context} that begins in line {context.line + 1})" if context is not None else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {cause.problem}{within}"


def option_fault(options: Mapping[str, Any], shape: type[Any]) -> str:
    """Return what is wrong with a row's options, the field first and the nearest known word last; empty for nothing."""
    try:
        msgspec.convert(options, shape)
    except msgspec.ValidationError as error:
        message = misread(b"", shape, error)
        return f"options: {message}" if message.startswith("Object ") else f"options.{message}"
    return ""


def _row(text: bytes, steps: list[str | None]) -> str:
    """Return how the row is named that `steps` lead into: by its id where it has one, else by its place."""
    if len(steps) < 2 or steps[0] not in _ROWS or steps[1] is None:
        return ""
    kind, number = _ROWS[steps[0]], int(steps[1])
    row = msgspec.yaml.decode(text)[steps[0]][number]
    name = row.get("id") if isinstance(row, dict) else None
    return f"{kind} {name}" if isinstance(name, str) else f"{kind} number {number + 1}"


def _hint(what: str, shape: type[Any], steps: list[str | None]) -> str:
    unknown, wrong = _UNKNOWN_FIELD.search(what), _WRONG_WORD.search(what)
    types = _types_at(inspect.type_info(shape), steps)
    if unknown:
        fields = (field.encode_name for kind in types if isinstance(kind, inspect.StructType) for field in kind.fields)
        return nearest(unknown[1], fields)
    if wrong:
        words = (str(word) for kind in types if isinstance(kind, inspect.LiteralType) for word in kind.values)
        return nearest(wrong[1], words)
    return ""


def _types_at(kind: inspect.Type, steps: list[str | None]) -> list[inspect.Type]:
    """Return what may stand where `steps` lead, from a value of type `kind` on."""
    if isinstance(kind, inspect.Metadata):
        return _types_at(kind.type, steps)
    if isinstance(kind, inspect.UnionType):
        return [result for one in kind.types for result in _types_at(one, steps)]
    if not steps:
        return [kind]
    if isinstance(kind, inspect.CollectionType):
        return _types_at(kind.item_type, steps[1:])
    if isinstance(kind, inspect.DictType):
        return _types_at(kind.value_type, steps[1:])
    if isinstance(kind, inspect.StructType):
        inner = (field.type for field in kind.fields if field.encode_name == steps[0])
        return [result for one in inner for result in _types_at(one, steps[1:])]
    return []
