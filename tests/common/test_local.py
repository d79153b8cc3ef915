"""Calls within a process do what calls over gRPC do: each test runs both ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc
from services.common.errors import ContextTooLong
from services.common.rpc import local
from services.common.rpc.client import ConnectionWatch, channel, metadata
from services.common.rpc.local import LocalServer
from services.common.rpc.reading import AHEAD_BYTES
from services.common.rpc.server import Server
from services.common.rpc.session import server as sessions
from services.common.rpc.session.channel import SessionChannel
from services.common.rpc.status import error_from_rpc

TOKEN = "a-service-token-for-tests"
C = grpc.StatusCode
Request = text_service_pb2.GenerateTextRequest
Answer = text_service_pb2.GenerateTextResponse
PIECE_BYTES = 16 * 1024
PIECES = 400
"""Of so many pieces gRPC has room for a few: its window, and what the kernel keeps."""


class Answering(text_service_pb2_grpc.TextServiceServicer):
    """Behaves as the request's model says."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}
        self.left_s: float | None = None
        self.written = 0
        self.begun, self.cancelled = asyncio.Event(), asyncio.Event()
        self.go_on = asyncio.Event()

    async def GenerateText(self, request: Request, context: Any) -> None:  # type: ignore[override]
        self.seen = dict(context.invocation_metadata())
        self.left_s = context.time_remaining()
        if request.model == "long":
            raise ContextTooLong("too long", param="messages[0]", retry_after_s=3)
        if request.model == "much":
            for _ in range(PIECES):
                await context.write(said("x" * PIECE_BYTES))
                self.written += 1
            return
        await context.send_initial_metadata(())
        await context.write(said("one"))
        self.begun.set()
        try:
            if request.model == "waits":
                await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        await context.write(said("two"))

    async def GenerateWholeText(self, request: Any, context: Any) -> Any:
        raise AssertionError(request)

    async def CountTokens(self, request: text_service_pb2.CountTokensRequest, context: Any) -> Any:
        self.seen = dict(context.invocation_metadata())
        self.left_s = context.time_remaining()
        if request.model == "long":
            raise ContextTooLong("too long", param="messages[0]", retry_after_s=3)
        if request.model == "waits":
            self.begun.set()
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return text_service_pb2.CountTokensResponse(prompt_tokens=7)


def said(words: str) -> Answer:
    return Answer(events=[text_pb2.TextEvent(text=text_pb2.TextDelta(text=words))])


@dataclass
class World:
    """A server, and a channel to it."""

    server: Any
    channel: Any
    serves: Answering = field(default_factory=Answering)
    token: str = TOKEN

    async def server_left(self) -> None:
        """Return when the channel knows that its server takes no more calls."""
        while (state := self.channel.get_state()) is grpc.ChannelConnectivity.READY:
            await self.channel.wait_for_state_change(state)

    def stream(self, model: str = "fine", **more: Any) -> Any:
        stub = text_service_pb2_grpc.TextServiceStub(self.channel)
        return stub.GenerateText(Request(model=model), metadata=metadata(self.token, "rid"), **more)

    def whole(self, model: str = "fine", **more: Any) -> Any:
        stub = text_service_pb2_grpc.TextServiceStub(self.channel)
        asked = text_service_pb2.CountTokensRequest(model=model)
        return stub.CountTokens(asked, metadata=metadata(self.token, "rid", ("x-moa-account", "acct")), **more)


@pytest.fixture(params=["grpc", "local", "session", "session by stream"])
async def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    if request.param == "session by stream":
        # As between hosts.
        monkeypatch.setattr(sessions, "sys", SimpleNamespace(platform="other"))
    server: Any = LocalServer(service_token=TOKEN) if request.param == "local" else Server(service_token=TOKEN)
    serves = Answering()
    text_service_pb2_grpc.add_TextServiceServicer_to_server(serves, server.grpc)
    port = await server.start("127.0.0.1:0")
    opened: Any = server.channel if request.param == "local" else channel(f"127.0.0.1:{port}")
    if request.param.startswith("session"):
        opened = SessionChannel(opened, service_token=TOKEN)
        await opened.look()
    yield World(server, opened, serves)
    await server.stop(0)
    await opened.close()


only_local = pytest.mark.parametrize("world", ["local"], indirect=True)


async def read(call: Any) -> list[str]:
    """Return what a stream says, to its end."""
    words = []
    while (message := await call.read()) is not grpc.aio.EOF:
        words += [event.text.text for event in message.events]
    return words


def end_of(call: Any, kind: str) -> Awaitable[Any]:
    """Return what waits for the end of a call."""
    return call if kind == "whole" else read(call)


