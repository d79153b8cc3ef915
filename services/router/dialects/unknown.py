"""Read a generation's body liberally: fields that nobody here knows are kept apart and named, not refused.

They tune or hint, at the vendor, some other gateway or in next year's API; what changes an answer's meaning is known by
name and refused by name. A caller that sends `moa-parameters: strict` wants every field to count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import inspect

from services.common.errors import InvalidField
from services.router.dialects.body import UnknownField, field_error, leniently, parse

T = TypeVar("T", bound=msgspec.Struct)
Extra = dict[Any, Any]
_NOTHING: Final[Extra] = {}

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


class Read(NamedTuple, Generic[T]):
    """A body, read."""

    body: T
    names: list[str]
    """The paths of the fields in it that nobody here knows (`messages[].cache_control`)."""
    extra: Extra
    """Those fields, where they stood: objects by name, items of lists by their index."""


_parse: Final = partial(parse, hints=False)


def parse_liberally(
    data: bytes,
    decoder: msgspec.json.Decoder[T],
    *,
    parse: Callable[[bytes, msgspec.json.Decoder[T]], T] = _parse,
    respell: Callable[[Any, type[T]], Any] = lambda value, _: value,
) -> Read[T]:
    """Return a typed body, and the fields in it that nobody here knows.

    A body without unknown fields is read once, as `parse` does. Raises as `parse` does, but for unknown fields.
    """
    try:
        return Read(parse(data, decoder), [], {})
    except UnknownField:
        pass
    return _without_unknown(respell(leniently(data), decoder.type), decoder.type)


def convert_liberally(value: Any, model: type[T]) -> Read[T]:
    """Return a typed part of a body whose JSON was read already, and the fields in it that nobody here knows.

    Raises InvalidField.
    """
    try:
        return Read(msgspec.convert(value, model), [], {})
    except msgspec.ValidationError as error:
        refused = field_error(str(error), model)
    if not isinstance(refused, UnknownField):
        raise refused
    return _without_unknown(value, model)


def _without_unknown(value: Any, model: type[T]) -> Read[T]:
    names: dict[str, None] = {}
    extra: Extra = {}
    known = _pruned(value, _type_of(model), "", names, extra)
    try:
        return Read(msgspec.convert(known, model, str_keys=True), list(names)[:MOST_NAMED], extra)
    except msgspec.ValidationError as error:
        raise field_error(str(error), model) from None


def at(extra: Extra, *path: str | int) -> Extra:
    """Return the unknown fields below a place."""
    for step in path:
        extra = extra.get(step, _NOTHING)
    return extra


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


def _pruned(value: Any, kind: inspect.Type, path: str, names: dict[str, None], extra: Extra) -> Any:
    """Return a value without the unknown fields of its structs; put these into `extra`, their paths into `names`."""
    if isinstance(kind, inspect.Metadata):
        return _pruned(value, kind.type, path, names, extra)
    if isinstance(kind, inspect.UnionType):
        fitting = _fitting(value, kind)
        return value if fitting is None else _pruned(value, fitting, path, names, extra)
    if isinstance(kind, inspect.ListType) and isinstance(value, list):
        return [_below(each, kind.item_type, f"{path}[]", names, extra, index) for index, each in enumerate(value)]
    if isinstance(kind, inspect.StructType) and isinstance(value, dict):
        return _pruned_struct(value, kind, path, names, extra)
    return value


def _below(value: Any, kind: inspect.Type, path: str, names: dict[str, None], extra: Extra, step: str | int) -> Any:
    found: Extra = {}
    kept = _pruned(value, kind, path, names, found)
    if found:
        extra[step] = found
    return kept


def _pruned_struct(
    value: dict[str, Any], kind: inspect.StructType, path: str, names: dict[str, None], extra: Extra
) -> Any:
    fields = _fields(kind)
    kept: dict[str, Any] = {}
    for name, inner in value.items():
        below = f"{path}.{name}" if path else name
        if name in fields:
            kept[name] = _below(inner, fields[name], below, names, extra, name)
        elif name == kind.tag_field:
            kept[name] = inner
        else:
            names[printable(below)] = None
            extra[name] = inner
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


def printable(path: str) -> str:
    """Return a path as a header can hold it."""
    return "".join(c if c.isascii() and c.isprintable() and c != "," else "?" for c in path[:100])
