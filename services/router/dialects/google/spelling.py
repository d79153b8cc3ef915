"""Proto JSON takes every field in camel case and in its proto's own snake case; here snake becomes camel.

Only keys of typed objects change: what lies in free-form ones (arguments, schemas) belongs to the caller.
"""

from __future__ import annotations

import types
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

from services.common.errors import InvalidField
from services.router.dialects.body import field_error, leniently, parse

T = TypeVar("T", bound=msgspec.Struct)


def parse_either(data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Read a body in either spelling. Raises as `body.parse`; errors name fields in camel case."""
    try:
        return parse(data, decoder, hints=False)
    except InvalidField as error:
        refused = error
    # An unknown field may be a known one in its other spelling.
    value = leniently(data)
    camel = respelled(value, decoder.type)
    if camel == value:
        raise refused
    try:
        return msgspec.convert(camel, decoder.type)
    except msgspec.ValidationError as error:
        raise field_error(str(error), decoder.type) from None


def respelled(value: Any, kind: type[msgspec.Struct]) -> Any:
    """Return a body with every field of a typed object in camel case."""
    if not isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    for key, inner in value.items():
        camel, struct = _fields(kind).get(key, (key, None))
        if struct is not None:
            inner = [respelled(i, struct) for i in inner] if isinstance(inner, list) else respelled(inner, struct)
        out[camel] = inner
    return out


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, tuple[str, type[msgspec.Struct] | None]]:
    """Give, by both spellings of a field, its camel case and the struct that it holds, alone or in a list."""
    results: dict[str, tuple[str, type[msgspec.Struct] | None]] = {}
    for field in msgspec.structs.fields(kind):
        entry = (field.encode_name, _struct_in(field.type))
        results[field.name] = results[field.encode_name] = entry
    return results


def _struct_in(annotation: Any) -> type[msgspec.Struct] | None:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    origin = get_origin(annotation)
    if origin in (list, Union, types.UnionType) or hasattr(annotation, "__metadata__"):
        for inner in get_args(annotation):
            result = _struct_in(inner)
            if result is not None:
                return result
    return None
