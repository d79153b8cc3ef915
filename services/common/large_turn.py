"""Turns of large requests within a process: while one comes, is read, or is written and sent, it lies there in copies.

gRPC has three of a message's bytes as it receives it, and two as it sends it. What waits for its turn has one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal
from weakref import WeakKeyDictionary

TURN_S: Final = 5.0
"""How long a turn lasts at most: who sends, or who is sent to, may have stopped amid it."""

_Locks = dict[str, asyncio.Lock]
_LOCKS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Locks]] = WeakKeyDictionary()
"""A process has one loop that serves."""


@asynccontextmanager
async def large_turn(way: Literal["in", "out"]) -> AsyncIterator[None]:
    """Wait for one's turn, and have it until the block is left.

    `way`: whether a request comes and is read, or is written and sent. Who sends and who receives may be one process.
    """
    loop = asyncio.get_running_loop()
    locks = _LOCKS.setdefault(loop, {})
    lock = locks.setdefault(way, asyncio.Lock())
    await lock.acquire()
    has_turn = True

    def give_back() -> None:
        nonlocal has_turn
        if has_turn:
            has_turn = False
            lock.release()

    lapse = loop.call_later(TURN_S, give_back)
    try:
        yield
    finally:
        lapse.cancel()
        give_back()
