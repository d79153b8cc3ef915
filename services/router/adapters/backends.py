"""Calls to the services that really answer: text, image and inference, all by the same two contracts."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import msgspec

from moa.image.v1 import image_service_pb2, image_service_pb2_grpc
from moa.text.v1 import text_service_pb2, text_service_pb2_grpc
from services.catalogue import Catalogue, Model, Provider, Timeouts
from services.catalogue.waiting import may_be_long, whole_s
from services.common import byok, tracing
from services.common.errors import DeadlineExceeded, MoaError, Unavailable, UpstreamTimeout
from services.common.helper_process import LARGE_BYTES
from services.common.rpc import call as calls
from services.common.rpc.client import metadata
from services.common.rpc.reach import Reach
from services.common.rpc.status import error_from_rpc
from services.quota_client import TaskReservation
from services.router.adapters.returning import Returning
from services.router.adapters.traced import image_span, text_span, traced
from services.router.domain.caller import Caller
from services.router.domain.failures import Restarting, Stopping
from services.router.domain.ports import Booking, Payer, Source

GRACE_S = 5.0
"""How much longer than the service the router waits, so that the service's own, better-worded timeout comes first."""


class Backends:
    """Stubs of the services, by name.

    Args:
        channels: A channel for each of `text`, `inference`, and `image` that this gateway has.
        service_token: The credential between services.
        catalogue: Gives the catalogue as it is now.
    """

    def __init__(self, channels: dict[str, grpc.aio.Channel], *, service_token: str, catalogue: Any) -> None:
        self._text = {name: text_service_pb2_grpc.TextServiceStub(c) for name, c in channels.items()}
        self._image = {name: image_service_pb2_grpc.ImageServiceStub(c) for name, c in channels.items()}
        self._reach = {name: Reach(c) for name, c in channels.items()}
        self._token = service_token
        self._catalogue = catalogue
        self._running = Running()

    def generate_text(
        self,
        request: text_service_pb2.GenerateTextRequest,
        model: Model,
        caller: Caller,
        reserved: Booking,
        *,
        prompt_bound: int,
        books: bool = True,
    ) -> Source[text_service_pb2.GenerateTextResponse]:
        """Begin a text answer.

        Where no pieces are wanted a short one is a unary call, which costs less than a stream. A long one, or one of
        the gateway's own models, whose queue may be long, is a stream even then: its empty messages tell that somebody
        works, and its last message is the answer. A large one is, too: the bytes of a unary call are kept to its end.

        `books`: whether the service is told the reservation, and so may book what it delivered when it is left.
        """
        provider = self._provider(model)
        timeouts = provider.timeouts_for(model)
        stub = self._stub_that_is_there(self._text, provider.service)
        span = text_span(request, model, provider.adapter)
        sent = (
            *self._metadata(caller, reserved, span, books=books),
            *(((calls.PROMPT_KEY, str(prompt_bound)),) if books else ()),
        )
        streams = request.stream or model.load is not None or may_be_long(request, model)
        if streams or request.ByteSize() > LARGE_BYTES:
            return traced(RpcSource(stub.GenerateText(request, metadata=sent), timeouts, self._running), span)
        asked = text_service_pb2.GenerateWholeTextRequest(request=request)
        within_s = whole_s(timeouts, request, model) + GRACE_S
        whole = WholeSource(stub.GenerateWholeText(asked, metadata=sent, timeout=within_s), self._running)
        return traced(whole, span)

    def generate_image(
        self, request: image_service_pb2.GenerateImageRequest, model: Model, caller: Caller, reserved: Booking
    ) -> Source[image_service_pb2.GenerateImageResponse]:
        """Begin images. A stream of one of the gateway's own models shows that it waits for its process."""
        provider = self._provider(model)

        def ask() -> Source[image_service_pb2.GenerateImageResponse]:
            stub = self._stub_that_is_there(self._image, provider.service)
            span = image_span(request, model, provider.adapter)
            sent = (*self._metadata(caller, reserved, span), *_resumed(caller, reserved))
            call = stub.GenerateImage(request, metadata=sent)
            return traced(RpcSource(call, _between_images(provider.timeouts), self._running), span)

        try:
            return ask()
        except Restarting:
            # Where another model may answer, that one is asked instead.
            if not request.stream or model.load is None or (model.fallback and caller.fallback):
                raise
            return Returning(self._reach[provider.service], ask)

    async def count_tokens(
        self, request: text_service_pb2.CountTokensRequest, model: Model, caller: Caller, payer: Payer
    ) -> int:
        """Count a prompt's tokens, in the turns of its account."""
        provider = self._provider(model)
        if (reach := self._reach.get(provider.service)) is not None:
            await reach.returned()
        try:
            answer = await self._stub(self._text, provider.service).CountTokens(
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
        for reach in self._reach.values():
            reach.watch()

    async def aclose(self) -> None:
        """Stop watching the services."""
        for reach in self._reach.values():
            await reach.aclose()

    def _provider(self, model: Model) -> Provider:
        catalogue: Catalogue = self._catalogue()
        return catalogue.provider(model.provider)

    def _stub_that_is_there(self, stubs: dict[str, Any], service: str) -> Any:
        """Return a stub. Raises Restarting where its process is not there and will be."""
        stub = self._stub(stubs, service)
        if self._reach[service].is_restarting:
            raise Restarting
        return stub

    def _stub(self, stubs: dict[str, Any], service: str) -> Any:
        self._running.check()
        try:
            return stubs[service]
        except KeyError:
            raise Unavailable(f"this gateway runs no {service} service") from None

    def _metadata(
        self, caller: Caller, reserved: Booking, span: tracing.Span | None, *, books: bool = True
    ) -> tuple[tuple[str, str], ...]:
        return metadata(
            self._token,
            caller.request_id,
            (calls.ACCOUNT_KEY, reserved.account_id),
            (calls.RESERVATION_KEY, reserved.reservation_id if books else ""),
            (calls.PRIORITY_KEY, reserved.priority),
            *_own_key(caller),
            span=span,
        )


def _between_images(timeouts: Timeouts) -> Timeouts:
    """Return the bounds of a call for several images: of a provider that is asked several times, each may be slow."""
    return msgspec.structs.replace(timeouts, idle_s=max(timeouts.idle_s, timeouts.connect_s + timeouts.first_token_s))


def _resumed(caller: Caller, reserved: Booking) -> tuple[tuple[str, str], ...]:
    """Name the order where whoever holds the quota asks again under the same request id: a task does, after a crash."""
    return ((calls.RESUME_KEY, caller.request_id),) if isinstance(reserved, TaskReservation) else ()


def _own_key(caller: Caller) -> tuple[tuple[str, str], ...]:
    return ((byok.METADATA_KEY, caller.own_key),) if caller.own_key else ()


_ENDING: set[Any] = set()
"""Calls whose last event was read and whose status is on its way."""


class Running:
    """The sources whose answers are under way."""

    __slots__ = ("_ended", "_sources")

    def __init__(self) -> None:
        self._sources: set[RpcSource | WholeSource] = set()
        self._ended = False

    def check(self) -> None:
        """Raise Stopping where no more answers begin."""
        if self._ended:
            raise Stopping

    def __len__(self) -> int:
        return len(self._sources)

    def add(self, source: RpcSource | WholeSource) -> None:
        """Count one in, when it begins."""
        self._sources.add(source)

    def discard(self, source: RpcSource | WholeSource) -> None:
        """Count one out, when it is over."""
        self._sources.discard(source)

    def end(self) -> None:
        """End them all, and let none begin."""
        self._ended = True
        for source in list(self._sources):
            source.end(Stopping())


class RpcSource:
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
            self.end(UpstreamTimeout("the model fell silent"))

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


class WholeSource:
    """The one message of a unary call."""

    __slots__ = ("_call", "_read", "_running", "_why")

    def __init__(self, call: Any, running: Running) -> None:
        self._call = call
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
        return text_service_pb2.GenerateTextResponse(events=whole.events)

    def cancel(self) -> None:
        """Stop the work behind it."""
        self._running.discard(self)
        self._call.cancel()

    def close(self) -> None:
        """Let go of it; a unary call that was read is over."""
