"""What a message type's fields take, compiled to functions that raise."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from moa.common.v1 import limits_pb2
from services.common.limits.fields import demands_of, inner, is_map, of, prefix, presence, sibling

Check = Callable[[Any], None]


class Violation(Exception):
    """A field is outside its limits; its path grows on the way out, so that it costs nothing where all is well."""

    def __init__(self, field: str, sentence: str, *, other: str = "") -> None:
        super().__init__(sentence)
        self.path = field
        self.names = [field.partition("[")[0], *([other] if other else ())]
        """The fields that the sentence names, as they are called in their message."""
        self.prefix = ""
        self.sentence = sentence

    def under(self, prefix: str) -> None:
        """Say that the message is in another one."""
        self.path = prefix + self.path
        self.prefix = prefix + self.prefix


@functools.cache
def checks_of(descriptor: Descriptor, above: frozenset[str] = frozenset()) -> Sequence[Check]:
    """Return the checks of a message type; each raises Violation."""
    results: list[Check] = []
    for field in descriptor.fields:
        results.extend(_of_values(field))
        if field.GetOptions().HasExtension(limits_pb2.limits):
            results.extend(_of_field(field, of(field)))
        if field.message_type is not None and not is_map(field) and descriptor.full_name not in above:
            below = checks_of(field.message_type, above | {descriptor.full_name})
            if below:
                results.append(_below(field, below))
    return tuple(results)


def _of_field(field: FieldDescriptor, limits: limits_pb2.Limits) -> Iterator[Check]:
    if limits.required:
        yield _required(field)
    if limits.HasField("at_least") or limits.HasField("at_most"):
        yield _ranged(field, limits)
    if limits.HasField("most"):
        yield _counted(field, limits.most)
    if limits.filled:
        yield _matching(field, re.compile("(?s).+"), "is not empty")
    if limits.pattern:
        yield _matching(field, re.compile(limits.pattern), limits.pattern_words)
    if limits.words:
        yield _worded(field, tuple(limits.words))
    other: str = getattr(limits, "with")
    if other:
        yield _accompanied(field, other)


def _required(field: FieldDescriptor) -> Check:
    name, is_text = field.name, field.type == field.TYPE_STRING and not field.is_repeated
    sentence = f"at least one of {name} is required" if field.is_repeated else f"{name} is required"

    def run(message: Any) -> None:
        value = getattr(message, name)
        if not value or (is_text and not value.strip()):
            raise Violation(name, sentence)

    return run


def _ranged(field: FieldDescriptor, limits: limits_pb2.Limits) -> Check:
    name, given, many = field.name, presence(field), is_map(field)
    low = limits.at_least if limits.HasField("at_least") else float("-inf")
    high = limits.at_most if limits.HasField("at_most") else float("inf")
    if not limits.HasField("at_most"):
        bounds = f"at least {low:g}"
    elif not limits.HasField("at_least"):
        bounds = f"at most {high:g}"
    else:
        bounds = f"from {low:g} to {high:g}"
    sentence = f"each value of {name} must be {bounds}" if many else f"{name} must be {bounds}"

    def run(message: Any) -> None:
        if given(message):
            value = getattr(message, name)
            # NaN is in no range.
            if not all(low <= each <= high for each in (value.values() if many else (value,))):
                raise Violation(name, sentence)

    return run


def _counted(field: FieldDescriptor, most: int) -> Check:
    name = field.name
    unit = "items" if field.is_repeated else "bytes" if field.type == field.TYPE_BYTES else "characters"

    def run(message: Any) -> None:
        if len(getattr(message, name)) > most:
            raise Violation(name, f"{name} takes at most {most} {unit}")

    return run


def _matching(field: FieldDescriptor, pattern: re.Pattern[str], words: str) -> Check:
    name, is_list = field.name, field.is_repeated

    def run(message: Any) -> None:
        value = getattr(message, name)
        if not value:
            return
        for index, each in enumerate(value if is_list else (value,)):
            if not pattern.fullmatch(each):
                raise Violation(
                    f"{name}[{index}]" if is_list else name, f"{'each of ' if is_list else ''}{name} {words}"
                )

    return run


def _worded(field: FieldDescriptor, words: tuple[str, ...]) -> Check:
    name = field.name

    def run(message: Any) -> None:
        value = getattr(message, name)
        if value and value not in words:
            raise Violation(name, f"{name} is one of {', '.join(words)}")

    return run


def _accompanied(field: FieldDescriptor, other: str) -> Check:
    name, given = field.name, presence(field)
    companion = presence(sibling(field, other))

    def run(message: Any) -> None:
        if given(message) and not companion(message):
            raise Violation(name, f"{name} needs {other}", other=other)

    return run


def _of_values(field: FieldDescriptor) -> Iterator[Check]:
    name = field.name
    required = {
        number: tuple(_required(sibling(field, other)) for other in demands.fields)
        for number, demands in demands_of(field).items()
        if demands.fields
    }
    if required:

        def run(message: Any) -> None:
            for each in required.get(getattr(message, name), ()):
                each(message)

        yield run


def _below(field: FieldDescriptor, checks: Sequence[Check]) -> Check:
    messages = inner(field)

    def run(message: Any) -> None:
        for place, each in messages(message):
            try:
                for step in checks:
                    step(each)
            except Violation as violation:
                violation.under(prefix(field, place))
                raise

    return run
