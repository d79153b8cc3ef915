"""What a message type's fields take, compiled to functions that raise."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from moa.common.v1 import limits_pb2
from services.common.limits.fields import demands_of, is_map, of, presence, sibling

Check = Callable[[Any, Any], None]
"""Raises Violation for a field of a message, from both: the message, and what it has in the field."""


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


class Required:
    """A field that must be given."""

    __slots__ = ("_is_text", "_many", "name")

    def __init__(self, field: FieldDescriptor) -> None:
        self.name = field.name
        self._is_text = field.type == field.TYPE_STRING and not field.is_repeated
        self._many = field.is_repeated

    def check(self, message: Any) -> None:
        """Raise Violation where a message does not have it, or blank text."""
        value = getattr(message, self.name)
        if not value or (self._is_text and not value.strip()):
            raise self.violation()

    def violation(self) -> Violation:
        """Return what is raised where it is missing."""
        name = self.name
        return Violation(name, f"at least one of {name} is required" if self._many else f"{name} is required")


def checks_of(field: FieldDescriptor) -> Iterator[Check]:
    """Yield what checks a field of messages that have it."""
    demanding = _of_values(field)
    if demanding is not None:
        yield demanding
    limits = of(field)
    if limits.required and field.type == field.TYPE_STRING and not field.is_repeated:
        yield _not_blank(field)
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


def _not_blank(field: FieldDescriptor) -> Check:
    name = field.name

    def run(message: Any, value: Any) -> None:
        if not value.strip():
            raise Violation(name, f"{name} is required")

    return run


def _ranged(field: FieldDescriptor, limits: limits_pb2.Limits) -> Check:
    name, many = field.name, is_map(field)
    low = limits.at_least if limits.HasField("at_least") else float("-inf")
    high = limits.at_most if limits.HasField("at_most") else float("inf")
    if not limits.HasField("at_most"):
        bounds = f"at least {low:g}"
    elif not limits.HasField("at_least"):
        bounds = f"at most {high:g}"
    else:
        bounds = f"from {low:g} to {high:g}"
    sentence = f"each value of {name} must be {bounds}" if many else f"{name} must be {bounds}"

    def run(message: Any, value: Any) -> None:
        # NaN is in no range.
        for each in value.values() if many else (value,):
            if not low <= each <= high:
                raise Violation(name, sentence)

    return run


def _counted(field: FieldDescriptor, most: int) -> Check:
    name = field.name
    unit = "items" if field.is_repeated else "bytes" if field.type == field.TYPE_BYTES else "characters"

    def run(message: Any, value: Any) -> None:
        if len(value) > most:
            raise Violation(name, f"{name} takes at most {most} {unit}")

    return run


def _matching(field: FieldDescriptor, pattern: re.Pattern[str], words: str) -> Check:
    name, is_list = field.name, field.is_repeated

    def run(message: Any, value: Any) -> None:
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

    def run(message: Any, value: Any) -> None:
        if value and value not in words:
            raise Violation(name, f"{name} is one of {', '.join(words)}")

    return run


def _accompanied(field: FieldDescriptor, other: str) -> Check:
    name, companion = field.name, presence(sibling(field, other))

    def run(message: Any, value: Any) -> None:
        if not companion(message):
            raise Violation(name, f"{name} needs {other}", other=other)

    return run


def _of_values(field: FieldDescriptor) -> Check | None:
    required = {
        number: tuple(Required(sibling(field, other)) for other in demands.fields)
        for number, demands in demands_of(field).items()
        if demands.fields
    }

    def run(message: Any, value: Any) -> None:
        for each in required.get(value, ()):
            each.check(message)

    return run if required else None
