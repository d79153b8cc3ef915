"""Callers that do not read: what they do not take is not fetched for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import psutil
import psycopg
import pytest
from aiohttp import web

from deploy.local.ports import Ports
from deploy.local.stack import Stack
from tests import stacks

CALLERS = 6
ENOUGH_TOKENS = 50_000_000
"""So many that no stream is ended for giving more than was asked for."""
POUR_BYTES = 48 * 2**20
QUIET_S = 3.0
"""No byte for so long: it has stopped."""
ROOM_BYTES = 96 * 2**20
"""How much any process may grow: a third of what is poured."""


class Pourer:
    """A provider that sends tokens as fast as they are taken, to every caller."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.moved_at = time.monotonic()
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [
            {"index": 0, "delta": {"content": "word " * 10}, "finish_reason": None}]}  # fmt: skip
        self._piece = b"data: " + json.dumps(chunk).encode() + b"\n\n"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        number = len(self.sent)
        self.sent.append(0)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while self.sent[number] < POUR_BYTES:
                await response.write(self._piece * 20)
                self.sent[number] += len(self._piece) * 20
                self.moved_at = time.monotonic()
        return response


@pytest.fixture
async def pourer() -> AsyncIterator[tuple[Pourer, int]]:
    made, port = Pourer(), Ports().any()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", made.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield made, port
    await runner.cleanup()


@pytest.fixture
def stack(pourer: tuple[Pourer, int], tmp_path: Path) -> Iterator[Stack]:
    provider = {
        "id": "cloud",
        "adapter": "openai",
        "makes": "text",
        "base_url": f"http://127.0.0.1:{pourer[1]}/v1",
        "credentials": {"api_key": "CLOUD_KEY"},
    }
    model = {"id": "m", "provider": "cloud", "context_tokens": 128_000}
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_bytes(msgspec.yaml.encode({"providers": [provider], "models": [model]}))
    environment = {"MOA_CATALOGUE": str(catalogue), "CLOUD_KEY": "sk-good", "MOA_DRAIN_S": "0"}
    with stacks.gateway(
        tmp_path / "state", environment=environment, processes=("auth", "text", "router", "edge")
    ) as running:
        with psycopg.connect(running.database_url) as link:
            link.execute("update accounts set unlimited = true")
        yield running


def asked(stack: Stack) -> socket.socket:
    """Ask for a stream, and read no more than its status."""
    link = socket.create_connection(("127.0.0.1", stack.port), timeout=60)
    body = json.dumps(
        {"model": "m", "stream": True, "max_tokens": ENOUGH_TOKENS, "messages": [{"role": "user", "content": "Pour."}]}
    )
    link.sendall(
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: moa\r\nAuthorization: Bearer {stack.api_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    assert link.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
    return link


def resident(stack: Stack) -> dict[str, int]:
    sizes = {}
    for name in stack.names:
        process = psutil.Process(stack.pid(name))
        sizes[name] = sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
    return sizes


async def test_what_nobody_reads_is_not_fetched(stack: Stack, pourer: tuple[Pourer, int]) -> None:
    """Streams that their callers do not read come to rest at the provider, and no process grows with them; a caller
    that reads goes on beside them."""
    provider, _ = pourer
    before = await asyncio.to_thread(resident, stack)
    links = [await asyncio.to_thread(asked, stack) for _ in range(CALLERS)]
    while time.monotonic() - provider.moved_at < QUIET_S:
        await asyncio.sleep(0.1)
    assert len(provider.sent) == CALLERS
    assert max(provider.sent) < POUR_BYTES, "a stream that nobody read was fetched whole"
    after = await asyncio.to_thread(resident, stack)
    grown = {name: size - before[name] for name, size in after.items()}
    assert max(grown.values()) < ROOM_BYTES, grown
    reader = await asyncio.to_thread(asked, stack)
    reader.settimeout(60)
    read = 0
    while read < 2**20:
        read += len(await asyncio.to_thread(reader.recv, 65536))
    for link in (*links, reader):
        link.close()
