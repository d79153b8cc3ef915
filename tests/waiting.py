"""How tests wait: pauses between two looks at what nothing announces, and how often others had a turn meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

_FIRST_S, _QUICK, _GROWTH, _MOST_S = 0.02, 25, 1.2, 0.25


def pauses() -> Iterator[float]:
    """Yield seconds without end: half a second in all at first, then up to a quarter of a second each.

    They grow, since each look costs a request.
    """
    pause_s = _FIRST_S
    for number in range(10**9):
        yield pause_s
        if number >= _QUICK:
            pause_s = min(_MOST_S, pause_s * _GROWTH)


class Turns:
    """Counts the turns that the running loop gives to a task which always wants one, from entry to exit."""

    def __init__(self) -> None:
        self.taken = 0

    async def __aenter__(self) -> Turns:
        self._task = asyncio.create_task(self._count())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.taken += 1
