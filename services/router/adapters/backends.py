"""Calls to the services that really answer: text, image and inference, all by the operations' contracts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from moa.text.v1 import text_service_pb2, text_service_pb2_grpc
from services.catalogue import Catalogue, Model, Provider, Timeouts
from services.common import byok, tracing
from services.common.credential import Credential
from services.common.errors import DeadlineExceeded, MoaError, Unavailable, UpstreamTimeout
from services.common.rpc import call as calls
from services.common.rpc.client import ConnectionWatch, metadata
from services.common.rpc.replicas import Replicas
from services.common.rpc.status import error_from_rpc
from services.quota_client import TaskReservation
from services.router.adapters.returning import ReconnectingStream
from services.router.adapters.traced import Traced, call_span
from services.router.domain.caller import Caller
from services.router.domain.failures import Restarting, Stopping
from services.router.domain.operation import Method, Operation, R
from services.router.domain.ports import M, MessageStream, Payer, Reservation

GRACE_S = 5.0
"""How much longer than the service the router waits, so that the service's own, better-worded timeout comes first."""


def _serialized(request: Any) -> bytes:
    """Return a request's bytes, as gRPC wants them while it sends."""
    data: bytes = request if type(request) is bytes else request.SerializeToString()
    return data


class Backends:
    """Stubs of the services, by name.

    Args:
        channels: A channel for each of `text`, `inference`, and `image` that this gateway has.
        service_token: The credential between services.
        catalogue: Gives the catalogue as it is now.
        replicas: Which process of a service is asked, where it has several that differ in what they have in memory.
    """

    def __init__(
        self,
        channels: dict[str, grpc.aio.Channel],
        *,
        service_token: Credential,
        catalogue: Any,
        replicas: Mapping[str, Replicas] | None = None,
    ) -> None:
        self._channels = channels
        self._replicas = replicas or {}
        self._calls: dict[tuple[str, str, str], Any] = {}
        """What makes the calls of an operation's method at a service."""
        self._counts = {name: text_service_pb2_grpc.TextServiceStub(c) for name, c in channels.items()}
        self._connections = {name: ConnectionWatch(c) for name, c in channels.items()}
        self._token = service_token
        self._catalogue = catalogue
        self._running = Running()

    def ask(
        self,
        operation: Operation[R, M],
        request: R,
        model: Model,
        caller: Caller,
        reserved: Reservation,
        *,
        prompt_bound: int | None = None,
        books: bool = True,
    ) -> MessageStream[M]:
        """Begin an answer, as its operation is carried: a stream, or one message, which costs less.

        Of some operations a stream of one of the gateway's own models shows that it waits for its process.
        """
        provider = self._provider(model)
        service = provider.service
        carriage = operation.carriage(request, model, provider)

        def begin() -> MessageStream[M]:
            self._check_there(service)
            span = call_span(operation, request, model, provider.adapter) if tracing.is_on() else None
            sent = self._metadata(caller, reserved, span, prompt_bound=prompt_bound, books=books)
            if carriage.whole_s is None:
                assert operation.stream is not None
                call = self._call(service, operation, operation.stream, model)
                running = call(operation.stream.asked(request), metadata=sent)
                stream: MessageStream[M] = RpcStream(running, carriage.timeouts, self._running)
                return stream if span is None else Traced(stream, span, operation)
            method = operation.whole
            assert method is not None
            call = self._call(service, operation, method, model)
            running = call(method.asked(request), metadata=sent, timeout=carriage.whole_s + GRACE_S)
            stream = WholeStream(running, method.answered, self._running)
            return stream if span is None else Traced(stream, span, operation)

        try:
            return begin()
        except Restarting:
            # Where another model may answer, that one is asked instead.
            others = caller.has_others or (model.fallback and caller.fallback)
            if carriage.waiting is None or model.load is None or others:
                raise
            return ReconnectingStream(self._connections[service], begin, carriage.waiting)

    def _call(self, service: str, operation: Operation[Any, Any], method: Method | None, model: Model) -> Any:
        """Return what makes a call of an operation's method at a service."""
        assert method is not None
        replicas = self._replicas.get(service)
        replica = replicas.choose(model.full_id) if replicas is not None else None
        known = self._calls if replica is None else replica.calls
        key = service, operation.name, method.name
        result = known.get(key)
        if result is None:
            channel = self._channels[service] if replica is None else replica.channel
            make = channel.unary_stream if method is operation.stream else channel.unary_unary
            result = known[key] = make(
                f"/{operation.service}/{method.name}",
                request_serializer=_serialized,
                response_deserializer=method.response.FromString,
            )
        return result if replica is None else replica.counting(result)

    def _counting(self, service: str, model: Model) -> Any:
        """Return a stub that counts a model's tokens."""
        replicas = self._replicas.get(service)
        replica = replicas.choose(model.full_id) if replicas is not None else None
        if replica is None:
            return self._counts[service]
        if (stub := replica.calls.get("counts")) is None:
            stub = replica.calls["counts"] = text_service_pb2_grpc.TextServiceStub(replica.channel)
        return stub

    async def count_tokens(
        self, request: text_service_pb2.CountTokensRequest, model: Model, caller: Caller, payer: Payer
    ) -> int:
        """Count a prompt's tokens, in the turns of its account."""
        provider = self._provider(model)
        if (connections := self._connections.get(provider.service)) is not None:
            await connections.returned()
        try:
            self._check_served(provider.service)
            answer = await self._counting(provider.service, model).CountTokens(
                request,
                metadata=metadata(
                    self._token,
                    caller.request_id,
                    (calls.ACCOUNT_KEY, payer.account_id),
                    (calls.PRIORITY_KEY, payer.priority),
                    *_own_key(caller),
                ),
                timeout=provider.timeouts.first_token_s + GRACE_S,
            )
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None
        return int(answer.prompt_tokens)

    @property
    def running(self) -> int:
        """How many answers are under way."""
        return len(self._running)

    def end(self) -> None:
        """End the answers that are under way, and begin no more: each tells its caller that this router stops."""
        self._running.end()

    def watch(self) -> None:
        """Watch from now on whether the services are there."""
        for connections in self._connections.values():
            connections.watch()
        for replicas in self._replicas.values():
            replicas.watch()

    async def aclose(self) -> None:
        """Stop watching the services."""
        for connections in self._connections.values():
            await connections.aclose()
        for replicas in self._replicas.values():
            await replicas.aclose()

    def _provider(self, model: Model) -> Provider:
        catalogue: Catalogue = self._catalogue()
        return catalogue.provider(model.provider)

    def _check_there(self, service: str) -> None:
        """Raise Restarting where a service's process is not there and will be; as `_check_served`."""
        self._check_served(service)
        if self._connections[service].is_restarting:
            raise Restarting

    def _check_served(self, service: str) -> None:
        """Raise Unavailable for a service that this gateway does not run, Stopping where no answers begin any more."""
        if self._running.is_over:
            raise Stopping
        if service not in self._channels:
            raise Unavailable(f"this gateway runs without the {service} service")

    def _metadata(
        self,
        caller: Caller,
        reserved: Reservation,
        span: tracing.Span | None,
        *,
        prompt_bound: int | None,
        books: bool,
    ) -> tuple[tuple[str, str], ...]:
        return metadata(
            self._token,
            caller.request_id,
            (calls.ACCOUNT_KEY, reserved.account_id),
            (calls.RESERVATION_KEY, reserved.reservation_id if books else ""),
            (calls.LABELS_KEY, reserved.labels.header() if books else ""),
            (calls.PRIORITY_KEY, reserved.priority),
            *(((calls.PROMPT_KEY, str(prompt_bound)),) if prompt_bound is not None and books else ()),
            # Whoever holds the quota asks again under the same request id: a task does, after a crash.
            *(((calls.RESUME_KEY, caller.request_id),) if isinstance(reserved, TaskReservation) else ()),
            *(_own_key(caller) if caller.own_key else ()),
            span=span,
        )


