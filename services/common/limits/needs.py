"""What a message type's fields ask of a model, compiled to functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from moa.common.v1 import limits_pb2
from services.common.limits.fields import demands_of, inner, is_map, of, prefix, presence, sibling


class Need(NamedTuple):
    """A field of a request that the model must be able to do something for."""

    param: str
    capability: str


Find = Callable[[Any, list[Need]], None]


@functools.lru_cache(maxsize=4096)
def needs_beyond(descriptor: Descriptor, able: frozenset[str], above: frozenset[str] = frozenset()) -> Sequence[Find]:
    """Return what finds the needs of a message type that are not among what a model is able to do."""
    results: list[Find] = []
    for field in descriptor.fields:
        limits = of(field)
        demands = demands_of(field).items()
        table = {number: each.capability for number, each in demands if each.capability and not each.emulated}
        if not able.issuperset(table.values()):
            results.append(_of_values(field, table))
        if limits.capability and not limits.hint and limits.capability not in able:
            results.append(_of_field(field, limits))
        if field.message_type is not None and not is_map(field) and descriptor.full_name not in above:
            below = needs_beyond(field.message_type, able, above | {descriptor.full_name})
            if below:
                results.append(_below(field, below))
    return tuple(results)


def _of_values(field: FieldDescriptor, table: dict[int, str]) -> Find:
    name = field.name

    def run(message: Any, needs: list[Need]) -> None:
        capability = table.get(getattr(message, name))
        if capability:
            needs.append(Need(name, capability))

    return run


def _of_field(field: FieldDescriptor, limits: limits_pb2.Limits) -> Find:
    name, given, capability = field.name, presence(field), limits.capability
    plain = limits.plain_up_to if limits.HasField("plain_up_to") else None
    word, called = limits.plain_word, limits.called or field.name
    other = presence(sibling(field, limits.ignored_with)) if limits.ignored_with else None

    def run(message: Any, needs: list[Need]) -> None:
        if not given(message) or (other is not None and other(message)):
            return
        value = getattr(message, name)
        if (plain is None or value > plain) and not (word and value == word):
            needs.append(Need(called, capability))

    return run


def _below(field: FieldDescriptor, steps: Sequence[Find]) -> Find:
    messages = inner(field)

    def run(message: Any, needs: list[Need]) -> None:
        for place, each in messages(message):
            before = len(needs)
            for step in steps:
                step(each, needs)
            for index in range(before, len(needs)):
                needs[index] = Need(prefix(field, place) + needs[index].param, needs[index].capability)

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
