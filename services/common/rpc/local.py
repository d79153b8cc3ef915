"""A server and the channel to it in one process: its handlers behind the interceptor, and no socket between.

Requests and answers pass as bytes, so that neither side holds the other's messages, and both meet what they meet over
gRPC: credentials, metadata, the largest message, deadlines, statuses with their details, writers that wait for readers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable
from types import SimpleNamespace
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from services.common.cancelling import CLEANING_S, cancel_and_wait
from services.common.credential import Credential
from services.common.rpc.call import Metadata
from services.common.rpc.interceptor import Interceptor
from services.common.rpc.server import MAX_MESSAGE_BYTES

AHEAD_BYTES: Final = 64 * 1024
"""How far a writer may be ahead of its reader, as within gRPC's window."""

C = grpc.StatusCode


class LocalServer:
    """Serves in this process what a `Server` serves at an address.

    Args:
        service_token, keeps: As `Server`'s.
    """

    def __init__(self, *, service_token: Credential, keeps: Collection[type[Message]] = ()) -> None:
        self._interceptor = Interceptor(service_token=service_token, keeps=keeps)
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._running: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self.grpc: Any = self
        """What generated code adds servicers to."""
        self.channel = LocalChannel(self)
        """What callers take for a channel."""

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Serve their methods, too."""
        self._handlers.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Do nothing: generated code names the same methods again, for gRPC to find them faster."""

    def offer(self, *service_names: str) -> None:
        """Do nothing: reflection and health are asked of the process that this is part of."""

    async def start(self, address: str) -> int:
        """Return 0, for it listens nowhere; it serves from the beginning."""
        return 0

    async def stop(self, drain_s: float) -> None:
        """Refuse new calls, let running ones go on for `drain_s`, then end."""
        self._stopped.set()
        if self._running:
            await asyncio.wait(self._running, timeout=drain_s)
        await cancel_and_wait(*self._running, again_s=CLEANING_S)

    @property
    def is_stopped(self) -> bool:
        """Return whether it takes no more calls."""
        return self._stopped.is_set()

    async def stopped(self) -> None:
        """Return when it takes no more calls."""
        await self._stopped.wait()

    def serve(self, call: LocalCall, request: bytes, metadata: Metadata) -> asyncio.Task[None]:
        """Begin to answer a call, in a task of its own."""
        task = asyncio.get_running_loop().create_task(self._serve(call, LocalContext(call, request, metadata)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _serve(self, call: LocalCall, context: LocalContext) -> None:
        code = C.UNKNOWN
        try:
            details = SimpleNamespace(method=call.path, invocation_metadata=context.invocation_metadata())
            handler = await self._interceptor.intercept_service(self._find, details)
            if handler is None:
                code = C.UNIMPLEMENTED
                return
            context.serialize = handler.response_serializer
            if handler.stream_unary:
                await context.write(await handler.stream_unary(None, context))
            else:
                await handler.stream_stream(None, context)
            code = C.OK
        except grpc.aio.AbortError:
            pass  # it has said how the call ended
        except asyncio.CancelledError:
            code = C.UNAVAILABLE if self.is_stopped else C.CANCELLED
            raise
        finally:
            call.end(code)

    async def _find(self, details: Any) -> Any:
        return next((found for each in self._handlers if (found := each.service(details)) is not None), None)


class LocalChannel:
    """What callers need of a channel: it makes calls, and says whether its server is there."""

    def __init__(self, server: LocalServer) -> None:
        self._server = server

    def unary_unary(
        self, path: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> Callable[..., LocalCall]:
        """Return what makes calls of a method."""

        def begin(request: Any, *, metadata: Metadata = (), timeout: float | None = None) -> LocalCall:
            call = LocalCall(path, response_deserializer, timeout)
            call.begin(self._server, request_serializer(request), tuple(metadata))
            return call

        return begin

    unary_stream = unary_unary
    """A call is awaited or read."""

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return READY as long as the server takes calls."""
        return grpc.ChannelConnectivity.SHUTDOWN if self._server.is_stopped else grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last: grpc.ChannelConnectivity) -> None:
        """Return when the state is another."""
        if last is self.get_state():
            await self._server.stopped()

    async def close(self, grace: float | None = None) -> None:
        """Do nothing: the server is stopped by who runs it."""


class LocalCall:
    """A call as its caller sees it: what grpc.aio's is, as far as it is asked here."""

    __slots__ = ("_answers", "_callbacks", "_deadline", "_deserialize", "_end", "_left", "_loop", "_size", "_task",
                 "_timer", "_waiting", "path")  # fmt: skip

    def __init__(self, path: str, deserialize: Callable[[bytes], Any], timeout: float | None) -> None:
        self.path = path
        self._deserialize = deserialize
        self._loop = asyncio.get_running_loop()
        self._deadline = None if timeout is None else self._loop.time() + timeout
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._answers: deque[bytes] = deque()
        self._size = 0
        """Bytes of answers that nobody has read."""
        self._waiting: asyncio.Future[None] | None = None
        """Of whoever waits, the reader or the writer: never both do."""
        self._end: tuple[grpc.StatusCode, str, Metadata] | None = None
        """Its status, what it says, and its trailers; None: it goes on."""
        self._left = False
        """Whether its caller ended it."""
        self._callbacks: list[Callable[[LocalCall], object]] = []

    def begin(self, server: LocalServer, request: bytes, metadata: Metadata) -> None:
        """Have it answered."""
        if server.is_stopped:
            self.end(C.UNAVAILABLE)
        elif len(request) > MAX_MESSAGE_BYTES:
            self.end(C.RESOURCE_EXHAUSTED)
        else:
            self._task = server.serve(self, request, metadata)
            if self._deadline is not None:
                self._timer = self._loop.call_at(self._deadline, self._stop, C.DEADLINE_EXCEEDED)

    async def read(self) -> Any:
        """Return the next message, EOF after the last. Raises AioRpcError; CancelledError where it was cancelled."""
        while not self._answers:
            if self._left:
                raise asyncio.CancelledError
            if self._end is not None:
                code, details, trailers = self._end
                if code is C.OK:
                    return grpc.aio.EOF
                raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details)
            try:
                await self._wait()
            except asyncio.CancelledError:
                self.cancel()
                raise
        data = self._answers.popleft()
        full, self._size = self._size > AHEAD_BYTES, self._size - len(data)
        if full:
            self._wake()
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

    def add_done_callback(self, callback: Callable[[LocalCall], object]) -> None:
        """Call `callback` when it has ended."""
        if self._end is not None:
            callback(self)
        else:
            self._callbacks.append(callback)

    # Its handler's side.

    async def put(self, data: bytes) -> None:
        """Hand an answer to the reader; return when there is room for the next."""
        if len(data) > MAX_MESSAGE_BYTES:
            self._stop(C.RESOURCE_EXHAUSTED)
        if self._end is not None:
            return
        self._answers.append(data)
        self._size += len(data)
        self._wake()
        while self._size > AHEAD_BYTES and self._end is None:
            await self._wait()

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

    def _stop(self, code: grpc.StatusCode) -> None:
        """End it, and its handler."""
        self._answers.clear()
        self.end(code)
        if self._task is not None:
            self._task.cancel()

    async def _wait(self) -> None:
        self._waiting = self._loop.create_future()
        await self._waiting

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


class LocalContext:
    """A call as its handler sees it: what an RPC's context is, as far as it is asked here."""

    __slots__ = ("_call", "_metadata", "_request", "serialize")

    def __init__(self, call: LocalCall, request: bytes, metadata: Metadata) -> None:
        self._call = call
        self._metadata = metadata
        self._request: bytes | None = request
        self.serialize: Callable[[Any], bytes] | None = None
        """Makes an answer's bytes; None: it is bytes."""

    def invocation_metadata(self) -> Metadata:
        """Return what the caller sent beside the request."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Return how long it may go on; None: without a bound."""
        return self._call.left_s()

    async def read(self) -> Any:
        """Return the request, then EOF."""
        data, self._request = self._request, None
        return grpc.aio.EOF if data is None else data

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Do nothing: nobody keeps a request until they come."""

    async def write(self, message: Any) -> None:
        """Hand an answer to the caller."""
        await self._call.put(self.serialize(message) if self.serialize else message)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> None:
        """End the call with a status. Raises AbortError."""
        self._call.end(code, details, trailing_metadata)
        raise grpc.aio.AbortError