async def failure_of(end: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await end
    return caught.value


async def test_answers_come_whole_and_in_pieces(world: World) -> None:
    """With what the caller sends beside its request, and no bound on time where it sets none."""
    assert (await world.whole()).prompt_tokens == 7
    assert (world.serves.seen["x-request-id"], world.serves.seen["x-moa-account"]) == ("rid", "acct")
    assert world.serves.left_s is None
    assert await read(world.stream()) == ["one", "two"]


@pytest.mark.parametrize("kind", ["stream", "whole"])
async def test_errors_keep_their_details(world: World, kind: str) -> None:
    """Reason, field and time to wait arrive in the trailers."""
    failure = await failure_of(end_of(getattr(world, kind)("long"), kind))
    error = error_from_rpc(failure)
    assert isinstance(error, ContextTooLong)
    assert (error.message, error.param) == ("too long", "messages[0]")
    assert failure.code() is C.INVALID_ARGUMENT


async def test_strangers_and_unknown_methods_are_refused(world: World) -> None:
    """By the same statuses."""
    world.token = "another-token-of-a-stranger"
    assert (await failure_of(read(world.stream()))).code() is C.UNAUTHENTICATED
    make = world.channel.unary_stream("/moa.text.v1.TextService/Sing", request_serializer=Request.SerializeToString)
    assert (await failure_of(read(make(Request(), metadata=metadata(TOKEN, "rid"))))).code() is C.UNIMPLEMENTED


@pytest.mark.parametrize("kind", ["stream", "whole"])
async def test_a_call_that_is_cancelled_ends_its_handler(world: World, kind: str) -> None:
    """Whoever reads it meanwhile is cancelled, as is whoever reads it afterwards; a second time nothing ends."""
    call = getattr(world, kind)("waits")
    ended = asyncio.Event()
    call.add_done_callback(lambda _: ended.set())
    reading = asyncio.ensure_future(end_of(call, kind))
    await world.serves.begun.wait()
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await asyncio.wait_for(world.serves.cancelled.wait(), 30)
    await asyncio.wait_for(ended.wait(), 30)
    assert call.done()
    assert not call.cancel()


@pytest.mark.parametrize("kind", ["stream", "whole"])
async def test_a_reader_that_is_cancelled_ends_its_call(world: World, kind: str) -> None:
    """A caller that leaves stops the work behind its call."""
    call = getattr(world, kind)("waits")
    if kind == "stream":
        # gRPC forgets to end a call whose reader leaves while its request is being sent: whoever may, ends it himself.
        assert (await call.read()).events

    reads_on = asyncio.Event()

    async def reads() -> None:
        reads_on.set()
        await end_of(call, kind)

    reading = asyncio.ensure_future(reads())
    await world.serves.begun.wait()
    await reads_on.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await asyncio.wait_for(world.serves.cancelled.wait(), 30)


@pytest.mark.parametrize("kind", ["stream", "whole"])
async def test_a_deadline_ends_both_sides(world: World, kind: str) -> None:
    """The handler knows how long it has."""
    for lasts_s in (0.2, 1.0, 5.0, 25.0):
        failure = await failure_of(end_of(getattr(world, kind)("waits", timeout=lasts_s), kind))
        assert failure.code() is C.DEADLINE_EXCEEDED
        if world.serves.left_s is not None:
            break  # else the machine is too busy to begin a call in that time: no handler ever heard of it
    await asyncio.wait_for(world.serves.cancelled.wait(), 30)
    assert world.serves.left_s is not None
    # gRPC sends whole milliseconds, rounded up.
    assert 0 < world.serves.left_s <= lasts_s + 0.001


async def test_a_slow_reader_stops_its_writer_and_no_other(world: World) -> None:
    """What lies between them is bounded, others' calls go on meanwhile, and all of it arrives."""
    slow = world.stream("much")
    assert len((await slow.read()).events) == 1
    before = -1
    while world.serves.written != before:
        before = world.serves.written
        for _ in range(20):
            assert await read(world.stream()) == ["one", "two"]
    assert 0 < before < PIECES // 2
    assert len(await read(slow)) == PIECES - 1


@only_local
async def test_a_writer_is_a_window_ahead_at_most(world: World) -> None:
    """And goes on as soon as its reader has read."""
    slow = world.stream("much")
    for taken in range(1, 10):
        await slow.read()
        for _ in range(100):
            await asyncio.sleep(0)
        assert (world.serves.written - taken) * PIECE_BYTES <= AHEAD_BYTES + PIECE_BYTES
    assert slow.cancel()


@only_local
async def test_messages_are_as_large_as_grpc_takes_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A larger request is refused before it is served; a larger answer ends its call."""
    monkeypatch.setattr(local, "MAX_MESSAGE_BYTES", 1000)
    assert (await failure_of(read(world.stream("m" * 1001)))).code() is C.RESOURCE_EXHAUSTED
    assert not world.serves.begun.is_set()
    assert (await failure_of(read(world.stream("much")))).code() is C.RESOURCE_EXHAUSTED
    assert await read(world.stream()) == ["one", "two"]


async def test_a_stop_lets_running_calls_end(world: World) -> None:
    """New ones are refused as of a server that is away."""
    running = world.stream("waits")
    await running.read()
    stopping = asyncio.ensure_future(world.server.stop(60))
    await world.server_left()
    assert (await failure_of(read(world.stream()))).code() is C.UNAVAILABLE
    world.serves.go_on.set()
    assert await read(running) == ["two"]
    await asyncio.wait_for(stopping, 60)


async def test_a_stop_ends_what_runs_too_long(world: World) -> None:
    """Its handler is cancelled, and its caller told that the server is away."""
    running = world.stream("waits")
    await running.read()
    await world.server.stop(0)
    assert (await failure_of(read(running))).code() in (C.UNAVAILABLE, C.CANCELLED)
    await asyncio.wait_for(world.serves.cancelled.wait(), 30)


@only_local
async def test_a_server_of_this_process_is_never_being_started_again(world: World) -> None:
    """It is there from the beginning to its end, for who watches its connections."""
    connections = ConnectionWatch(world.channel)
    assert not connections.is_restarting
    await connections.returned()
    changed = asyncio.ensure_future(world.channel.wait_for_state_change(grpc.ChannelConnectivity.READY))
    await world.server.stop(0)
    await asyncio.wait_for(changed, 30)
    assert world.channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
    await connections.aclose()
