"""What a failure of one target means for the next: whose fault it is, and who could do better."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from typing import Final

from moa.common.v1 import error_pb2
from moa.common.v1.error_pb2 import Reason
from services.common.errors import MoaError, Unavailable, UpstreamRateLimited, passes, word


class ContinuationDiffers(MoaError):
    """Another target was asked to go on with an answer, and gave another one. It was left, and is well."""

    reason = error_pb2.REASON_UPSTREAM_BROKEN


class Stopping(Unavailable):
    """This router ends before the answer does: nobody else is asked, the caller is told while it can be."""

    reason = Unavailable.reason

    def __init__(self) -> None:
        super().__init__("the router that answers this is shutting down; try again in a second", retry_after_s=1.0)


class Restarting(Unavailable):
    """Who serves a target is being started again: nothing was sent, and it is worth waiting for."""

    reason = Unavailable.reason

    def __init__(self) -> None:
        super().__init__("the service that runs this model is restarting; try again in a second", retry_after_s=1.0)


class NotExtended(Unavailable):
    """Auth could not say whether more is left for an answer that runs: no other target could go on with it."""

    reason = Unavailable.reason

    def __init__(self) -> None:
        super().__init__("accounts could not be reached, and no more was set aside; try again", retry_after_s=1.0)


class HeldBack(UpstreamRateLimited):
    """A provider would have refused a call by its known limits, so that it was not made."""

    reason = UpstreamRateLimited.reason


class Course(enum.Enum):
    """What to do after a failure."""

    TELL = enum.auto()
    """The caller has to mend it: nobody else is asked."""
    ONWARD = enum.auto()
    """Another target may do better; the same one would not."""
    AGAIN = enum.auto()
    """Another target may do better; the same one may too, in a moment."""
    LARGER = enum.auto()
    """A target with a longer context may do better."""


_COURSES: Final[Mapping[Reason.ValueType, Course]] = {
    error_pb2.REASON_UPSTREAM_OVERLOADED: Course.AGAIN,
    error_pb2.REASON_UPSTREAM_BROKEN: Course.AGAIN,
    error_pb2.REASON_UPSTREAM_FAILED: Course.AGAIN,
    error_pb2.REASON_UPSTREAM_RATE_LIMITED: Course.AGAIN,
    error_pb2.REASON_UNAVAILABLE: Course.AGAIN,
    # It has used up the patience that its caller had for it.
    error_pb2.REASON_UPSTREAM_TIMEOUT: Course.ONWARD,
    # The services try a provider's other keys themselves.
    error_pb2.REASON_UPSTREAM_AUTH: Course.ONWARD,
    # More of the same would lengthen the queue.
    error_pb2.REASON_QUEUE_FULL: Course.ONWARD,
    # The catalogue promises what its owner, or this gateway's service, does not have.
    error_pb2.REASON_MODEL_NOT_FOUND: Course.ONWARD,
    error_pb2.REASON_PROVIDER_NOT_CONFIGURED: Course.ONWARD,
    error_pb2.REASON_MODEL_MISCONFIGURED: Course.ONWARD,
    error_pb2.REASON_INTERNAL: Course.ONWARD,
    error_pb2.REASON_CONTEXT_TOO_LONG: Course.LARGER,
}
"""Whatever is not here is told."""

_FINAL: Final = frozenset(
    (error_pb2.REASON_CONTENT_POLICY, error_pb2.REASON_CANCELLED, error_pb2.REASON_DEADLINE_EXCEEDED)
)
"""Told even by a target that the caller did not ask for."""

_SICK: Final = frozenset(_COURSES) - {error_pb2.REASON_QUEUE_FULL, error_pb2.REASON_CONTEXT_TOO_LONG}
"""Failures that speak of the target, whatever was asked of it."""

_LEFT: Final = frozenset(
    (
        error_pb2.REASON_CANCELLED,
        error_pb2.REASON_DEADLINE_EXCEEDED,
        error_pb2.REASON_UNAVAILABLE,
        error_pb2.REASON_UPSTREAM_TIMEOUT,
    )
)

_WORKED: Final = frozenset(
    (
        error_pb2.REASON_UPSTREAM_BROKEN,
        error_pb2.REASON_UPSTREAM_TIMEOUT,
        error_pb2.REASON_UNAVAILABLE,
        error_pb2.REASON_INTERNAL,
    )
)
"""Failures after which a provider may have worked; those with a status of its own say that it did not."""

_TRIED: Final = frozenset(
    (
        error_pb2.REASON_UPSTREAM_OVERLOADED,
        error_pb2.REASON_UPSTREAM_BROKEN,
        error_pb2.REASON_UPSTREAM_FAILED,
        error_pb2.REASON_UPSTREAM_TIMEOUT,
        error_pb2.REASON_UPSTREAM_AUTH,
        error_pb2.REASON_MODEL_MISCONFIGURED,
    )
)
"""Failures that the gateway has tried to get around when they are told."""


def course_after(error: MoaError, *, asked_for: bool) -> Course:
    """Tell what to do; `asked_for`: whether the target is the one that the caller asked for.

    What another target cannot do of the request is no news to the caller, who did not ask for it.
    """
    if isinstance(error, ContinuationDiffers | HeldBack):
        return Course.ONWARD
    if isinstance(error, Stopping | NotExtended):
        return Course.TELL
    course = _COURSES.get(error.reason, Course.TELL)
    if course is Course.TELL and not asked_for and error.reason not in _FINAL:
        return Course.ONWARD
    return course


def asks_twice(error: MoaError) -> bool:
    """Return whether to ask the same target again would have it do its work twice.

    It hung up, or sent half an answer, after it had the whole request. A refusal with a status of its own
    (429, 500, 503, 529) says that it did no work.
    """
    return error.reason == error_pb2.REASON_UPSTREAM_BROKEN


def tell_not_to_retry(error: MoaError) -> None:
    """Put into a failure that the gateway has done what trying again could do, for clients that try again themselves.

    Not where the failure says when it passes.
    """
    if error.reason in _TRIED and error.retry_after_s is None:
        error.headers = (*error.headers, ("x-should-retry", "false"))


def is_sick(error: MoaError) -> bool:
    """Return whether a failure says that its target is not well."""
    return error.reason in _SICK and not isinstance(
        error, ContinuationDiffers | Stopping | Restarting | NotExtended | HeldBack
    )


def was_left(error: MoaError) -> bool:
    """Return whether the call's other end may not have come to its own end, so that it takes the router for dead."""
    return (error.reason in _LEFT and not isinstance(error, Restarting)) or isinstance(error, ContinuationDiffers)


def may_have_worked(error: MoaError) -> bool:
    """Return whether a provider may have worked, and bills for it, though its answer failed like this."""
    return error.reason in _WORKED and not isinstance(error, Stopping | Restarting)


def label_of(error: MoaError) -> str:
    """Return a failure's name for logs and metrics."""
    return "diverged" if isinstance(error, ContinuationDiffers) else word(error.reason)


def most_useful(errors: Sequence[MoaError]) -> MoaError:
    """Return the one of several targets' failures, in the order in which they were asked, that helps the caller most.

    One that passes by itself, of these the one that passes soonest: the same request can succeed then, whoever answers.
    Else the first: it speaks of the model that was asked for.
    """
    passing = [error for error in errors if passes(error)]
    soonest = min(
        passing, key=lambda error: math.inf if error.retry_after_s is None else error.retry_after_s, default=None
    )
    return soonest or errors[0]