def _own_key(caller: Caller) -> tuple[tuple[str, str], ...]:
    return ((byok.METADATA_KEY, caller.own_key),) if caller.own_key else ()


_ENDING: set[Any] = set()
"""Calls whose last event was read and whose status is on its way."""


class Running:
    """The sources whose answers are under way."""

    __slots__ = ("_streams", "is_over")

    def __init__(self) -> None:
        self._streams: set[RpcStream | WholeStream] = set()
        self.is_over = False
        """Whether no more answers begin."""

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: RpcStream | WholeStream) -> None:
        """Count one in, when it begins."""
        self._streams.add(stream)

    def discard(self, stream: RpcStream | WholeStream) -> None:
        """Count one out, when it is over."""
        self._streams.discard(stream)

    def end(self) -> None:
        """End them all, and let none begin."""
        self.is_over = True
        for stream in list(self._streams):
            stream.end(Stopping())


class RpcStream:
    """The messages of one streaming call, guarded against a service that falls silent.

    One timer a call is moved forward rather than made anew for every message. A message without events is a sign of
    life: whoever answers works, and has not begun to answer.
    """

    __slots__ = ("_call", "_idle_s", "_last", "_loop", "_running", "_timer", "_wait_s", "_why")

    def __init__(self, call: Any, timeouts: Timeouts, running: Running) -> None:
        self._call = call
        self._running = running
        running.add(self)
        self._loop = asyncio.get_running_loop()
        self._idle_s = timeouts.idle_s + GRACE_S
        self._wait_s = timeouts.connect_s + timeouts.first_token_s + GRACE_S
        self._last = self._loop.time()
        self._why: MoaError | None = None
        """Why this process ended the call."""
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(self._wait_s, self._check)

    def _check(self) -> None:
        left = self._last + self._wait_s - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
        else:
            self.end(UpstreamTimeout("the model stopped sending its answer"))

    def end(self, why: MoaError) -> None:
        """End the call; whoever reads it is told why."""
        self._why = why
        self._call.cancel()

    async def read(self) -> Any | None:
        """Return the next message, None after the last. Raises MoaError."""
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as failure:
            self._leave()
            raise error_from_rpc(failure) from None
        except asyncio.CancelledError:
            self._leave()
            if self._why is not None:
                raise self._why from None
            self._call.cancel()
            raise
        self._last = self._loop.time()
        if self._wait_s != self._idle_s and (message is grpc.aio.EOF or message.events):
            self._wait_s = self._idle_s
            self._set_timer(self._idle_s)
        if message is grpc.aio.EOF:
            self._leave()
            return None
        return message

    def cancel(self) -> None:
        """Stop the work behind it."""
        self._leave()
        self._call.cancel()

    def close(self) -> None:
        """Let go of an answer whose last event was read."""
        self._leave()
        # A call that is forgotten before its status arrived is cancelled, and its service would log a leaver.
        if not self._call.done():
            _ENDING.add(self._call)
            self._call.add_done_callback(_ENDING.discard)

    def _set_timer(self, within_s: float) -> None:
        """Let the timer fire by then: the one before, set by the first event's bound, may fire too late."""
        self._stop_timer()
        self._timer = self._loop.call_later(within_s, self._check)

    def _leave(self) -> None:
        self._running.discard(self)
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class WholeStream:
    """The one message of a unary call."""

    __slots__ = ("_answered", "_call", "_read", "_running", "_why")

    def __init__(self, call: Any, answered: Callable[[Any], Any], running: Running) -> None:
        self._call = call
        self._answered = answered
        self._read = False
        self._running = running
        self._why: MoaError | None = None
        running.add(self)

    def end(self, why: MoaError) -> None:
        """End the call; whoever reads it is told why."""
        self._why = why
        self._call.cancel()

    async def read(self) -> Any | None:
        """Return the message, then None. Raises MoaError."""
        if self._read:
            return None
        self._read = True
        try:
            whole = await self._call
        except grpc.aio.AioRpcError as failure:
            error = error_from_rpc(failure)
            if isinstance(error, DeadlineExceeded):
                raise UpstreamTimeout("the model did not answer in time") from None
            raise error from None
        except asyncio.CancelledError:
            if self._why is not None:
                raise self._why from None
            raise
        finally:
            self._running.discard(self)
        return self._answered(whole)

    def cancel(self) -> None:
        """Stop the work behind it."""
        self._running.discard(self)
        self._call.cancel()

    def close(self) -> None:
        """Let go of it; a unary call that was read is over."""
