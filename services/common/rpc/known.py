"""Refuse numbers that an enum does not have: proto3 keeps them, and a handler would take them for the default."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from services.common.errors import InvalidField

_Enums = tuple[tuple[str, bool, frozenset[int]], ...]
_Inner = tuple[tuple[str, bool], ...]


def refuse_unknown(message: Any, at: str = "") -> None:
    """Raise InvalidField, naming the field, where an enum of the message or of one inside it has no such number."""
    enums, inner = _plan(message.DESCRIPTOR)
    for name, repeated, known in enums:
        value = getattr(message, name)
        for number in value if repeated else (value,):
            if number not in known:
                raise InvalidField(f"{at}{name}: there is no value {number}", param=f"{at}{name}")
    for name, repeated in inner:
        if repeated:
            for index, one in enumerate(getattr(message, name)):
                refuse_unknown(one, f"{at}{name}[{index}].")
        elif message.HasField(name):
            refuse_unknown(getattr(message, name), f"{at}{name}.")


@cache
def _plan(descriptor: Descriptor) -> tuple[_Enums, _Inner]:
    """Return a message's enum fields with their numbers, and its fields that hold enums further inside."""
    enums = tuple(
        (field.name, field.is_repeated, frozenset(field.enum_type.values_by_number))
        for field in descriptor.fields
        if field.enum_type is not None
    )
    inner = tuple(
        (field.name, field.is_repeated)
        for field in descriptor.fields
        if field.message_type is not None and not _is_map(field) and _holds_enums(field.message_type, frozenset())
    )
    return enums, inner


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _holds_enums(descriptor: Descriptor, above: frozenset[str]) -> bool:
    if descriptor.full_name in above:
        return False
    above |= {descriptor.full_name}
    return any(
        field.enum_type is not None
        or (field.message_type is not None and not _is_map(field) and _holds_enums(field.message_type, above))
        for field in descriptor.fields
    )
