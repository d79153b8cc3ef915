"""What open streams, long prompts and large bodies cost a gateway, each at sizes ten times apart (`bench.growth`)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import psutil
import psycopg

from bench.upstream import HEAD, MODEL, TAIL, TOKEN, WHOLE
from deploy.local.stack import Stack

_PROCESSES: Final = ("auth", "text", "router", "edge")
_PROBES: Final = 40
_AT_ONCE: Final = 8
_SETTLED_S: Final = 5.0
_BODY_BYTES: Final = 4_000_000
_BODIES_AT_ONCE: Final = 3


class _Upstream:
    """Answers whole requests at once, and holds streams after their first piece until they are let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.held = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(found[1]) if found else 0)
                if b'"stream":true' not in body.replace(b" ", b""):
                    writer.write(WHOLE)
                    continue
                writer.write(HEAD + TOKEN)
                self.held += 1
                await self.go.wait()
                writer.write(TAIL)
        writer.close()


@dataclass(frozen=True)
class _Place:
    stack: Stack
    upstream: _Upstream
    session: aiohttp.ClientSession

    async def chat(self, content: str, **more: Any) -> float:
        """Return how many milliseconds an answer takes."""
        body = {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": content}], **more}
        began = time.perf_counter()
        async with self._asked(body) as answer:
            await answer.read()
            if answer.status != 200:
                raise SystemExit(f"a chat was answered {answer.status}: {await answer.text()}")
        return 1000 * (time.perf_counter() - began)

    def _asked(self, body: dict[str, Any]) -> Any:
        headers = {"Authorization": f"Bearer {self.stack.api_key}", "Content-Type": "application/json"}
        return self.session.post(
            self.stack.url + "/v1/chat/completions", data=BytesIO(json.dumps(body).encode()), headers=headers
        )

    async def held(self, opened: asyncio.Event) -> None:
        """Open a stream and read it to its end; `opened` is set with its first piece."""
        body = {"model": MODEL, "max_tokens": 5, "stream": True, "messages": [{"role": "user", "content": "hold"}]}
        async with self._asked(body) as answer:
            await answer.content.readany()
            opened.set()
            await answer.read()

    def router_mb(self) -> float:
        """Return the router's memory."""
        pid = self.stack.pid("router")
        return float(psutil.Process(pid).memory_info().rss / 2**20)


@contextlib.asynccontextmanager
async def _gateway(*, durable: bool = False) -> AsyncIterator[_Place]:
    upstream = _Upstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=2**24, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="moa-bench-") as folder:
        provider = {
            "id": "cloud",
            "adapter": "openai",
            "makes": "text",
            "base_url": f"http://127.0.0.1:{port}/v1",
            "credentials": {"api_key": "CLOUD_KEY"},
            "timeouts": {"first_token_s": 300, "idle_s": 300},
        }
        catalogue = Path(folder) / "catalogue.yaml"
        model = {"id": MODEL, "provider": "cloud"}
        catalogue.write_bytes(msgspec.yaml.encode({"providers": [provider], "models": [model]}))
        environment = {"MOA_CATALOGUE": str(catalogue), "CLOUD_KEY": "sk", "MOA_LOG_LEVEL": "warning"}
        stack = Stack(Path(folder) / "state", durable=durable, environment=environment, processes=_PROCESSES)
        await asyncio.to_thread(stack.start)
        with psycopg.connect(stack.database_url) as link:
            link.execute("update accounts set unlimited = true")
        try:
            connector = aiohttp.TCPConnector(limit=0)
            timeout = aiohttp.ClientTimeout(total=300)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                place = _Place(stack, upstream, session)
                for _ in range(_PROBES):
                    await place.chat("warm")
                yield place
        finally:
            upstream.go.set()
            server.close()
            await asyncio.to_thread(stack.stop)


async def _streams(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    found = []
    async with _gateway() as place:
        before = place.router_mb()
        opened: list[asyncio.Event] = []
        running: list[asyncio.Task[None]] = []
        for size in sizes:
            while len(running) < size:
                events = [asyncio.Event() for _ in range(min(50, size - len(running)))]
                running += [asyncio.create_task(place.held(event)) for event in events]
                await asyncio.gather(*(event.wait() for event in events))
                opened += events
            probes = sorted([await place.chat("probe") for _ in range(_PROBES)])
            found.append({"probe": statistics.median(probes), "memory": max(0.1, place.router_mb() - before)})
        place.upstream.go.set()
        await asyncio.gather(*running)
    return found


async def _prompts(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    async with _gateway() as place:
        return [{"chat": statistics.median([await place.chat("x" * size) for _ in range(5)])} for size in sizes]


async def _bodies(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    found = []
    body = "x" * _BODY_BYTES
    async with _gateway() as place:
        for _ in range(3):
            await place.chat(body)
        await asyncio.sleep(_SETTLED_S)
        before = place.router_mb()
        for size in sizes:
            left = iter(range(size))

            async def some(numbers: Iterator[int] = left) -> None:
                for _ in numbers:
                    await place.chat(body)

            # Side by side, the helper processes of router and text service work at once.
            await asyncio.gather(*(some() for _ in range(_BODIES_AT_ONCE)))
            await asyncio.sleep(_SETTLED_S)
            found.append({"kept": max(1.0, place.router_mb() - before)})
            gc.collect()
    return found


def _on_disk(url: str) -> tuple[int, int]:
    """Return how far the write-ahead log has come, and how large all tables are with their indexes."""
    with psycopg.connect(url, autocommit=True) as link:
        found = link.execute(
            "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint, sum(pg_total_relation_size(c.oid))::bigint"
            " from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where relkind = 'r' and nspname not in ('pg_catalog', 'information_schema')"
        ).fetchone()
    assert found is not None
    return found[0], found[1]


async def _requests(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    found = []
    async with _gateway(durable=True) as place:
        for size in sizes:
            await asyncio.sleep(_SETTLED_S)
            with psycopg.connect(place.stack.database_url, autocommit=True) as link:
                link.execute("checkpoint")
            before = _on_disk(place.stack.database_url)
            left = iter(range(size))

            async def some(numbers: Iterator[int] = left) -> None:
                for _ in numbers:
                    await place.chat("hello")

            await asyncio.gather(*(some() for _ in range(_AT_ONCE)))
            await asyncio.sleep(_SETTLED_S)
            after = _on_disk(place.stack.database_url)
            found.append({"wal": (after[0] - before[0]) / size, "tables": (after[1] - before[1]) / size})
    return found


def requests(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """Return for each number of small chats what each wrote to the write-ahead log and left in tables, in bytes."""
    return asyncio.run(_requests(sizes))


def streams(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """Return for each number of open streams a small chat's time (ms), and the router's memory for them (MB)."""
    return asyncio.run(_streams(sizes))


def prompts(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """Return for each length of a prompt how long its chat takes, in ms."""
    return asyncio.run(_prompts(sizes))


def bodies(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """Return for each number of bodies of 4 MB, three at a time, what the router kept of them, in MB."""
    return asyncio.run(_bodies(sizes))
