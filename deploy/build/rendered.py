"""Messages that are made of sentences from elsewhere, as callers get them: rendered, with their gaps named."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from google.protobuf.descriptor import Descriptor
from msgspec import Meta, Struct

import moa
from services.common.body import field_error
from services.common.limits import of

_FIELD: Final = "<field>"
_LEAST, _MOST = 11, 99
_GAPS: Final = {str(_LEAST): "<least>", str(_MOST): "<most>", "'up'": "<given>", "high or low": "<words>"}


class _Body(Struct, forbid_unknown_fields=True, rename=lambda name: f"<{name}>"):
    number: Annotated[int, Meta(ge=_LEAST, le=_MOST)] = _LEAST
    text: Annotated[str, Meta(min_length=_LEAST, max_length=_MOST)] = ""
    items: Annotated[list[float], Meta(min_length=_LEAST, max_length=_MOST)] = []
    word: Literal["low", "high"] = "low"
    by_name: dict[Annotated[str, Meta(max_length=_MOST)], bool] = {}


class _Filled(Struct, rename={"field": _FIELD}):
    field: str


_BAD: Final[tuple[tuple[type[Struct], dict[str, Any]], ...]] = (
    (_Body, {"<number>": 0}),
    (_Body, {"<number>": 1000}),
    (_Body, {"<number>": "x"}),
    (_Body, {"<text>": ""}),
    (_Body, {"<text>": "x" * 1000}),
    (_Body, {"<text>": 1}),
    (_Body, {"<items>": []}),
    (_Body, {"<items>": [1.0] * 1000}),
    (_Body, {"<items>": {}}),
    (_Body, {"<items>": [None] * _LEAST}),
    (_Body, {"<word>": "up"}),
    (_Body, {"<by name>": 1}),
    (_Body, {"<by_name>": {"x" * 1000: True}}),
    (_Body, {"<by_name>": {"x": 1}}),
    (_Filled, {}),
)
"""Bodies with a fault each, of every kind that a body can have."""


def body_sentences() -> Iterator[str]:
    """Yield what is said of a body's fields that do not fit their types, a gap for what differs."""
    for kind, value in _BAD:
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            sentence = field_error(str(error), kind).message
            for given, gap in _GAPS.items():
                sentence = sentence.replace(given, gap)
            for name in ("number", "text", "items", "word", "by_name", "by name"):
                sentence = sentence.replace(f"<{name}>", _FIELD)
            yield sentence


def pattern_sentences() -> Iterator[str]:
    """Yield what is said of texts that do not match the patterns of their contracts."""
    root = Path(moa.__path__[0]).parent
    for path in sorted(root.glob("moa/*/v1/*_pb2.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        for message in import_module(name).DESCRIPTOR.message_types_by_name.values():
            yield from _of(message)


def _of(message: Descriptor) -> Iterator[str]:
    for field in message.fields:
        if words := of(field).pattern_words:
            yield f"{'each of ' if field.is_repeated else ''}{_FIELD} {words}"
    for nested in message.nested_types:
        yield from _of(nested)
