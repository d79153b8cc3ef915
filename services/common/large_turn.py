"""Turns of a process's large requests: while one comes, is read, or is written and sent, it lies there in copies.

gRPC has three of a message's bytes as it receives it, and two as it sends it. What waits for its turn has one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

TURN_S: Final = 5.0
"""How long a turn lasts at most: who sends, or who is sent to, may have stopped amid it."""


class LargeTurns:
    """The turns of what a server receives, and of what its handlers do with it. Within one, none is waited for."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn, and have it until the block is left."""
        await self._lock.acquire()
        has_turn = True

        def give_back() -> None:
            nonlocal has_turn
            if has_turn:
                has_turn = False
                self._lock.release()

        lapse = asyncio.get_running_loop().call_later(TURN_S, give_back)
        try:
            yield
        finally:
            lapse.cancel()
            give_back()
