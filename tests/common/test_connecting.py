"""Channels between services, where connecting is slow or fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
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


async def test_a_host_that_is_cut_off_is_given_up_soon() -> None:
    """What is sent to another service may stay unacknowledged for four seconds: nothing else is heard of a host
    whose packets are dropped."""
    server = Server(service_token=None)
    port = await server.start("127.0.0.1:0")
    async with channel(f"127.0.0.1:{port}") as opened:
        await opened.channel_ready()
        assert list(user_timeouts_to(port)) == [4_000]
    await server.stop(0)


def user_timeouts_to(port: int) -> Iterator[int]:
    """Yield how long this process's connections to a port wait for a word of the other's kernel, in milliseconds."""
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(entry.readlink()).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(entry.name))) as link:
                    if link.family is not socket.AF_UNIX and link.getpeername()[1] == port:
                        yield link.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


async def test_no_proxy_lies_between_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """A company's proxy in the environment is for providers: a service that it cannot reach is asked directly."""
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server = Server(service_token=None)
    port = await server.start("127.0.0.1:0")
    async with channel(f"127.0.0.1:{port}") as opened:
        answer = await health_pb2_grpc.HealthStub(opened).Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    await server.stop(0)
