"""A call as its caller sees it where it is no gRPC call of its own: what grpc.aio's is, as far as it is asked here."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Final

import grpc

from services.common.rpc.call import Metadata

MAX_MESSAGE_BYTES: Final = 72 * 1024 * 1024
"""Largest message between processes: a 64 MiB upload and its envelope."""
AHEAD_BYTES: Final = 64 * 1024
"""How far a writer may be ahead of its reader, as within gRPC's window."""
_TOLD_BYTES: Final = AHEAD_BYTES // 2
"""A writer is told what was read once it is so much."""

C = grpc.StatusCode


class ReadCall(ABC):
    """The reader's side of a call: it is read, or, where it has one answer, awaited.

    Args:
        path: The full method.
        deserialize: Makes an answer of its bytes.
        timeout: How long it may take, in seconds; None: without a bound.
    """

    __slots__ = ("_answers", "_callbacks", "_deadline", "_deserialize", "_end", "_left", "_loop", "_timer", "_untold",
                 "_waiting", "path")  # fmt: skip

    def __init__(self, path: str, deserialize: Callable[[bytes], Any], timeout: float | None) -> None:
        self.path = path
        self._deserialize = deserialize
        self._loop = asyncio.get_running_loop()
        self._deadline = None if timeout is None else self._loop.time() + timeout
        self._timer: asyncio.TimerHandle | None = None
        self._answers: deque[bytes] = deque()
        self._untold = 0
        """Bytes that were read, of which the writer does not know."""
        self._waiting: asyncio.Future[None] | None = None
        """Of whoever waits in this process."""
        self._end: tuple[grpc.StatusCode, str, Metadata] | None = None
        """Its status, what it says, and its trailers; None: it goes on."""
        self._left = False
        """Whether its caller ended it."""
        self._callbacks: list[Callable[[Any], object]] = []

    async def read(self) -> Any:
        """Return the next message, EOF after the last. Raises AioRpcError; CancelledError where it was cancelled."""
        while not self._answers:
            if self._left:
                raise asyncio.CancelledError
            if self._end is not None:
                return await self._read_end()
            try:
                await self._wait()
            except asyncio.CancelledError:
                self.cancel()
                raise
        data = self._answers.popleft()
        self._untold += len(data)
        if self._untold >= _TOLD_BYTES:
            self._tell_read()
        return self._deserialize(data)

    def __await__(self) -> Generator[Any, None, Any]:
        return self.read().__await__()

    def cancel(self) -> bool:
        """End it; return whether it had not ended."""
        if self._end is not None:
            return False
        self._left = True
        self._stop(C.CANCELLED)
        return True

    def done(self) -> bool:
        """Return whether it has ended."""
        return self._end is not None

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call `callback` when it has ended."""
        if self._end is not None:
            callback(self)
        else:
            self._callbacks.append(callback)

    def end(self, code: grpc.StatusCode, details: str = "", trailers: Metadata = ()) -> None:
        """Say how it ended. Whatever comes later says nothing."""
        if self._end is not None:
            return
        self._end = code, details, trailers
        if self._timer is not None:
            self._timer.cancel()
        self._wake()
        for callback in self._callbacks:
            callback(self)
        self._callbacks.clear()

    def left_s(self) -> float | None:
        """Return how long it may go on; None: without a bound."""
        return None if self._deadline is None else max(0.0, self._deadline - self._loop.time())

    @abstractmethod
    def _tell_read(self) -> None:
        """Tell the writer how many bytes were read: `_untold`, which is none afterwards."""

    @abstractmethod
    def _tell_left(self) -> None:
        """Have the handler end: nobody reads any more."""

    async def _read_end(self) -> Any:
        """Return EOF, or raise what it ended with."""
        assert self._end is not None
        code, details, trailers = self._end
        if code is C.OK:
            return grpc.aio.EOF
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details)

    def _expire(self) -> None:
        """End it when its time is over."""
        if self._deadline is not None:
            self._timer = self._loop.call_at(self._deadline, self._stop, C.DEADLINE_EXCEEDED)

    def _stop(self, code: grpc.StatusCode) -> None:
        """End it, and its handler."""
        self._answers.clear()
        self.end(code)
        self._tell_left()

    async def _wait(self) -> None:
        self._waiting = self._loop.create_future()
        await self._waiting

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
