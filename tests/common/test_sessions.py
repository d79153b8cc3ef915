"""Calls that share a stream: to several processes, to one that leaves or is killed, and to one that knows no streams.

What a call is to its caller and its handler, `test_local.py` has, over sessions too.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from moa.session.v1 import session_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc
from services.common.large_turn import LargeTurns
from services.common.rpc import call as calls
from services.common.rpc.certificates import Certificates
from services.common.rpc.client import channel, metadata
from services.common.rpc.receiving import LARGE_BYTES
from services.common.rpc.server import Server
from services.common.rpc.session import channel as channels
from services.common.rpc.session import client
from services.common.rpc.session import server as serving_sessions
from services.common.rpc.session.channel import SessionChannel
from services.common.rpc.session.writer import Socket, Writer
from services.common.rpc.tls import Tls
from tests.authority import NAME, Authority

TOKEN = "a-service-token-for-tests"
C = grpc.StatusCode
LONG = "x" * (3 * 64 * 1024 + 5)


class Counting(text_service_pb2_grpc.TextServiceServicer):
    """Says who it is, and by which way it was asked."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ways: list[str] = []
        self.sizes: list[int] = []
        """How large each request was said to be before it came."""
        self.begun, self.cancelled, self.go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def _note(self, context: Any) -> None:
        self.sizes.append(calls.current().body_bytes)
        self.ways.append("session" if type(context).__name__ == "HandledContext" else "plain")

    async def CountTokens(self, request: text_service_pb2.CountTokensRequest, context: Any) -> Any:
        self._note(context)
        if request.model == "waits":
            self.begun.set()
            await self.go_on.wait()
        return text_service_pb2.CountTokensResponse(prompt_tokens=self.number)

    async def GenerateWholeText(self, request: Any, context: Any) -> Any:
        raise AssertionError(request)

    async def GenerateText(self, request: text_service_pb2.GenerateTextRequest, context: Any) -> None:  # type: ignore[override]
        self._note(context)
        await context.write(said("one"))
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        await context.write(said(LONG if request.model == "long" else "two"))


def said(words: str) -> text_service_pb2.GenerateTextResponse:
    return text_service_pb2.GenerateTextResponse(events=[text_pb2.TextEvent(text=text_pb2.TextDelta(text=words))])


class World:
    """Servers that are alike, and a channel to them."""

    def __init__(self, servers: list[Any], serve: list[Counting], plain: Any, opened: SessionChannel) -> None:
        self.servers = servers
        self.serve = serve
        self.plain = plain
        self.channel = opened
        stub: Any = text_service_pb2_grpc.TextServiceStub
        self._stub = stub(opened)

    def whole(self, model: str = "fine") -> Any:
        asked = text_service_pb2.CountTokensRequest(model=model)
        return self._stub.CountTokens(asked, metadata=metadata(TOKEN, "rid"))

    def stream(self, model: str = "fine") -> Any:
        return self._stub.GenerateText(
            text_service_pb2.GenerateTextRequest(model=model), metadata=metadata(TOKEN, "rid")
        )

    async def have(self, sessions: int) -> None:
        """Return when so many processes have a session."""
        async with asyncio.timeout(60):
            while True:
                await self.channel.look()
                if len(self.channel.sessions) == sessions:
                    return


@asynccontextmanager
async def world_of(count: int = 1, *, old: tuple[int, ...] = (), tls: Tls | None = None) -> AsyncIterator[World]:
    """Serve as so many processes, the `old` ones of which know no sessions."""
    async with AsyncExitStack() as stack:
        servers, serve, ports = [], [], []
        for number in range(count):
            server = Server(service_token=TOKEN, tls=tls)
            if number in old:
                server.sessions = None
            serves = Counting(number + 1)
            text_service_pb2_grpc.add_TextServiceServicer_to_server(serves, server.grpc)
            ports.append(await server.start("127.0.0.1:0"))
            stack.push_async_callback(server.stop, 0)
            servers.append(server)
            serve.append(serves)
        plain = channel(",".join(f"127.0.0.1:{port}" for port in ports), "text", tls)
        opened = SessionChannel(plain, service_token=TOKEN)
        stack.push_async_callback(opened.close)
        yield World(servers, serve, plain, opened)


