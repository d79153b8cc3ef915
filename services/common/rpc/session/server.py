"""The serving side of sessions: their calls go to the handlers that gRPC's own go to."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

import grpc

from moa.session.v1 import session_service_pb2
from services.common.cancelling import CLEANING_S, cancel_and_wait
from services.common.rpc import call as calls
from services.common.rpc.handling import Handling
from services.common.rpc.interceptor import Interceptor
from services.common.rpc.reading import AHEAD_BYTES, MAX_MESSAGE_BYTES
from services.common.rpc.session.writer import Socket, Writer

SERVICE: Final = session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name
TICKET_BYTES: Final = 16
_PIECE_BYTES: Final = AHEAD_BYTES
_STRANGER_S: Final = 10.0
"""How long a connection may say nothing."""

C = grpc.StatusCode
Request = session_service_pb2.CarryRequest
Response = session_service_pb2.CarryResponse


class SessionServer:
    """Serves sessions beside the calls of a gRPC server.

    Args:
        interceptor: Says who may call, and is around each handler.
    """

    def __init__(self, interceptor: Interceptor) -> None:
        self._interceptor = interceptor
        self.handling = Handling(interceptor)
        """What answers calls."""
        self._process = os.urandom(16)
        self._sessions: set[_Session] = set()
        self._tickets: dict[bytes, _Session] = {}
        self._name = ""
        self._listening: asyncio.Server | None = None

    @property
    def streams(self) -> int:
        """Return how many streams are open."""
        return len(self._sessions)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what serves the stream. It is around no call of its own: each that it carries has the interceptor."""
        carry: Any = grpc.stream_stream_rpc_method_handler(self._carry)
        return grpc.method_handlers_generic_handler(SERVICE, {"Carry": carry})

    async def start(self) -> None:
        """Listen within the host, where it has sockets without a file."""
        if sys.platform != "linux":
            return
        self._name = f"moa-session-{os.urandom(16).hex()}"
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(f"\0{self._name}")
        listening.setblocking(False)
        self._listening = await asyncio.get_running_loop().create_unix_server(self._connected, sock=listening)

    def leave(self) -> None:
        """Begin no more calls: callers are told to make them elsewhere."""
        self.handling.is_stopped = True
        for session in self._sessions:
            session.leave()

    async def aclose(self) -> None:
        """Listen no longer, after the server has stopped."""
        if self._listening is not None:
            self._listening.close()
            await self._listening.wait_closed()

    async def _carry(self, _: Any, context: Any) -> None:
        if why := self._interceptor.refusal(context, dict(context.invocation_metadata() or ())):
            await context.abort(C.UNAUTHENTICATED, why)
        if self.handling.is_stopped:
            await context.abort(C.UNAVAILABLE, "this process is stopping")
        carrying = asyncio.current_task()
        assert carrying is not None
        session = _Session(self.handling, context.auth_context(), carrying)
        ticket = os.urandom(TICKET_BYTES)
        hello = session.writer.batch.hello
        hello.process, hello.socket, hello.ticket = self._process, self._name, ticket
        session.writer.added()
        self._sessions.add(session)
        self._tickets[ticket] = session
        writing = asyncio.create_task(session.writer.write_to(context.write))
        try:
            while (data := await context.read()) is not grpc.aio.EOF:
                session.received(data)
        except asyncio.CancelledError:
            if not session.is_lost:
                raise
            # It ends here: gRPC says nothing of a handler that was cancelled, and its caller would wait for its end.
            carrying.uncancel()
        finally:
            self._tickets.pop(ticket, None)
            self._sessions.discard(session)
            await session.aclose()
            await cancel_and_wait(writing)

    def _connected(self) -> Socket:
        """Return what waits for a ticket."""

        def claim(ticket: bytes) -> None:
            waiting.cancel()
            session = self._tickets.pop(ticket, None)
            if session is None:
                made.close()
            else:
                session.connect(made)

        made = Socket(claim, lambda: None, most=TICKET_BYTES)
        waiting = asyncio.get_running_loop().call_later(_STRANGER_S, made.close)
        return made


