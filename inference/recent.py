"""What an engine did within the last seconds: how many steps, how full, and for how much of the time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

WINDOW_S: Final = 10
"""How far is looked back, in whole seconds that are over."""


class Rates(NamedTuple):
    """Means over the window."""

    steps_per_s: float
    rows_per_step: float
    busy: float
    """The part of the time in which a step was taken, from 0 to 1."""


class Recent:
    """Notes steps, by the second in which they ended. One thread notes, any may ask.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: deque[tuple[int, int, int, float]] = deque(maxlen=WINDOW_S + 2)
        """Second, steps, rows, time taken: the last one is replaced, so that whoever reads has whole ones."""

    def add(self, rows: int, took_s: float) -> None:
        """Note a step."""
        now = int(self._clock())
        if self._seconds and self._seconds[-1][0] == now:
            _, steps, before, busy = self._seconds[-1]
            self._seconds[-1] = now, steps + 1, before + rows, busy + took_s
        else:
            self._seconds.append((now, 1, rows, took_s))

    def rates(self) -> Rates:
        """Return what was done of late."""
        now = int(self._clock())
        window = [each for each in tuple(self._seconds) if now - WINDOW_S <= each[0] < now]
        steps = sum(each[1] for each in window)
        rows = sum(each[2] for each in window)
        busy = sum(each[3] for each in window)
        return Rates(steps / WINDOW_S, rows / steps if steps else 0.0, min(1.0, busy / WINDOW_S))