@pytest.fixture(params=["socket", "stream"])
def carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run within a host, and as between hosts."""
    if request.param == "stream":
        monkeypatch.setattr(serving_sessions, "sys", SimpleNamespace(platform="other"))
    return str(request.param)


def lose(session: client.Session) -> None:
    """Cut what carries it."""
    assert session.socket is not None
    session.socket.close()


async def words_of(call: Any) -> list[str]:
    words = []
    while (message := await call.read()) is not grpc.aio.EOF:
        words += [event.text.text for event in message.events]
    return words


async def test_the_first_call_is_plain_and_those_after_it_share_a_stream(carrier: str) -> None:
    """Nobody waits for a session; what begins in one turn of the loop is one message, and so are its answers."""
    async with world_of() as world:
        assert (await world.whole()).prompt_tokens == 1
        await world.have(1)
        (session,) = world.channel.sessions
        assert (session.socket is not None) == (carrier == "socket")
        messages: list[bytes] = []
        received = session.received
        session.received = lambda data: (messages.append(data), received(data))  # type: ignore[assignment, func-returns-value]
        if session.socket is not None:
            session.socket.received = session.received
        answers = await asyncio.gather(*(world.whole() for _ in range(50)))
        assert [each.prompt_tokens for each in answers] == [1] * 50
        assert world.serve[0].ways == ["plain", *["session"] * 50]
        assert 0 < len(messages) < 50


async def test_every_process_has_its_share() -> None:
    """Sessions are opened until each process has one; calls go to them by turns, and none to one that has gone."""
    async with world_of(3) as world:
        await world.have(3)
        assert sorted([(await world.whole()).prompt_tokens for _ in range(6)]) == [1, 1, 2, 2, 3, 3]
        await world.servers[0].stop(0)
        while len(world.channel.sessions) == 3:
            await asyncio.sleep(0)
        assert sorted([(await world.whole()).prompt_tokens for _ in range(4)]) == [2, 2, 3, 3]
        assert all(way == "session" for each in world.serve for way in each.ways)


async def test_where_one_process_knows_no_sessions_none_has_any() -> None:
    """An upgrade goes on with gRPC's own turns: processes that know sessions do not get all calls."""
    async with world_of(2, old=(1,)) as world:
        asked = {(await world.whole()).prompt_tokens for _ in range(4)}
        while asked != {1, 2}:
            asked.add((await world.whole()).prompt_tokens)
        await world.channel.look()
        while world.channel.sessions:
            # Calls that took their turns meanwhile had both of its questions go to the same process.
            await world.channel.look()
        for each in world.serve:
            each.ways.clear()
        assert {(await world.whole()).prompt_tokens for _ in range(4)} == {1, 2}
        assert {way for each in world.serve for way in each.ways} == {"plain"}


@pytest.mark.parametrize("end", ["server", "connection"])
async def test_calls_fail_at_once_when_their_process_is_gone(end: str) -> None:
    """All that run are told, and their handlers end where they still can; the next calls are made anew."""
    async with world_of() as world:
        await world.have(1)
        running = [world.stream() for _ in range(3)]
        for each in running:
            assert (await each.read()).events
        if end == "server":
            await world.servers[0].grpc.stop(0)
        else:
            lose(world.channel.sessions[0])
        for each in running:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asyncio.wait_for(each.read(), 30)
            assert caught.value.code() is C.UNAVAILABLE
        assert len(world.channel.sessions) == 0
        await asyncio.wait_for(world.serve[0].cancelled.wait(), 30)
        if end == "connection":
            assert (await world.whole()).prompt_tokens == 1
            await world.have(1)


async def test_a_process_that_leaves_begins_nothing_and_ends_what_runs(carrier: str) -> None:
    """Who is told calls it no more; its stream ends with the last call, and so the stop of the process does."""
    async with world_of() as world:
        await world.have(1)
        running = world.stream()
        assert (await running.read()).events
        stopping = asyncio.create_task(world.servers[0].stop(60))
        while world.channel.sessions:
            await asyncio.sleep(0)
        assert not stopping.done()
        world.serve[0].go_on.set()
        assert await words_of(running) == ["two"]
        await asyncio.wait_for(stopping, 30)


