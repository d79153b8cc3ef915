"""Hold requests to the limits that their contracts declare (`moa/common/v1/limits.proto`).

A message type's checks are made once, from its descriptor; only fields with limits, and messages that hold such fields,
are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from google.protobuf.message import Message

from services.common.errors import InvalidField, Unsupported
from services.common.limits.checks import Violation, checks_of
from services.common.limits.fields import of
from services.common.limits.meta import bounds, camel_numbers, meta, numbers
from services.common.limits.needs import Need, needs_beyond, words
from services.common.limits.needs import hints_beyond as _hints_beyond

__all__ = [
    "Able",
    "Need",
    "bounds",
    "camel_numbers",
    "check",
    "check_able",
    "check_needs",
    "hints_beyond",
    "meta",
    "needs",
    "numbers",
    "of",
    "words",
]


class CapableModel(Protocol):
    """A model, as the catalogue describes it."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def capabilities(self) -> frozenset[str]:
        """What it can do."""


def check(request: Message) -> None:
    """Raise InvalidField, with the field's path, for the first field that is outside its limits."""
    try:
        for each in checks_of(request.DESCRIPTOR):
            each(request)
    except Violation as violation:
        raise InvalidField(violation.prefix + violation.sentence, param=violation.path) from None


def check_able(request: Message, model: CapableModel) -> None:
    """Raise Unsupported, with the field's path and what the model can do, for the first field that it cannot do."""
    results: list[Need] = []
    for each in needs_beyond(request.DESCRIPTOR, frozenset(model.capabilities)):
        each(request, results)
    check_needs(results, model)


def needs(request: Message) -> tuple[Need, ...]:
    """Return the first field for each capability that a request needs, in the order of its fields."""
    results: list[Need] = []
    for each in needs_beyond(request.DESCRIPTOR, frozenset()):
        each(request, results)
    first: dict[str, Need] = {}
    for need in results:
        first.setdefault(need.capability, need)
    return tuple(first.values())


def hints_beyond(request: Message, model: CapableModel) -> Sequence[str]:
    """Return the fields of a message, not of those in it, that only tune and that a model does not take."""
    return _hints_beyond(request.DESCRIPTOR, frozenset(model.capabilities))


def check_needs(needs: Iterable[Need], model: CapableModel) -> None:
    """As `check_able`, for what a request is known to need."""
    lacking = next((need for need in needs if need.capability not in model.capabilities), None)
    if lacking is not None:
        can = ", ".join(sorted(model.capabilities)) or "plain requests only"
        message = f"model {model.id!r} does not support {lacking.capability} (it can do: {can})"
        raise Unsupported(message, param=lacking.param)
