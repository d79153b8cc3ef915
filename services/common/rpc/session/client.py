"""The calling side of a session: its calls, as their callers see them."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable
from typing import Any, cast

import grpc

from moa.session.v1 import session_service_pb2
from services.common.rpc.call import Metadata
from services.common.rpc.reading import ReadCall
from services.common.rpc.session.writer import Socket, Writer
from services.common.rpc.status import CODE_BY_NUMBER

C = grpc.StatusCode
Request = session_service_pb2.CarryRequest
Response = session_service_pb2.CarryResponse


class Session:
    """The calls of one stream to one process.

    Args:
        process: What tells it from others.
    """

    def __init__(self, process: bytes) -> None:
        self.process = process
        self.writer = Writer(Request)
        self.socket: Socket | None = None
        """What carries it within a host; None: gRPC's stream does."""
        self.retired: Callable[[], None] = lambda: None
        """Called when it takes no more calls."""
        self.over = asyncio.Event()
        """Set when its stream is to end."""
        self._loop = asyncio.get_running_loop()
        self.since = self._loop.time()
        self._calls: dict[int, SessionCall] = {}
        self._count = 0
        self._is_retired = False

    async def connect(self, hello: session_service_pb2.Hello) -> None:
        """Use the socket that a process offers to those within its host, where this one is."""
        if not hello.socket:
            return
        within = socket.socket(socket.AF_UNIX)
        try:
            within.setblocking(False)
            within.connect(f"\0{hello.socket}")
            _, made = await self._loop.create_unix_connection(lambda: Socket(self.received, self.over.set), sock=within)
        except OSError:
            within.close()
            return
        made.write(hello.ticket)
        self.socket = made
        self.writer.use(made)

    def begin(self, call: SessionCall, request: bytes, metadata: Metadata, timeout_s: float | None) -> int:
        """Have a call answered; return its number."""
        self._count += 1
        self._calls[self._count] = call
        opened = self.writer.batch.opens.add()
        opened.call = self._count
        opened.method = call.path
        opened.metadata.extend(cast(list[str], [word for pair in metadata for word in pair]))
        opened.request = request
        if timeout_s is not None:
            opened.timeout_ms = max(1, math.ceil(timeout_s * 1000))
        self.writer.added(len(request))
        return self._count

    def leave(self, number: int) -> None:
        """Have a call end that its caller left."""
        if self._calls.pop(number, None) is not None:
            self.writer.batch.cancels.append(number)
            self.writer.added()
            self._end_if_idle()

    def tell_read(self, number: int, size: int) -> None:
        """Tell how much of a call's answer was read since this was told last."""
        if number in self._calls:
            credit = self.writer.batch.credits.add()
            credit.call = number
            credit.size_bytes = size
            self.writer.added()

    def received(self, data: bytes) -> None:
        """Do what the process said."""
        batch = Response.FromString(data)
        calls = self._calls
        for frame in batch.frames:
            call = calls.get(frame.call)
            if call is None:
                continue  # its caller has left
            if frame.HasField("piece"):
                call.arrived(frame.piece, frame.more)
            if frame.HasField("code"):
                del calls[frame.call]
                trailers = tuple((each.key, each.binary or each.text) for each in frame.trailers)
                call.end(CODE_BY_NUMBER[frame.code], frame.details, trailers)
        for number in batch.refused:
            if (refused := calls.pop(number, None)) is not None:
                refused.ask_elsewhere()
        if batch.leaving:
            self.retire()
        elif self._is_retired:
            self._end_if_idle()

    def retire(self) -> None:
        """Take no more calls, and end with the last that runs."""
        self._is_retired = True
        self.retired()
        self._end_if_idle()

    def lose(self) -> None:
        """Tell all callers that their process is away."""
        running, self._calls = list(self._calls.values()), {}
        for call in running:
            call.end(C.UNAVAILABLE)
        if self.socket is not None:
            self.socket.lost = lambda: None
            self.socket.close()

    def _end_if_idle(self) -> None:
        if self._is_retired and not self._calls:
            # After what was said last.
            self._loop.call_soon(self.over.set)


class SessionCall(ReadCall):
    """A call that a session carries."""

    __slots__ = ("_again", "_instead", "_number", "_parts", "_session")

    def begin(self, session: Session, plain: Callable[..., Any], request: bytes, metadata: Metadata) -> None:
        """Have it answered; `plain` asks where the process that has the session begins nothing any more."""
        self._session = session
        self._again: tuple[Callable[..., Any], bytes, Metadata] | None = (plain, request, metadata)
        """Until it is known that it has begun."""
        self._instead: Any = None
        """The call that was made elsewhere."""
        self._parts: list[bytes] = []
        """The beginning of a message."""
        self._number = session.begin(self, request, metadata, self.left_s())
        self._expire()

    def arrived(self, piece: bytes, more: bool) -> None:
        """Take a piece of a message."""
        self._again = None
        if more:
            self._parts.append(piece)
            # There is room for the next: nobody reads half a message.
            self._session.tell_read(self._number, len(piece))
            self._untold -= len(piece)
            return
        if self._parts:
            parts, self._parts = self._parts, []
            piece = b"".join((*parts, piece))
        self._answers.append(piece)
        self._wake()

    def ask_elsewhere(self) -> None:
        """Make it in the plain way: it was not begun."""
        assert self._again is not None
        plain, request, metadata = self._again
        self._again = None
        self._instead = plain(request, metadata=metadata, timeout=self.left_s())
        callbacks, self._callbacks = self._callbacks, []
        self.end(C.UNAVAILABLE)
        for callback in callbacks:
            self.add_done_callback(callback)

    def cancel(self) -> bool:
        """End it; return whether it had not ended."""
        return super().cancel() if self._instead is None else bool(self._instead.cancel())

    def done(self) -> bool:
        """Return whether it has ended."""
        return super().done() if self._instead is None else bool(self._instead.done())

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call `callback` when it has ended."""
        if self._instead is None:
            super().add_done_callback(callback)
        else:
            self._instead.add_done_callback(lambda _: callback(self))

    async def _read_end(self) -> Any:
        if self._instead is None:
            return await super()._read_end()
        return await (self._instead if hasattr(self._instead, "__await__") else self._instead.read())

    def _tell_read(self) -> None:
        size, self._untold = self._untold, 0
        self._session.tell_read(self._number, size)

    def _tell_left(self) -> None:
        self._again = None
        self._session.leave(self._number)
