"""Large bodies, served, refused and abandoned: no process keeps them."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil
import pytest
import requests
from PIL import Image

from deploy.local.ports import Ports
from deploy.local.stack import Stack
from tests import stacks, waiting
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.script import Script

BODIES = int(os.environ.get("MOA_MEMORY_BODIES", "8"))
"""Of each kind."""
LEFT_MB = 40
"""How much more memory than before a process may have afterwards."""
PROCESSES = ("auth", "text", "tasks", "router")


def noise() -> str:
    """Make a picture of three megabytes that nothing makes smaller, as a data URI of four."""
    out = BytesIO()
    Image.frombytes("RGB", (1000, 1000), os.urandom(3_000_000)).save(out, "PNG", compress_level=0)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


PICTURE = noise()


@dataclass(frozen=True)
class Place:
    """A gateway whose processes can be looked at, and the provider behind it."""

    stack: Stack
    upstream: OpenAIEmulator

    def megabytes(self) -> dict[str, float]:
        """Return the memory of each process."""
        return {name: psutil.Process(self.stack.pid(name)).memory_info().rss / 2**20 for name in PROCESSES}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, int]]:
    root: Path = tmp_path_factory.mktemp("memory")
    port = Ports().any()
    provider = {
        "id": "cloud",
        "adapter": "openai",
        "makes": "text",
        "base_url": f"http://127.0.0.1:{port}/v1",
        "credentials": {"api_key": "CLOUD_KEY"},
        "timeouts": {"connect_s": 30, "first_token_s": 60, "idle_s": 60},
    }
    model = {"id": "gpt-4o-mini", "provider": "cloud", "capabilities": ["vision"]}
    catalogue = root / "catalogue.yaml"
    catalogue.write_bytes(msgspec.yaml.encode({"providers": [provider], "models": [model]}))
    environment = {"MOA_CATALOGUE": str(catalogue), "CLOUD_KEY": "sk-good"}
    names = ("auth", "text", "tasks", "router", "edge")
    with stacks.gateway(root / "state", environment=environment, processes=names) as running:
        yield running, port


@pytest.fixture
async def place(stack: tuple[Stack, int]) -> AsyncIterator[Place]:
    upstream = OpenAIEmulator()
    await upstream.start(stack[1])
    yield Place(stack[0], upstream)
    await upstream.stop()


Ask = Callable[[aiohttp.ClientSession, Place], Awaitable[int]]


async def _post(session: aiohttp.ClientSession, place: Place, path: str, body: Any, key: str = "") -> int:
    headers = {"Authorization": f"Bearer {key or place.stack.api_key}", "X-API-Key": key or place.stack.api_key}
    async with session.post(place.stack.url + path, data=BytesIO(json.dumps(body).encode()), headers=headers) as answer:
        await answer.read()
        place.upstream.seen.clear()
        return answer.status


def _chat(model: str = "gpt-4o-mini") -> dict[str, Any]:
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    return {"model": model, "messages": [{"role": "user", "content": parts}], "max_tokens": 5}


async def accepted(session: aiohttp.ClientSession, place: Place) -> int:
    return await _post(session, place, "/v1/chat/completions", _chat())


async def of_a_stranger(session: aiohttp.ClientSession, place: Place) -> int:
    # The edge refuses it amid its body, which aiohttp's transport would go on sending behind the answer.
    post = functools.partial(requests.post, json=_chat(), headers={"X-API-Key": "moa-nobodys"}, timeout=30)
    return (await asyncio.to_thread(post, place.stack.url + "/v1/chat/completions")).status_code


async def of_no_model(session: aiohttp.ClientSession, place: Place) -> int:
    return await _post(session, place, "/v1/chat/completions", _chat("nobodys"))


async def refused_by_the_provider(session: aiohttp.ClientSession, place: Place) -> int:
    place.upstream.scripts.append(Script(refuse="upstream_rejected"))
    return await _post(session, place, "/v1/chat/completions", _chat())


async def of_no_task(session: aiohttp.ClientSession, place: Place) -> int:
    return await _post(session, place, "/v1/tasks", {"image": {"prompt": "x" * 4_000_000, "model": "nobodys"}})


async def abandoned(session: aiohttp.ClientSession, place: Place) -> int:
    """Leave when the provider has the request."""
    script = Script(hold_at=0)
    place.upstream.scripts.append(script)
    asking = asyncio.create_task(_post(session, place, "/v1/chat/completions", _chat()))
    await asyncio.wait_for(script.held.wait(), 120)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.wait_for(script.left.wait(), 120)
    place.upstream.seen.clear()
    return 0


KINDS: list[tuple[Ask, set[int]]] = [
    (accepted, {200}),
    (of_a_stranger, {401}),
    (of_no_model, {404}),
    (refused_by_the_provider, {400}),
    (of_no_task, {422}),
    (abandoned, {0}),
]


@pytest.mark.timeout(300)  # a dozen megabytes through five processes, slower where the cores are shared
@pytest.mark.parametrize(("ask", "statuses"), KINDS, ids=[ask.__name__ for ask, _ in KINDS])
async def test_no_process_keeps_bodies_whose_requests_are_over(place: Place, ask: Ask, statuses: set[int]) -> None:
    """Requests of four megabytes each are served, refused or left, one after another. Afterwards, with no other
    traffic, every process has about the memory that it had."""
    async with aiohttp.ClientSession() as session:
        await ask(session, place)
        before = place.megabytes()
        assert {await ask(session, place) for _ in range(BODIES)} <= statuses

    def kept() -> dict[str, float]:
        return {name: now - before[name] for name, now in place.megabytes().items() if now > before[name] + LEFT_MB}

    # Each gives back by itself, a while after the last: later where others have the cores.
    until, pauses = time.monotonic() + 120, waiting.pauses()
    while left := kept():
        assert time.monotonic() < until, f"kept, in megabytes: {left}"
        await asyncio.sleep(next(pauses))
