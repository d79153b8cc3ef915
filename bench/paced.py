"""Streams that trickle as models write: each token says when it was written, and whoever reads it, how late that is.

Models write token by token, so each token is a message of its own on the way; streams as fast as they go hide it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Final

RATE: Final = 25.0
"""Tokens a second of one stream."""
TOKENS: Final = 100
"""Tokens of a stream."""
WORD: Final = b"slowly"
"""A request with this word is answered at that rate."""
STAMP: Final = re.compile(rb"@(\d{16})")
STAMP_BYTES: Final = 17
_TURNS: Final = 20
"""Streams are written to in so many turns of each period, so that they do not all write at once."""


def now_us() -> int:
    """Return the time by the clock that all processes of the machine share, in microseconds."""
    return time.monotonic_ns() // 1000


def stamp() -> str:
    """Return the text of a token that says when it was made."""
    return f" @{now_us():016d}"


class Pace:
    """Calls each of its functions RATE times a second, and nothing while it has none."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._turns: list[dict[Callable[[], None], None]] = [{} for _ in range(_TURNS)]
        self._added = 0
        self._turn = 0
        self._next: float | None = None
        """When the next turn is due; None: none is."""

    def add(self, function: Callable[[], None]) -> None:
        """Call a function from now on; those that are added one after another have turns of their own."""
        self._turns[self._added % _TURNS][function] = None
        self._added += 1
        if self._next is None:
            self._plan(self._loop.time())

    def discard(self, function: Callable[[], None]) -> None:
        """Call it no more."""
        for turn in self._turns:
            turn.pop(function, None)

    def _plan(self, after: float) -> None:
        self._next = after + 1 / RATE / _TURNS
        self._loop.call_at(self._next, self._call)

    def _call(self) -> None:
        assert self._next is not None
        due = self._turns[self._turn]
        self._turn = (self._turn + 1) % _TURNS
        for function in list(due):
            function()
        if any(self._turns):
            self._plan(self._next)
        else:
            self._next = None
