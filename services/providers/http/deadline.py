"""Bound the waits of one call by a single timer, however often the bound moves."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

from services.common.errors import UpstreamTimeout


class Deadline:
    """Raises UpstreamTimeout in the task inside `with` once the deadline has passed.

    `within` moves the deadline and `rest` lifts it; both cost one assignment, as the timer is set again only when it
    fires early. A stream of a thousand pieces therefore makes a timer a minute, not a thousand. Where waits are of one
    length, whoever waits for many pieces sets `until` itself.
    """

    __slots__ = ("_before", "_fired", "_look_s", "_loop", "_task", "_timer", "_what", "until")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.until = math.inf
        """When the wait is over, by the loop's clock. After `within` it may be set to as long from any moment."""
        self._look_s = 0.0
        """The timer fires so soon at the latest."""
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
        self._look_s = seconds
        self.until = at
        self._what = what

    def extend(self, seconds: float, what: str) -> None:
        """As `within`, but no sooner than was allowed before."""
        at = self._loop.time() + seconds
        if at > self.until:
            self.until, self._what = at, what

    def rest(self) -> None:
        """Allow any time, until `within` is called again: the wait is not the provider's."""
        self.until = math.inf

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
        now = self._loop.time()
        if now < self.until:
            self._timer = self._loop.call_at(min(self.until, now + self._look_s), self._check)
            return
        self._timer = None
        self._fired = True
        if self._task is not None:
            self._task.cancel()
