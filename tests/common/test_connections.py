"""Processes that went, as whoever calls them sees it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest

from services.common.errors import Unavailable
from services.common.rpc.client import PATIENCE_S, ConnectionWatch, channel
from services.common.rpc.server import Server
from services.common.rpc.status import error_from_rpc


async def lost(connections: ConnectionWatch) -> None:
    """Return when the process's going was noticed."""
    while not connections.is_restarting:
        await asyncio.sleep(0.01)


async def test_a_process_that_went_is_waited_for_until_it_is_back() -> None:
    """While a server is away it is told to be restarting; who waits for it goes on when it is back at its address."""
    first = Server(service_token=None)
    port = await first.start("127.0.0.1:0")
    link = channel(f"127.0.0.1:{port}")
    connections = ConnectionWatch(link)
    await link.channel_ready()
    assert not connections.is_restarting
    await connections.returned()
    await first.stop(0)
    async with asyncio.timeout(20):
        await lost(connections)
        waiting = asyncio.create_task(connections.returned())
        second = Server(service_token=None)
        await second.start(f"127.0.0.1:{port}")
        await waiting
    assert not connections.is_restarting
    await connections.aclose()
    await link.close()
    await second.stop(0)


async def test_a_process_that_stays_away_is_not_waited_for() -> None:
    """Patience counts from when it went: later it is as one that never was there, for which nobody waits."""
    now = [0.0]
    server = Server(service_token=None)
    port = await server.start("127.0.0.1:0")
    link = channel(f"127.0.0.1:{port}")
    gone = ConnectionWatch(link, clock=lambda: now[0])
    await link.channel_ready()
    assert not gone.is_restarting
    await server.stop(0)
    async with asyncio.timeout(20):
        await lost(gone)
        now[0] += PATIENCE_S
        assert not gone.is_restarting
        await gone.returned()
        never = ConnectionWatch(link)
        assert not never.is_restarting
        await never.returned()
    await gone.aclose()
    await never.aclose()
    await link.close()
    assert link.get_state() is grpc.ChannelConnectivity.SHUTDOWN


