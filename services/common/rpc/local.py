"""A server and the channel to it in one process: its handlers behind the interceptor, and no socket between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from services.common.credential import Credential
from services.common.rpc.call import Metadata
from services.common.rpc.handling import Handling
from services.common.rpc.interceptor import Interceptor
from services.common.rpc.reading import AHEAD_BYTES, MAX_MESSAGE_BYTES, ReadCall

C = grpc.StatusCode


class LocalServer:
    """Serves in this process what a `Server` serves at an address.

    Args:
        service_token: As `Server`'s.
    """

    def __init__(self, *, service_token: Credential) -> None:
        self.handling = Handling(Interceptor(service_token=service_token))
        """What answers its calls."""
        self._stopped = asyncio.Event()
        self.grpc: Any = self
        """What generated code adds servicers to."""
        self.channel = LocalChannel(self)
        """What callers take for a channel."""

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Serve their methods, too."""
        self.handling.add(handlers)

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
        await self.handling.stop(drain_s)

    @property
    def is_stopped(self) -> bool:
        """Return whether it takes no more calls."""
        return self._stopped.is_set()

    async def stopped(self) -> None:
        """Return when it takes no more calls."""
        await self._stopped.wait()


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


class LocalCall(ReadCall):
    """A call, both its reader's side and its handler's."""

    __slots__ = ("_size", "_task")

    def __init__(self, path: str, deserialize: Callable[[bytes], Any], timeout: float | None) -> None:
        super().__init__(path, deserialize, timeout)
        self._task: asyncio.Task[None] | None = None
        self._size = 0
        """Bytes of answers of which the writer does not know that they were read."""

    def begin(self, server: LocalServer, request: bytes, metadata: Metadata) -> None:
        """Have it answered."""
        if server.is_stopped:
            self.end(C.UNAVAILABLE)
        elif len(request) > MAX_MESSAGE_BYTES:
            self.end(C.RESOURCE_EXHAUSTED)
        else:
            self._task = server.handling.serve(self, request, metadata)
            self._expire()

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

    def _tell_read(self) -> None:
        full = self._size > AHEAD_BYTES
        self._size, self._untold = self._size - self._untold, 0
        if full:
            # Never do both wait: who has read is no longer waiting.
            self._wake()

    def _tell_left(self) -> None:
        if self._task is not None:
            self._task.cancel()
