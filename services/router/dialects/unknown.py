"""Read a generation's body liberally: fields that nobody here knows are left out and named, not refused.

They tune or hint, at some other gateway or in next year's API; what changes an answer's meaning is known by name and
refused by name. A caller that sends `moa-parameters: strict` wants every field to count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from services.common.errors import InvalidField
from services.router.dialects.body import UnknownField, field_error, leniently, parse

T = TypeVar("T", bound=msgspec.Struct)

PARAMETERS_KEY: Final = "moa-parameters"
MOST_NAMED: Final = 32
"""How many fields the answer's header names, at most."""


def is_strict(metadata: Iterable[tuple[str, str | bytes]]) -> bool:
    """Return whether the caller wants every parameter to count. Raises InvalidField for a wish that is not known."""
    for name, value in metadata:
        if name == PARAMETERS_KEY:
            if value != "strict":
                raise InvalidField(f"{PARAMETERS_KEY} may only be strict", param=PARAMETERS_KEY)
            return True
    return False


def parse_liberally(
    data: bytes,
    decoder: msgspec.json.Decoder[T],
    *,
    strict: bool,
    parse: Callable[[bytes, msgspec.json.Decoder[T]], T] = parse,
    respell: Callable[[Any, type[T]], Any] = lambda value, _: value,
) -> tuple[T, list[str]]:
    """Return a typed body, and the paths of the fields in it that nobody knows (`messages[].cache_control`).

    Structs whose class says `exact` are what an answer is made of, and keep theirs, which then refuses them.
    A body without unknown fields is read once, as `parse` does. Raises as `parse` does; UnknownField too if `strict`.
    """
    try:
        return parse(data, decoder), []
    except UnknownField:
        if strict:
            raise
    value = respell(leniently(data), decoder.type)
    names: dict[str, None] = {}
    known = _pruned(value, _type_of(decoder.type), "", names)
    try:
        return msgspec.convert(known, decoder.type), list(names)[:MOST_NAMED]
    except msgspec.ValidationError as error:
        raise field_error(str(error)) from None


def refuse(ignored: Iterable[str], *, strict: bool) -> None:
    """Raise InvalidField for the first field without effect, where the caller wants every parameter to count."""
    for name in ignored if strict else ():
        raise InvalidField(f"{name} has no effect here, and {PARAMETERS_KEY} is strict", param=name)


@cache
def _type_of(model: type[msgspec.Struct]) -> inspect.Type:
    return inspect.type_info(model)


_FIELDS: Final[dict[type, Mapping[str, inspect.Type]]] = {}


def _fields(kind: inspect.StructType) -> Mapping[str, inspect.Type]:
    results = _FIELDS.get(kind.cls)
    if results is None:
        results = _FIELDS[kind.cls] = {field.encode_name: field.type for field in kind.fields}
    return results


def _pruned(value: Any, kind: inspect.Type, path: str, names: dict[str, None]) -> Any:
    """Return a value without the unknown fields of the structs in it; put their paths into `names`."""
    if isinstance(kind, inspect.Metadata):
        return _pruned(value, kind.type, path, names)
    if isinstance(kind, inspect.UnionType):
        fitting = _fitting(value, kind)
        return value if fitting is None else _pruned(value, fitting, path, names)
    if isinstance(kind, inspect.ListType) and isinstance(value, list):
        return [_pruned(each, kind.item_type, f"{path}[]", names) for each in value]
    if isinstance(kind, inspect.StructType) and isinstance(value, dict):
        return _pruned_struct(value, kind, path, names)
    return value


def _pruned_struct(value: dict[str, Any], kind: inspect.StructType, path: str, names: dict[str, None]) -> Any:
    fields = _fields(kind)
    kept: dict[str, Any] = {}
    for name, inner in value.items():
        below = f"{path}.{name}" if path else name
        if name in fields:
            kept[name] = _pruned(inner, fields[name], below, names)
        elif name == kind.tag_field or not kind.forbid_unknown_fields or getattr(kind.cls, "exact", False):
            kept[name] = inner
        else:
            names[_printable(below)] = None
    return kept


def _fitting(value: Any, union: inspect.UnionType) -> inspect.Type | None:
    """Return the member of a union that a value can only be."""
    for kind in union.types:
        if isinstance(value, list) and isinstance(kind, inspect.ListType):
            return kind
        if (
            isinstance(value, dict)
            and isinstance(kind, inspect.StructType)
            and (kind.tag_field is None or value.get(kind.tag_field) == kind.tag)
        ):
            return kind
    return None


def _printable(path: str) -> str:
    """Return a path as a header can hold it."""
    return "".join(c if c.isascii() and c.isprintable() and c != "," else "?" for c in path[:100])
