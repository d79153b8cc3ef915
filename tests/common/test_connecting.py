"""Channels between services, where connecting is slow or fails."""

from __future__ import annotations

import asyncio
import contextlib
import time

from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.rpc.client import channel
from services.common.rpc.server import Server

SLOW_S = 0.4


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_a_slow_connection_is_waited_for() -> None:
    """A service whose machine is too busy to greet at once is reached all the same."""
    server = Server(service_token=None)
    port = await server.start("127.0.0.1:0")

    async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(SLOW_S)
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))

    proxy = await asyncio.start_server(through, "127.0.0.1", 0)
    address = f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    began = time.monotonic()
    async with channel(address) as opened:
        stub = health_pb2_grpc.HealthStub(opened)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert time.monotonic() - began >= SLOW_S
    proxy.close()
    await proxy.wait_closed()
    await server.stop(0)
