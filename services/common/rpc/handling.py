"""Calls that come another way than as gRPC calls of their own, given to the same handlers behind the same interceptor.

Requests and answers pass as bytes; handlers meet what they meet over gRPC: credentials, metadata, deadlines, statuses
with their details, writers that wait for readers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, Protocol

import grpc

from services.common.cancelling import CLEANING_S, cancel_and_wait
from services.common.rpc.call import Metadata
from services.common.rpc.interceptor import Interceptor

C = grpc.StatusCode


class HandledCall(Protocol):
    """A call as its handler's side has it."""

    path: str
    """The full method."""

    async def put(self, data: bytes) -> None:
        """Hand an answer to the reader; return when there is room for the next."""

    def end(self, code: grpc.StatusCode, details: str = "", trailers: Metadata = ()) -> None:
        """Say how it ended. Whatever comes later says nothing."""

    def left_s(self) -> float | None:
        """Return how long it may go on; None: without a bound."""


class Handling:
    """Has calls answered, each in a task of its own.

    Args:
        interceptor: What is around each handler.
    """

    def __init__(self, interceptor: Interceptor) -> None:
        self._interceptor = interceptor
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._running: set[asyncio.Task[None]] = set()
        self.is_stopped = False
        """Whether it takes no more calls."""

    def add(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Serve their methods, too."""
        self._handlers.extend(handlers)

    def serve(
        self, call: HandledCall, request: bytes, metadata: Metadata, caller: Mapping[str, Any] | None = None
    ) -> asyncio.Task[None]:
        """Begin to answer a call; `caller` is what TLS knows of who made it."""
        context = HandledContext(call, request, metadata, caller or {})
        task = asyncio.get_running_loop().create_task(self._serve(call, context))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def stop(self, drain_s: float) -> None:
        """Let running calls go on for `drain_s`, then end them."""
        self.is_stopped = True
        if self._running:
            await asyncio.wait(self._running, timeout=drain_s)
        await cancel_and_wait(*self._running, again_s=CLEANING_S)

    async def _serve(self, call: HandledCall, context: HandledContext) -> None:
        code = C.UNKNOWN
        try:
            details: Any = SimpleNamespace(method=call.path, invocation_metadata=context.invocation_metadata())
            handler = await self._interceptor.intercept_service(self._find, details)
            # The interceptor makes handlers receive their requests themselves, but for health's.
            if handler is None or not (handler.stream_unary or handler.stream_stream):
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


class HandledContext:
    """A call as its handler sees it: what an RPC's context is, as far as it is asked here."""

    __slots__ = ("_call", "_caller", "_metadata", "_request", "serialize")

    def __init__(self, call: HandledCall, request: bytes, metadata: Metadata, caller: Mapping[str, Any]) -> None:
        self._call = call
        self._caller = caller
        self._metadata = metadata
        self._request: bytes | None = request
        self.serialize: Callable[[Any], bytes] | None = None
        """Makes an answer's bytes; None: it is bytes."""

    def invocation_metadata(self) -> Metadata:
        """Return what the caller sent beside the request."""
        return self._metadata

    def auth_context(self) -> Mapping[str, Any]:
        """Return what TLS knows of the caller."""
        return self._caller

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