@pytest.mark.parametrize("kind", ["whole", "stream"])
async def test_what_a_leaving_process_did_not_begin_is_asked_elsewhere(kind: str) -> None:
    """Its caller sees one call: it is answered, cancelled, and told of its end as any other."""
    async with world_of() as world:
        await world.have(1)
        # It stops, and this side has not heard of it.
        world.servers[0].sessions.handling.is_stopped = True
        call, ended = getattr(world, kind)(), asyncio.Event()
        call.add_done_callback(lambda ending: ended.set() if ending is call else None)
        world.serve[0].go_on.set()
        answer = await call if kind == "whole" else await words_of(call)
        assert answer == (text_service_pb2.CountTokensResponse(prompt_tokens=1) if kind == "whole" else ["one", "two"])
        await asyncio.wait_for(ended.wait(), 30)
        assert call.done()
        assert not call.cancel()
        assert world.serve[0].ways == ["plain"]
        world.serve[0].go_on.clear()
        world.serve[0].begun.clear()
        left = getattr(world, kind)("waits")
        reading = asyncio.ensure_future(left if kind == "whole" else words_of(left))
        await asyncio.wait_for(world.serve[0].begun.wait(), 30)
        assert left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading


async def test_a_session_is_replaced_and_its_calls_end_where_they_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """So connections and certificates may change; the old stream ends with its last call."""
    monkeypatch.setattr(channels, "SOON_S", 600.0)
    async with world_of() as world:
        await world.have(1)
        monkeypatch.setattr(channels, "AGE_S", 0.0)
        (first,) = world.channel.sessions
        running = world.stream()
        assert (await running.read()).events
        await world.channel.look()
        (second,) = world.channel.sessions
        assert second is not first
        assert world.channel.streams == 2
        assert (await world.whole()).prompt_tokens == 1
        world.serve[0].go_on.set()
        assert await words_of(running) == ["two"]
        async with asyncio.timeout(60):
            while world.channel.streams > 1 or world.servers[0].sessions.streams > 1:
                await asyncio.sleep(0.01)
        assert world.channel.sessions == [second]


