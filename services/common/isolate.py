"""Work on many rows at once in which one row that fails keeps no other back: in one call, and by itself at last."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from prometheus_client import Counter, Gauge

from services.common import logs
from services.common.errors import Unavailable

_log = logs.get("isolation")
T = TypeVar("T")
R = TypeVar("R")

ROWS_FAILED: Final = Counter(
    "moa_rows_failed_total", "Rows that background work could not be done on, each time, by duty.", ["duty"]
)
ROWS_FAILING: Final = Gauge(
    "moa_rows_failing", "Rows that background work could not be done on and will be tried again, by duty.", ["duty"]
)
_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 600.0


class OneFailed(Unavailable):
    """What was asked for is there, and refused this one piece of work: too slow, behind a lock, in a deadlock."""


def concerns_all(error: Exception) -> bool:
    """Return whether a failure is no row's fault: it meets every row alike."""
    return isinstance(error, Unavailable) and not isinstance(error, OneFailed)


async def each_isolated(
    items: Sequence[T], work: Callable[[Sequence[T]], Awaitable[R]]
) -> tuple[list[R], list[tuple[T, Exception]]]:
    """Return what work on all items gave, in one call where that succeeds, and the items that fail even alone.

    Where a call fails, its items are halved until the ones that fail stand alone. `work` must be all or nothing. Raises
    Unavailable, which concerns all items alike.
    """
    done: list[R] = []
    failed: list[tuple[T, Exception]] = []
    waiting = [items] if items else []
    while waiting:
        part = waiting.pop()
        try:
            done.append(await work(part))
        except Exception as error:
            if concerns_all(error):
                raise
            if len(part) == 1:
                failed.append((part[0], error))
            else:
                middle = len(part) // 2
                waiting += part[middle:], part[:middle]
    return done, failed


def note_failure(duty: str, row: str, error: Exception) -> None:
    """Log and count a row that work failed on."""
    ROWS_FAILED.labels(duty).inc()
    _log.error("row.failed", duty=duty, row=row, exc_info=error)


class _Rest:
    __slots__ = ("pause_s", "until")

    def __init__(self, pause_s: float, until: float) -> None:
        self.pause_s = pause_s
        self.until = until


class Isolation(Generic[T]):
    """A duty that is done again and again over rows; those that it fails on rest, twice as long after each failure.

    Args:
        duty: The word that logs and metrics name it by.
        name: Gives a row's own name.
        first_s: How long a row rests after its first failure; `longest_s` is the most.
    """

    def __init__(
        self,
        duty: str,
        name: Callable[[T], str] = str,
        *,
        first_s: float = _FIRST_PAUSE_S,
        longest_s: float = _LONGEST_PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._duty = duty
        self._name = name
        self._first_s = first_s
        self._longest_s = longest_s
        self._clock = clock
        self._resting: dict[str, _Rest] = {}

    def resting(self) -> list[str]:
        """Return the names of rows that are not to be tried now."""
        now = self._clock()
        for name, rest in list(self._resting.items()):
            if now > rest.until + self._longest_s:
                # Nobody came back to it: somebody else has done it, or it is gone.
                del self._resting[name]
        self._count()
        return [name for name, rest in self._resting.items() if now < rest.until]

    async def do(self, items: Sequence[T], work: Callable[[Sequence[T]], Awaitable[R]]) -> list[R]:
        """Work on the items that do not rest, as `each_isolated` does; return what that gave. Raises Unavailable."""
        resting = set(self.resting())
        due = [item for item in items if self._name(item) not in resting]
        done, failed = await each_isolated(due, work)
        errors = {self._name(item): error for item, error in failed}
        for item in due:
            name = self._name(item)
            if name not in errors:
                self._resting.pop(name, None)
        for name, error in errors.items():
            before = self._resting.get(name)
            pause_s = min(self._longest_s, before.pause_s * 2) if before else self._first_s
            self._resting[name] = _Rest(pause_s, self._clock() + pause_s)
            note_failure(self._duty, name, error)
        self._count()
        return done

    def _count(self) -> None:
        ROWS_FAILING.labels(self._duty).set(len(self._resting))
