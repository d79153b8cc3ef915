"""The time that all processes of a gateway agree on: that of their database. Their own clocks may be minutes apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final


def _elapsed_s() -> float:
    """Return seconds that go on whatever the clock is set to, also while the machine sleeps where that is counted."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class SharedClock:
    """The database's time as far as it was told; the machine's until then.

    Args:
        elapsed: Seconds that only ever go on.
        wall: The machine's time.
    """

    def __init__(
        self,
        *,
        elapsed: Callable[[], float] = _elapsed_s,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._elapsed = elapsed
        self._wall = wall
        self._ahead: float | None = None
        """How far the database's seconds since 1970 are ahead of the elapsed ones."""

    def now(self) -> datetime:
        """Return the time, in UTC."""
        if self._ahead is None:
            return self._wall()
        return datetime.fromtimestamp(self._elapsed() + self._ahead, UTC)

    def elapsed(self) -> float:
        """Return the seconds in which `learn` is told when it was asked."""
        return self._elapsed()

    def learn(self, at: datetime, asked_at: float) -> None:
        """Take over what time it was between `asked_at` and now.

        An answer says it only as exactly as it was quick: what is known already stays where it does not contradict.
        """
        seconds = at.timestamp()
        least, most = seconds - self._elapsed(), seconds - asked_at
        if self._ahead is None:
            self._ahead = self._wall().timestamp() - self._elapsed()
        self._ahead = min(max(self._ahead, least), most)


CLOCK: Final = SharedClock()
"""This process's: its database is one."""


def now_utc() -> datetime:
    """Return the time, in UTC, as the database has it."""
    return CLOCK.now()
