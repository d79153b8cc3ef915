"""What a message type's fields ask of a model, compiled to functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from moa.common.v1 import limits_pb2
from services.common.limits.fields import demands_of, is_map, of, presence, sibling


class Need(NamedTuple):
    """A field of a request that the model must be able to do something for."""

    param: str
    capability: str


Find = Callable[[Any, Any], Need | None]
"""Returns what a field of a message needs, from both: the message, and what it has in the field."""


def needs_of(field: FieldDescriptor) -> Iterator[Find]:
    """Yield what finds the needs of a field of messages that have it."""
    demands = demands_of(field).items()
    table = {
        number: Need(field.name, each.capability) for number, each in demands if each.capability and not each.emulated
    }
    if table:
        yield lambda _, value: table.get(value)
    limits = of(field)
    if limits.capability and not limits.hint:
        yield _of_field(field, limits)


def _of_field(field: FieldDescriptor, limits: limits_pb2.Limits) -> Find:
    need = Need(limits.called or field.name, limits.capability)
    plain = limits.plain_up_to if limits.HasField("plain_up_to") else None
    word = limits.plain_word
    other = presence(sibling(field, limits.ignored_with)) if limits.ignored_with else None

    def run(message: Any, value: Any) -> Need | None:
        if other is not None and other(message):
            return None
        return need if (plain is None or value > plain) and not (word and value == word) else None

    return run


@functools.lru_cache(maxsize=4096)
def hints_beyond(descriptor: Descriptor, able: frozenset[str]) -> Sequence[str]:
    """Return the fields of a message type that only tune, and that ask for what a model is not able to do."""
    fields = ((field.name, of(field)) for field in descriptor.fields)
    return tuple(name for name, limits in fields if limits.hint and limits.capability not in able)


@functools.cache
def words(descriptor: Descriptor, above: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return every capability that a message type can ask for."""
    result: set[str] = set()
    for field in descriptor.fields:
        result.update(each.capability for each in demands_of(field).values())
        result.add(of(field).capability)
        if field.message_type is not None and not is_map(field) and descriptor.full_name not in above:
            result |= words(field.message_type, above | {descriptor.full_name})
    return frozenset(result - {""})
