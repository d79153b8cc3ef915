"""One streamed chat through the router and the text service, each in a thread of its own, piece by piece."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from google.api import httpbody_pb2
from pydantic import SecretStr

from bench.upstream import HEAD, MODEL, TAIL, TOKEN
from moa.router.v1 import openai_service_pb2_grpc
from services.catalogue import Watched
from services.common.egress import Egress
from services.common.rpc.client import channel
from services.common.rpc.session.channel import SessionChannel
from services.common.store import links_of
from services.common.store.folder import FolderStore
from services.router.adapters.backends import Backends
from services.router.assembly import Around, serving
from services.router.settings import RouterSettings
from services.text.service import SERVICE
from services.text.settings import TextSettings
from tests import shipped
from tests.router.played_responses import PlayedResponses
from tests.router.rig import KEY, Played
from tests.walks.walking import Walk

SERVICE_TOKEN = "a service token for the walks"
TIMEOUT_S = 60


class Upstream:
    """A provider that sends a piece when it is told to."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None
        self._asked = asyncio.Event()

    async def begun(self) -> None:
        """Wait until it is asked, and begin to answer."""
        await self._asked.wait()
        self.write(HEAD)

    def write(self, data: bytes) -> None:
        """Send bytes of the answer."""
        assert self._writer is not None
        self._writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        self._writer = writer
        self._asked.set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve until the block ends; yield the base URL."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        if self._writer is not None:
            self._writer.close()
        server.close()


class _Loop(uvloop.Loop):
    """A loop of several in a process.

    gRPC has one queue for all of them, in which calls that were cancelled end later, when their loop may be closed:
    whichever loop finds that hands it on, to nobody, and not to an error that keeps it from what follows.
    """

    def call_soon_threadsafe(  # type: ignore[override]  # that of asyncio says more than gRPC asks
        self, callback: Any, *args: Any, context: Any = None
    ) -> Any:
        try:
            return super().call_soon_threadsafe(callback, *args, context=context)
        except RuntimeError:
            if not self.is_closed():
                raise
        return None


class Thread:
    """A thread with a loop, as a process of its own would have one."""

    def __init__(self) -> None:
        self._loop = _Loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.running = AsyncExitStack()
        self.walk = Walk()

    async def do(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Do something in it."""
        future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        return await asyncio.wait_for(asyncio.wrap_future(future), TIMEOUT_S)

    async def close(self) -> None:
        """End it."""
        await self.do(self.running.aclose)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _text(thread: Thread, catalogue: Path) -> int:
    config = TextSettings(service_token=SecretStr(SERVICE_TOKEN), catalogue=catalogue, listen="127.0.0.1:0", drain_s=0)
    served = await thread.running.enter_async_context(SERVICE.serve(config, {"OPENAI_API_KEY": "sk-test"}))
    return served.port


async def _router(
    thread: Thread,
    folder: Path,
    catalogue: Path,
    text_port: int,
    admission: Callable[[], Coroutine[Any, Any, Any]] | None,
    request_log: Callable[[], Coroutine[Any, Any, Any]] | None,
) -> int:
    config = RouterSettings(
        service_token=SecretStr(SERVICE_TOKEN), listen="127.0.0.1:0", store_dir=folder, public_url="http://x", drain_s=0
    )
    watched = Watched(catalogue, {"OPENAI_API_KEY": "sk-test"})
    to_text: Any = SessionChannel(channel(f"127.0.0.1:{text_port}"), service_token=SERVICE_TOKEN)
    thread.running.push_async_callback(to_text.close)
    await to_text.look()
    backends = Backends({"text": to_text}, service_token=SERVICE_TOKEN, catalogue=lambda: watched.now)
    thread.running.push_async_callback(backends.aclose)
    played = Played()
    around = Around(
        catalogue=lambda: watched.now,
        refused=str,
        admission=await admission() if admission else played,
        claims=None,
        responses=PlayedResponses(),
        backends=backends,
        states=played.states,
        store=FolderStore(folder),
        links=links_of(config),
        egress=await thread.running.enter_async_context(aclosing(Egress([]))),
        request_log=await request_log() if request_log else None,
    )
    return await thread.running.enter_async_context(serving(config, around))


@asynccontextmanager
async def services(
    folder: Path,
    base_url: str,
    admission: Callable[[Thread], Coroutine[Any, Any, Any]] | None = None,
    request_log: Callable[[Thread], Coroutine[Any, Any, Any]] | None = None,
) -> AsyncIterator[tuple[int, Thread, Thread]]:
    """Run a router over a text service over OpenAI's API at an address; yield the router's port and both threads.

    `admission` makes what admits, in the router's thread, and `request_log` then what takes logged requests; without
    them admission is played, and nothing is logged.
    """
    threads = Thread(), Thread()
    router, text = threads
    try:
        catalogue = folder / "catalogue.yaml"
        provider = {"id": "openai-text", "adapter": "openai", "makes": "text", "base_url": base_url}
        credentials = {"credentials": {"api_key": "OPENAI_API_KEY"}}
        model = {"id": MODEL, "provider": "openai-text", "capabilities": ["tools"]}
        shipped.written(catalogue, [{**provider, **credentials}], [model])
        text_port = await text.do(lambda: _text(text, catalogue))
        admits = partial(admission, router) if admission else None
        logs = partial(request_log, router) if request_log else None
        yield await router.do(lambda: _router(router, folder, catalogue, text_port, admits, logs)), router, text
    finally:
        for thread in threads:
            await thread.close()


async def walked(folder: Path, count: int) -> tuple[Counter[str], Counter[str]]:
    """Return how often modules were passed in the router and in the text service while `count` deltas passed."""
    upstream = Upstream()
    async with upstream.serving() as base_url, services(folder, base_url) as (port, router, text):
        return await _passed(upstream, port, router, text, count)


async def _passed(
    upstream: Upstream, port: int, router: Thread, text: Thread, count: int
) -> tuple[Counter[str], Counter[str]]:
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    request = httpbody_pb2.HttpBody(content_type="application/json", data=json.dumps(body).encode())
    async with channel(f"127.0.0.1:{port}") as link:
        stub: Any = openai_service_pb2_grpc.OpenAIServiceStub(link)
        call = stub.CreateChatCompletion(request, metadata=(("authorization", f"Bearer {KEY}"),), timeout=TIMEOUT_S)
        await upstream.begun()
        # The head's piece has no text: what comes first is the first delta.
        upstream.write(TOKEN)
        await call.read()
        for thread in (router, text):
            await thread.do(soon(thread.walk.begin))
        for _ in range(count):
            upstream.write(TOKEN)
            assert b" token" in (await call.read()).data
        passed = [await thread.do(soon(thread.walk.end)) for thread in (router, text)]
        upstream.write(TAIL)
        while (message := await call.read()) and b"[DONE]" not in message.data:
            pass
    return passed[0], passed[1]


def soon(work: Callable[[], Any]) -> Callable[[], Coroutine[Any, Any, Any]]:
    """Return a function as `Thread.do` takes it."""

    async def done() -> Any:
        return work()

    return done