class _Session:
    """The calls of one stream.

    Args:
        handling: What answers calls.
        caller: What TLS knows of who makes them.
        carrying: The task that ends with it.
    """

    def __init__(self, handling: Handling, caller: Mapping[str, Any], carrying: asyncio.Task[Any]) -> None:
        self.writer = Writer(Response)
        self._handling = handling
        self._caller = caller
        self._carrying = carrying
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, _Call] = {}
        self._socket: Socket | None = None
        self.is_lost = False
        """Whether the socket's end is why it is to end."""

    def connect(self, made: Socket) -> None:
        """Go on over a socket: its end is this one's."""
        self._socket = made
        made.received, made.lost = self.received, self._lose
        made.trust()
        self.writer.use(made)

    def _lose(self) -> None:
        self.is_lost = True
        self._carrying.cancel()

    def leave(self) -> None:
        """Tell the caller that no more calls are begun."""
        self.writer.batch.leaving = True
        self.writer.added()

    def received(self, data: bytes) -> None:
        """Do what the caller said."""
        batch = Request.FromString(data)
        for opened in batch.opens:
            self._open(opened)
        for number in batch.cancels:
            if (left := self._calls.pop(number, None)) is not None:
                left.leave()
        for credit in batch.credits:
            if (read := self._calls.get(credit.call)) is not None:
                read.read_bytes(credit.size_bytes)

    def _open(self, opened: session_service_pb2.Open) -> None:
        if self._handling.is_stopped:
            self.writer.batch.refused.append(opened.call)
            self.writer.added()
            return
        words = iter(opened.metadata)
        call = self._calls[opened.call] = _Call(opened, self.writer, self._calls, self._loop)
        call.task = self._handling.serve(call, opened.request, tuple(zip(words, words, strict=True)), self._caller)

    async def aclose(self) -> None:
        """End its calls; return when their handlers have ended."""
        if self._socket is not None:
            self._socket.lost = lambda: None
            self._socket.close()
        running = list(self._calls.values())
        self._calls.clear()
        for call in running:
            call.leave()
        handlers = [call.task for call in running]
        await cancel_and_wait(*handlers, again_s=CLEANING_S)


class _Call:
    """A call as its handler's side has it."""

    __slots__ = ("_ahead", "_calls", "_deadline", "_ended", "_has_begun", "_loop", "_number", "_room", "_timer",
                 "_writer", "path", "task")  # fmt: skip

    def __init__(
        self,
        opened: session_service_pb2.Open,
        writer: Writer[Response],
        running: dict[int, _Call],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.path = opened.method
        self.task: asyncio.Task[None] | None = None
        self._number = opened.call
        self._writer = writer
        self._calls = running
        self._loop = loop
        self._ahead = 0
        """Bytes that the reader has not said to have read."""
        self._room: asyncio.Future[None] | None = None
        """Of a writer that waits for its reader."""
        self._ended = False
        self._has_begun = False
        """Whether a first answer was handed over: whoever asked waits for that above all."""
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        if opened.timeout_ms:
            self._deadline = loop.time() + opened.timeout_ms / 1000
            self._timer = loop.call_at(self._deadline, self._expire)

    async def put(self, data: bytes) -> None:
        """Hand an answer to the reader; return when there is room for the next."""
        if len(data) > MAX_MESSAGE_BYTES:
            self._stop(C.RESOURCE_EXHAUSTED)
        for piece, more in ((data, False),) if len(data) <= _PIECE_BYTES else _pieces_of(data):
            if self._ended:
                return
            frame = self._writer.batch.frames.add()
            frame.call = self._number
            frame.piece = piece
            if more:
                frame.more = True
            self._writer.added(len(piece), among=len(self._calls) if self._has_begun else 0)
            self._has_begun = True
            self._ahead += len(piece)
            while self._ahead > AHEAD_BYTES and not self._ended:
                self._room = self._loop.create_future()
                await self._room

    def end(self, code: grpc.StatusCode, details: str = "", trailers: calls.Metadata = ()) -> None:
        """Say how it ended. Whatever comes later says nothing."""
        if self._ended:
            return
        self._over()
        del self._calls[self._number]
        frame = self._writer.batch.frames.add()
        frame.call = self._number
        frame.code = code.value[0]
        if details:
            frame.details = details
        for key, value in trailers:
            trailer = frame.trailers.add()
            trailer.key = key
            if isinstance(value, bytes):
                trailer.binary = value
            else:
                trailer.text = value
        self._writer.added()

    def left_s(self) -> float | None:
        """Return how long it may go on; None: without a bound."""
        return None if self._deadline is None else max(0.0, self._deadline - self._loop.time())

    def read_bytes(self, size: int) -> None:
        """Note that its reader has read so much."""
        self._ahead -= size
        self._wake()

    def leave(self) -> None:
        """End its handler, whose caller has left."""
        self._over()
        if self.task is not None:
            self.task.cancel()

    def _expire(self) -> None:
        self._stop(C.DEADLINE_EXCEEDED)

    def _stop(self, code: grpc.StatusCode) -> None:
        self.end(code)
        if self.task is not None:
            self.task.cancel()

    def _over(self) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._wake()

    def _wake(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)


def _pieces_of(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """Return a message's pieces, between which come those of other calls, and whether another follows."""
    for at in range(0, len(data), _PIECE_BYTES):
        yield data[at : at + _PIECE_BYTES], at + _PIECE_BYTES < len(data)