async def test_both_sides_end_a_session_whose_channel_is_closed(carrier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is cut, whose end would come when nobody is there any more to hear it."""
    async with world_of() as world:
        made = world.plain.stream_stream
        streams: list[Any] = []

        def noted(*given: Any, **more: Any) -> Callable[..., Any]:
            begin = made(*given, **more)

            def begun(**more: Any) -> Any:
                streams.append(begin(**more))
                return streams[-1]

            return begun

        monkeypatch.setattr(world.plain, "stream_stream", noted)
        opened = SessionChannel(world.plain, service_token=TOKEN)
        await opened.look()
        (session,) = opened.sessions
        assert (session.socket is not None) == (carrier == "socket")
        await opened.close()
        assert await streams[0].code() is C.OK


async def test_large_requests_are_plain_and_large_answers_come_in_pieces(carrier: str) -> None:
    """A large request waits for room as ever; between the pieces of a large answer come those of others."""
    async with world_of() as world:
        await world.have(1)
        assert (await world.whole("x" * LARGE_BYTES)).prompt_tokens == 1
        assert world.serve[0].ways == ["plain"]
        call = world.stream("long")
        assert (await call.read()).events
        world.serve[0].go_on.set()
        assert await words_of(call) == [LONG]
        assert world.serve[0].ways == ["plain", "session"]


async def test_the_call_of_a_large_request_holds_none_of_it(carrier: str) -> None:
    """Once it was sent: whoever answers may take a minute, and who asked has the message."""
    async with world_of() as world:
        await world.have(1)
        call = world.stream("x" * LARGE_BYTES)
        assert (await call.read()).events
        assert world.serve[0].ways == ["plain"]
        assert vars(call)["_request"] == []
        world.serve[0].go_on.set()
        assert await words_of(call) == ["two"]


async def test_a_large_request_that_is_passed_on_says_how_large_it_is(carrier: str) -> None:
    """So it waits for room and for its turn before it is received; its answer, one message or many, is as any."""
    async with world_of() as world:
        await world.have(1)
        calls.begin("/x/Y", "rid").request_bytes = 20 * LARGE_BYTES
        assert (await world.whole("x" * 10 * LARGE_BYTES)).prompt_tokens == 1
        call = world.stream("x" * 10 * LARGE_BYTES)
        world.serve[0].go_on.set()
        assert await words_of(call) == ["one", "two"]
        assert world.serve[0].sizes == [20 * LARGE_BYTES] * 2


async def test_a_large_request_is_not_sent_where_its_caller_left(carrier: str) -> None:
    """While it waits for its turn: whoever was to answer hears nothing of its words."""
    async with world_of() as world:
        await world.have(1)
        received = calls.begin("/x/Y", "rid")
        received.request_bytes, received.turns = 20 * LARGE_BYTES, LargeTurns()
        async with received.turn():
            call = world.stream("x" * 10 * LARGE_BYTES)
            assert not call.done()
            assert call.cancel()
        world.serve[0].go_on.set()
        assert await words_of(world.stream()) == ["one", "two"]
        assert len(world.serve[0].sizes) == 1


async def test_a_stranger_has_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """By another credential a stream is refused; at the socket a wrong ticket, a used one and a long one end it."""
    async with world_of() as world:
        stranger = SessionChannel(world.plain, service_token="another-token-of-a-stranger")
        await stranger.look()
        assert len(stranger.sessions) == 0
        hellos: list[session_service_pb2.Hello] = []
        connect = client.Session.connect

        async def seen(self: Any, hello: session_service_pb2.Hello) -> None:
            hellos.append(hello)
            await connect(self, hello)

        monkeypatch.setattr(client.Session, "connect", seen)
        await world.have(1)
        (hello,) = hellos
        for ticket in (b"?" * 16, hello.ticket, b"?" * 17):
            loop = asyncio.get_running_loop()
            within = socket.socket(socket.AF_UNIX)
            within.setblocking(False)
            within.connect(f"\0{hello.socket}")
            lost = asyncio.Event()
            _, made = await loop.create_unix_connection(partial(Socket, print, lost.set), sock=within)
            made.write(ticket)
            await asyncio.wait_for(lost.wait(), 30)
        assert (await world.whole()).prompt_tokens == 1
        assert world.serve[0].ways == ["session"]


async def test_callers_are_known_by_their_certificates(tmp_path: Path) -> None:
    """Within a session as beside it: who is no caller of the process has none."""
    authority = Authority()
    folder = authority.certify(tmp_path / "text", "text.moa.internal")
    for caller, found in (("text", 1), ("router", 0)):
        tls = Tls(certificates=Certificates(folder, name=NAME), callers=(caller,))
        async with world_of(tls=tls) as world:
            await world.channel.look()
            assert len(world.channel.sessions) == found
            if found:
                assert (await world.whole()).prompt_tokens == 1
                assert world.serve[0].ways == ["session"]


async def test_what_is_said_at_once_is_parted_where_it_is_much() -> None:
    """Neither side holds a message of more than a few megabytes, however many calls there are."""
    box, written = Writer(session_service_pb2.CarryResponse), list[bytes]()
    piece = b"x" * 60_000

    async def write(data: bytes) -> None:
        written.append(data)

    for number in range(100):
        frame = box.batch.frames.add()
        frame.call, frame.piece = number, piece
        box.added(len(piece))
    writing = asyncio.create_task(box.write_to(write))
    while sum(map(len, written)) < 100 * len(piece):
        await asyncio.sleep(0)
    writing.cancel()
    frames = [frame.call for data in written for frame in session_service_pb2.CarryResponse.FromString(data).frames]
    assert frames == list(range(100))
    assert max(map(len, written)) < 2 * 2**20


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_messages_are_found_however_they_are_cut(step: int) -> None:
    """A socket's reads end anywhere."""
    found: list[bytes] = []
    sent: list[bytes] = []
    transport: Callable[..., Any] = lambda **named: SimpleNamespace(**named)  # noqa: E731  # as a transport
    made = Socket(found.append, lambda: None)
    made.connection_made(transport(write=sent.append, abort=lambda: None, is_closing=lambda: False))
    messages = [b"", b"a", b"four", b"x" * 300]
    for each in messages:
        made.write(each)
    data = b"".join(sent)
    for at in range(0, len(data), step):
        made.data_received(data[at : at + step])
    assert found == messages
