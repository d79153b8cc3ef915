"""What one side of a session says: all of a turn of the loop in one message, over a socket or gRPC's stream.

What may wait, which is a stream's messages after its first where many streams run, is written `GATHER_S` after the last
message at the earliest, with what comes then: where they trickle, several share a message.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar, cast

from moa.session.v1 import session_service_pb2

B = TypeVar("B", session_service_pb2.CarryRequest, session_service_pb2.CarryResponse)

GATHER_S: Final = 0.005
"""How far apart messages are, at least, of which all may wait; what waits does so for twice as long at most.

A message wakes the other side, and what that writes the edge: most of the CPU of a stream that trickles
(docs/performance.md).
"""
MANY: Final = range(8, 257)
"""Among so many calls. Among fewer nothing waits: at a model's pace hardly two say anything within that time. Of more,
a turn of the loop finds several by itself, and what waits would only be later."""
_GATHERED_BYTES: Final = 16 * 1024
"""So much is not waited with."""
_BATCH_BYTES: Final = 2**20
"""A message is not added to beyond that."""
_FRAME_BYTES: Final = 8 * 2**20
"""What is longer is not from the other side of a session."""
_SIZE: Final = struct.Struct("<I")


class Writer(Generic[B]):
    """Gathers what is said until it is written.

    Args:
        kind: Of what messages there are.
        gather_s: How far apart messages are of which all may wait.
    """

    def __init__(self, kind: type[B], gather_s: float = GATHER_S) -> None:
        self._kind: type[B] = kind
        self._gather_s = gather_s
        self._not_before = 0.0
        """When what may wait is written at the earliest (`loop.time`)."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.batch: B = kind()
        """What is added to; then `added` is called."""
        self._size = 0
        self._full: list[bytes] = []
        self._due = False
        self._socket: Socket | None = None
        self._waiting: asyncio.Future[None] | None = None

    def added(self, size: int = 0, *, among: int = 0) -> None:
        """Have what was added written, which is about so many bytes.

        A later piece of a stream is one `among` so many calls; it may wait. What is none (0) goes with this turn of the
        loop, and what waits goes with it.
        """
        self._size += size
        if self._size > _BATCH_BYTES:
            self._full.append(self._taken())
        if self._due:
            return
        if among in MANY and self._size < _GATHERED_BYTES and self._loop.time() < self._not_before:
            if self._timer is None:
                # The next that comes later than `_not_before` takes it along; where none does, it goes then.
                self._timer = self._loop.call_later(2 * self._gather_s, self._waited)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = True
        if self._socket is not None:
            self._loop.call_soon(self._write)
        else:
            self._wake()

    def _waited(self) -> None:
        self._timer = None
        self._due = True
        if self._socket is not None:
            self._write()
        else:
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def use(self, socket: Socket) -> None:
        """Write over a socket from now on."""
        self._socket = socket

    async def write_to(self, write: Callable[[bytes], Awaitable[Any]]) -> None:
        """Write to gRPC's stream, in one place since a stream takes one message at a time, until this is cancelled."""
        while True:
            while not self._due:
                self._waiting = self._loop.create_future()
                await self._waiting
            for data in self._take():
                await write(data)

    def _write(self) -> None:
        assert self._socket is not None
        for data in self._take():
            self._socket.write(data)

    def _take(self) -> list[bytes]:
        result, self._full, self._due = [*self._full, self._taken()], [], False
        self._not_before = self._loop.time() + self._gather_s
        return result

    def _taken(self) -> bytes:
        batch, self.batch, self._size = self.batch, self._kind(), 0
        return batch.SerializeToString()


class Socket(asyncio.Protocol):
    """A connection within a host: each message after its size.

    Args:
        received: Takes each message.
        lost: Called when the connection is over.
        most: How long a message may be, in bytes.
    """

    def __init__(self, received: Callable[[bytes], None], lost: Callable[[], object], most: int = _FRAME_BYTES) -> None:
        self.received = received
        self.lost = lost
        self._most = most
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        """The beginning of a message."""

    def trust(self) -> None:
        """Take messages of any size that a session has."""
        self._most = _FRAME_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that it is over."""
        self.lost()

    def write(self, data: bytes) -> None:
        """Send a message."""
        assert self._transport is not None
        if self._transport.is_closing():
            return  # its end is told
        self._transport.write(_SIZE.pack(len(data)) + data)

    def close(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand on the messages that are whole."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= _SIZE.size:
            (size,) = _SIZE.unpack_from(data, at)
            if size > self._most:
                self.close()
                return
            after = at + _SIZE.size + size
            if after > end:
                break
            self.received(data[at + _SIZE.size : after])
            at = after
        self._rest = data[at:]
