"""Hedging: another target is asked too when the first has said nothing for long, and who begins first answers.

The caller pays for one of the two calls; the other is the operator's (docs/charging.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from services.catalogue import Model
from services.common.cancelling import CLEANING_S, cancel_and_wait
from services.common.errors import MoaError
from services.router import metrics
from services.router.domain.failures import Course, course_after
from services.router.domain.measures import Watch
from services.router.domain.ports import M, Reservation
from services.router.domain.terms import Ask, Begun

if TYPE_CHECKING:
    from services.router.domain.attempts import Attempts

T = TypeVar("T")

HEDGE = "hedge"
"""Why nobody pays for the call that was left."""


class Unbooked:
    """A reservation whose id is told to nobody: whoever answers books nothing for it.

    For a call beside the one that the caller pays for.

    Args:
        paying: The reservation of the other call.
    """

    reservation_id = ""

    def __init__(self, paying: Reservation) -> None:
        self._paying = paying

    def __getattr__(self, name: str) -> Any:
        return getattr(self._paying, name)


class Raced(NamedTuple, Generic[T]):
    """What came of two calls: a result, a failure, or None for one that was left or never begun."""

    first: T | MoaError | None
    second: T | MoaError | None


async def race(
    first: Awaitable[T],
    silence: Awaitable[None],
    start: Callable[[], Awaitable[T] | None],
    tells: Callable[[MoaError], bool],
) -> Raced[T]:
    """Wait for a call, and once `silence` is over for the one that `start` begins too, until one has a result.

    A failure of one is waited out by the other, unless `tells` says that the first's is the caller's to know. Whoever
    runs at the end is cancelled.
    """
    one, pause = asyncio.ensure_future(_outcome(first)), asyncio.ensure_future(silence)
    two: asyncio.Future[T | MoaError] | None = None
    try:
        await asyncio.wait({one, pause}, return_when=asyncio.FIRST_COMPLETED)
        if not one.done() and (begun := start()) is not None:
            two = asyncio.ensure_future(_outcome(begun))
        while not _is_over(one, two, tells):
            running = [call for call in (one, two) if call is not None and not call.done()]
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        return Raced(*(call.result() if call is not None and call.done() else None for call in (one, two)))
    finally:
        await cancel_and_wait(one, pause, two, again_s=CLEANING_S)


async def _outcome(call: Awaitable[T]) -> T | MoaError:
    try:
        return await call
    except MoaError as error:
        return error


def _is_over(
    one: asyncio.Future[T | MoaError],
    two: asyncio.Future[T | MoaError] | None,
    tells: Callable[[MoaError], bool],
) -> bool:
    if two is not None and two.done() and not isinstance(two.result(), MoaError):
        return True
    if not one.done():
        return False
    outcome = one.result()
    return two is None or two.done() or not isinstance(outcome, MoaError) or tells(outcome)


async def hedged(attempts: Attempts[M], watch: Watch, first: Begun[Any], ask: Ask[M], after_s: float) -> Begun[M]:
    """Return what begins first: what a target was asked for, or after some silence of it another.

    Raises the MoaError of the first where both fail; the second's was noted.

    Args:
        first: The call that runs; its `first` is awaited.
    """
    spare: list[Begun[Any]] = []

    def start() -> Awaitable[M] | None:
        begun = attempts.open_spare(ask, watch.may_hedge)
        if begun is None:
            return None
        spare.append(begun)
        second: Awaitable[M] = begun.first
        return second

    raced = await race(first.first, attempts.silence(after_s), start, _is_told)
    if spare:
        second = spare[0]
        if isinstance(raced.second, MoaError):
            _note(second.model, "failed")
            attempts.gave_up(second.model, raced.second)
            attempts.failed(second.model, raced.second)
        elif raced.second is not None and (raced.first is None or isinstance(raced.first, MoaError)):
            _note(second.model, "won")
            if isinstance(raced.first, MoaError):
                attempts.gave_up(first.model, raced.first)
                attempts.failed(first.model, raced.first)
            else:
                watch.ended(first.model, silent=True)
                metrics.unbilled(first.model, HEDGE, attempts.stake)
                attempts.forgive(first.model)
            attempts.renew_reservation()
            return Begun(second.model, second.stream, raced.second)
        else:
            _note(second.model, "lost")
            second.stream.cancel()
            watch.ended(second.model)
            metrics.unbilled(second.model, HEDGE, attempts.stake)
            attempts.forgive(second.model)
    if isinstance(raced.first, MoaError):
        raise raced.first
    assert raced.first is not None
    return Begun(first.model, first.stream, raced.first)


def _is_told(error: MoaError) -> bool:
    """Return whether a failure ends the search: the other target's answer would be no better."""
    return course_after(error, asked_for=False) is Course.TELL


def _note(model: Model, outcome: str) -> None:
    metrics.HEDGES.labels(model.provider, model.label, outcome).inc()
