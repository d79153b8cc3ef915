"""A request that waits for the process of its model: it is being started again, and the caller sees that it waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Generic

from services.common.rpc.client import ConnectionWatch
from services.router.domain.failures import Restarting
from services.router.domain.ports import M, MessageStream

_EVERY_S: Final = 5.0
"""As often as the process itself tells that a request waits in its queue."""


class ReconnectingStream(Generic[M]):
    """The messages of a call that is made once the process is back; until then, those that tell that it waits.

    Args:
        connections: Whether the process is there.
        ask: Makes the call. Raises Restarting where it went again.
        waiting: Makes a message that tells that the request waits.
    """

    __slots__ = ("_announced", "_ask", "_connections", "_stream", "_waiting")

    def __init__(
        self, connections: ConnectionWatch, ask: Callable[[], MessageStream[M]], waiting: Callable[[], M]
    ) -> None:
        self._connections = connections
        self._ask = ask
        self._waiting = waiting
        self._stream: MessageStream[M] | None = None
        self._announced = False

    async def read(self) -> M | None:
        """Return the next message; None after the last. Raises MoaError."""
        if self._stream is None:
            if not self._announced:
                self._announced = True
                return self._waiting()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await self._connections.returned()
            try:
                self._stream = self._ask()
            except Restarting:
                return self._waiting()
        return await self._stream.read()

    def cancel(self) -> None:
        """Stop the work behind it."""
        if self._stream is not None:
            self._stream.cancel()

    def close(self) -> None:
        """Let go of it."""
        if self._stream is not None:
            self._stream.close()
