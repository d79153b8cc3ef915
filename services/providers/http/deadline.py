"""Bound the waits of one call by a single timer, however often the bound moves."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

from services.common.errors import UpstreamTimeout


class Deadline:
    """Raises UpstreamTimeout in the task inside `with` once the deadline has passed.

    `within` moves the deadline and `rest` lifts it; both cost one assignment, as the timer is set again only when it
    fires early. A stream of a thousand pieces therefore makes a timer a minute, not a thousand.
    """

    __slots__ = ("_at", "_before", "_fired", "_loop", "_task", "_timer", "_what")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._at = math.inf
        self._what = ""
        self._fired = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._before = 0

    def within(self, seconds: float, what: str) -> None:
        """Allow `seconds` from now for `what` (it completes the sentence "the provider did not … in time")."""
        at = self._loop.time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_at(at, self._check)
        elif at < self._timer.when():
            # It would fire too late.
            self._timer.cancel()
            self._timer = self._loop.call_at(at, self._check)
        self._at = at
        self._what = what

    def extend(self, seconds: float, what: str) -> None:
        """As `within`, but no sooner than was allowed before."""
        at = self._loop.time() + seconds
        if at > self._at:
            self._at, self._what = at, what

    def rest(self) -> None:
        """Allow any time, until `within` is called again: the wait is not the provider's."""
        self._at = math.inf

    def __enter__(self) -> Deadline:
        self._task = asyncio.current_task()
        self._before = self._task.cancelling() if self._task else 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._fired or self._task is None:
            return
        # As asyncio.timeout does: ours alone becomes a timeout; a cancellation from outside stays one.
        if self._task.uncancel() <= self._before and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise UpstreamTimeout(f"the provider did not {self._what} in time") from error

    def _check(self) -> None:
        self._timer = None
        if self._at == math.inf:
            return
        if self._loop.time() < self._at:
            self._timer = self._loop.call_at(self._at, self._check)
            return
        self._fired = True
        if self._task is not None:
            self._task.cancel()
