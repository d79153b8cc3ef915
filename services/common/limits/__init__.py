"""Hold requests to the limits that their contracts declare (`moa/common/v1/limits.proto`).

What is looked for in a message type is made once, from its descriptor; only fields that a message has are looked at,
and those that it must have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from google.protobuf.message import Message

from services.common.errors import InvalidField, Unsupported
from services.common.limits.checks import Violation
from services.common.limits.fields import of
from services.common.limits.look import look_of
from services.common.limits.meta import bounds, meta
from services.common.limits.needs import Need, words
from services.common.limits.needs import hints_beyond as _hints_beyond
from services.common.limits.settings import camel_settings, given_settings, put, settings, shape

__all__ = [
    "Able",
    "Need",
    "OutsideLimits",
    "bounds",
    "camel_settings",
    "check",
    "check_able",
    "check_for",
    "check_needs",
    "first_of",
    "given_settings",
    "hints_beyond",
    "meta",
    "needs",
    "of",
    "put",
    "settings",
    "shape",
    "words",
]


class OutsideLimits(InvalidField):
    """A field that is outside its limits.

    Args:
        violation: What is wrong, in the contract's names.
    """

    def __init__(self, message: str, *, violation: Violation) -> None:
        super().__init__(message, param=violation.path)
        self._violation = violation

    def worded(self, spelled: Callable[[str], str]) -> str:
        """Return what is wrong, with the fields' paths as `spelled` gives them."""
        violation = self._violation
        sentence = violation.sentence
        for name in violation.names:
            sentence = re.sub(
                rf"(?<![\w.]){re.escape(name)}(?![\w.])", spelled(violation.prefix + name), sentence, count=1
            )
        return sentence


class CapableModel(Protocol):
    """A model, as the catalogue describes it."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def capabilities(self) -> frozenset[str]:
        """What it can do."""


def check(request: Message) -> Sequence[Need]:
    """Return what a request needs of a model, for `check_needs`.

    Raises InvalidField, with the field's path, for the first field that is outside its limits.
    """
    look = look_of(request.DESCRIPTOR, checked=True)
    try:
        return look(request) if look is not None else ()
    except Violation as violation:
        raise OutsideLimits(violation.prefix + violation.sentence, violation=violation) from None


def check_for(request: Message, model: CapableModel) -> None:
    """Raise as `check`, then as `check_able`."""
    check_needs(check(request), model)


def check_able(request: Message, model: CapableModel) -> None:
    """Raise Unsupported, with the field's path and what the model can do, for the first field that it cannot do."""
    check_needs(needs(request), model)


def needs(request: Message) -> Sequence[Need]:
    """Return what a request needs of a model, in the order of its fields; its limits are not looked at."""
    look = look_of(request.DESCRIPTOR, checked=False)
    return look(request) if look is not None else ()


def first_of(needs: Iterable[Need]) -> Sequence[Need]:
    """Return the first need of each capability."""
    first: dict[str, Need] = {}
    for need in needs:
        first.setdefault(need.capability, need)
    return tuple(first.values())


def hints_beyond(request: Message, model: CapableModel) -> Sequence[str]:
    """Return the fields of a message, not of those in it, that only tune and that a model does not take."""
    return _hints_beyond(request.DESCRIPTOR, frozenset(model.capabilities))


def check_needs(needs: Iterable[Need], model: CapableModel) -> None:
    """As `check_able`, for what a request is known to need."""
    for need in needs:
        if need.capability not in model.capabilities:
            can = ", ".join(sorted(model.capabilities)) or "plain requests only"
            message = f"model {model.id!r} does not support {need.capability} (it can do: {can})"
            raise Unsupported(message, param=need.param)
