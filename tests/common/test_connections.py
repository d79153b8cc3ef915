"""Processes that went, as whoever calls them sees it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from services.common.rpc.client import PATIENCE_S, ConnectionWatch, channel
from services.common.rpc.server import Server


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
    """Answers calls of `/peers/One` and keeps where they came from; `/peers/Held` goes on until `ended` is set."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.ended = asyncio.Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        if handler_call_details.method == "/peers/One":
            return grpc.unary_unary_rpc_method_handler(self._one)
        return grpc.unary_stream_rpc_method_handler(self._held)

    async def _one(self, request: bytes, context: Any) -> bytes:
        self.seen.add(context.peer())
        return request

    async def _held(self, request: bytes, context: Any) -> None:
        await context.write(b"begun")
        await self.ended.wait()
        await context.write(b"ended")


async def test_clients_connect_anew_and_no_call_fails() -> None:
    """Where connections have an age clients come by new ones, and find new replicas; a stream ends where it began."""
    server, peers = Server(service_token=None, connection_age_s=0.2), Peers()
    server.grpc.add_generic_rpc_handlers((peers,))
    port = await server.start("127.0.0.1:0")
    link: Any = channel(f"127.0.0.1:{port}")
    held = link.unary_stream("/peers/Held")(b"")
    assert await held.read() == b"begun"
    async with asyncio.timeout(20):
        while len(peers.seen) < 4:
            assert await link.unary_unary("/peers/One")(b"asked") == b"asked"
        peers.ended.set()
        assert await held.read() == b"ended"
        assert await held.read() is grpc.aio.EOF
    await link.close()
    await server.stop(0)
