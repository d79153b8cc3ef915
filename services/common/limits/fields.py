"""Look into messages by their fields' descriptors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from moa.common.v1 import limits_pb2


def of(field: FieldDescriptor) -> limits_pb2.Limits:
    """Return what a field takes."""
    return field.GetOptions().Extensions[limits_pb2.limits]


def demands_of(field: FieldDescriptor) -> dict[int, limits_pb2.Demands]:
    """Return what the values of an enum's field ask for, by number; those without demands are left out."""
    return {
        value.number: value.GetOptions().Extensions[limits_pb2.demands]
        for value in (field.enum_type.values if field.enum_type is not None else ())
        if value.GetOptions().HasExtension(limits_pb2.demands)
    }


def is_map(field: FieldDescriptor) -> bool:
    """Return whether a field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def sibling(field: FieldDescriptor, other: str) -> FieldDescriptor:
    """Return another field of the same message."""
    assert field.containing_type is not None
    return field.containing_type.fields_by_name[other]


def presence(field: FieldDescriptor) -> Callable[[Any], bool]:
    """Return what tells whether a message has the field."""
    name = field.name
    if field.has_presence:
        return lambda message: bool(message.HasField(name))
    return lambda message: bool(getattr(message, name))
