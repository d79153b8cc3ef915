"""Images that wait for the process of their model: it is being started again, and their caller sees that they wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from moa.image.v1 import image_pb2, image_service_pb2
from services.common.rpc.reach import Reach
from services.router.domain.failures import Restarting
from services.router.domain.ports import Source

_EVERY_S: Final = 5.0
"""As often as the process itself tells that a request waits in its queue."""

_Message = image_service_pb2.GenerateImageResponse


class Returning:
    """The messages of a call that is made once the process is back; until then, `queued` events.

    Args:
        reach: Whether the process is there.
        ask: Makes the call. Raises Restarting where it went again.
    """

    __slots__ = ("_ask", "_reach", "_source", "_told")

    def __init__(self, reach: Reach, ask: Callable[[], Source[_Message]]) -> None:
        self._reach = reach
        self._ask = ask
        self._source: Source[_Message] | None = None
        self._told = False

    async def read(self) -> _Message | None:
        """Return the next message; None after the last. Raises MoaError."""
        if self._source is None:
            if not self._told:
                self._told = True
                return _queued()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reach.returned(), _EVERY_S)
            try:
                self._source = self._ask()
            except Restarting:
                return _queued()
        return await self._source.read()

    def cancel(self) -> None:
        """Stop the work behind it."""
        if self._source is not None:
            self._source.cancel()

    def close(self) -> None:
        """Let go of it."""
        if self._source is not None:
            self._source.close()


def _queued() -> _Message:
    return _Message(events=[image_pb2.ImageEvent(queued=image_pb2.Queued())])