class Peers(grpc.GenericRpcHandler):
    """Answers calls of `/peers/One` and keeps where they came from; `/peers/Held` goes on until `ended` is set, and
    `/peers/Silent` says nothing until then."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.held = self.silent = 0
        self.asked, self.ended = asyncio.Event(), asyncio.Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        match handler_call_details.method:
            case "/peers/One":
                return grpc.unary_unary_rpc_method_handler(self._one)
            case "/peers/Silent":
                return grpc.unary_unary_rpc_method_handler(self._silent)
        return grpc.unary_stream_rpc_method_handler(self._held)

    async def _one(self, request: bytes, context: Any) -> bytes:
        self.seen.add(context.peer())
        return request

    async def _silent(self, request: bytes, context: Any) -> bytes:
        self.silent += 1
        self.asked.set()
        await self.ended.wait()
        return request

    async def _held(self, request: bytes, context: Any) -> None:
        self.held += 1
        await context.write(b"begun")
        await self.ended.wait()
        await context.write(b"ended")


@asynccontextmanager
async def serving(connection_age_s: float = 0.0) -> AsyncIterator[tuple[int, Peers]]:
    """Yield the port of a server, and who asks it."""
    server, peers = Server(service_token=None, connection_age_s=connection_age_s), Peers()
    server.grpc.add_generic_rpc_handlers((peers,))
    try:
        yield await server.start("127.0.0.1:0"), peers
    finally:
        await server.stop(0)


async def test_clients_connect_anew_and_no_call_fails() -> None:
    """Where connections have an age clients come by new ones, and find new replicas; a stream ends where it began."""
    async with serving(connection_age_s=0.2) as (port, peers), channel(f"127.0.0.1:{port}") as opened:
        link: Any = opened
        held = link.unary_stream("/peers/Held")(b"")
        assert await held.read() == b"begun"
        async with asyncio.timeout(60):
            while len(peers.seen) < 4:
                assert await link.unary_unary("/peers/One")(b"asked") == b"asked"
            peers.ended.set()
            assert await held.read() == b"ended"
            assert await held.read() is grpc.aio.EOF


_HEADERS, _SETTINGS, _GOAWAY = b"\1", b"\4", b"\7"
_PREFACE_BYTES = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


def _frame(kind: bytes, payload: bytes = b"") -> bytes:
    """Return a frame of HTTP/2 that is of the connection and of no stream (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + kind + bytes(5) + payload


async def _turned_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say to the first call that the connection ends, and that it was not looked at: a server of that age does."""
    writer.write(_frame(_SETTINGS))
    await reader.readexactly(_PREFACE_BYTES)
    kind = b""
    while kind != _HEADERS:
        head = await reader.readexactly(9)
        await reader.readexactly(int.from_bytes(head[:3], "big"))
        kind = head[3:4]
    no_stream, no_error = bytes(4), bytes(4)
    writer.write(_frame(_GOAWAY, no_stream + no_error))
    await writer.drain()


async def _passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    await _closed(writer)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_what_no_server_has_begun_is_asked_again_and_what_one_has_is_not() -> None:
    """A call that a connection's end turned away is made on the next; one whose server vanished amid it fails."""
    turns = 0
    links: list[asyncio.StreamWriter] = []
    between_them: list[asyncio.Task[Any]] = []

    async with serving() as (port, peers):

        async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal turns
            turns += 1
            task = asyncio.current_task()
            assert task is not None
            between_them.append(task)
            if turns == 1:
                await _turned_away(reader, writer)
                await _closed(writer)
                return
            there, onward = await asyncio.open_connection("127.0.0.1", port)
            links.append(writer)
            await asyncio.gather(_passed(reader, onward), _passed(there, writer))

        proxy = await asyncio.start_server(between, "127.0.0.1", 0)
        address = f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        # Not waited for: from Python 3.12 on that waits for its connections too, the last of which the server ends.
        async with asyncio.timeout(60), channel(address) as opened, AsyncExitStack() as ending:
            ending.callback(proxy.close)
            link: Any = opened
            assert await link.unary_unary("/peers/One")(b"asked", wait_for_ready=True) == b"asked"
            assert turns == 2
            held = link.unary_stream("/peers/Held")(b"")
            assert await held.read() == b"begun"
            silent = asyncio.ensure_future(link.unary_unary("/peers/Silent")(b"asked"))
            await peers.asked.wait()
            links[-1].transport.abort()
            with pytest.raises(grpc.aio.AioRpcError):
                await held.read()
            with pytest.raises(grpc.aio.AioRpcError):
                await silent
            assert await link.unary_unary("/peers/One")(b"asked", wait_for_ready=True) == b"asked"
            assert (peers.held, peers.silent) == (1, 1)
            peers.ended.set()
    await asyncio.wait_for(asyncio.gather(*between_them), 60)


async def test_what_arrives_as_a_server_stops_was_begun_by_nobody() -> None:
    """Calls that a server has and no handler began when it stops end without words, as where nobody is reached."""
    begun = 0

    async def handle(request: bytes, context: Any) -> bytes:
        nonlocal begun
        begun += 1
        return request

    server = grpc.aio.server()
    method: Any = grpc.unary_unary_rpc_method_handler(handle)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("here", {"There": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    link = channel(f"127.0.0.1:{port}")
    call: Any = link.unary_unary("/here/There")
    assert await call(b"warm") == b"warm"

    async def answer() -> Any:
        try:
            return await call(b"late")
        except grpc.aio.AioRpcError as failure:
            return error_from_rpc(failure)

    waiting = [asyncio.ensure_future(answer()) for _ in range(20)]
    # gRPC's own threads bring the calls to the server while the loop, and so its handlers, stand still.
    # However few have come by then, none may end as anything else.
    await asyncio.sleep(0)
    time.sleep(0.1)
    stopping = asyncio.ensure_future(server.stop(5))
    answers = await asyncio.gather(*waiting)
    assert answers.count(b"late") == begun - 1 < 20
    assert all(isinstance(one, Unavailable) for one in answers if one != b"late")
    await stopping
    await link.close()
