"""A cloud's stream whose service dies under it goes on at a model of one's own, on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psycopg
import pytest

from deploy.local.ports import Ports
from deploy.local.stack import REPOSITORY, Stack
from tests import stacks
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.script import Script

LOCAL = "moa-tiny-chat"
ASK = {
    "model": "cloud",
    "messages": [{"role": "user", "content": "Tell me a story about a fox."}],
    "stream": True,
    "max_tokens": 60,
    "temperature": 0,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, int]]:
    """A gateway whose text service may be killed, and the port of its cloud."""
    root: Path = tmp_path_factory.mktemp("local-rescue")
    port = Ports().any()
    timeouts = {"connect_s": 30, "first_token_s": 120, "idle_s": 5}
    providers = [
        {
            "id": "cloud",
            "adapter": "openai",
            "makes": "text",
            "base_url": f"http://127.0.0.1:{port}/v1",
            "credentials": {"api_key": "CLOUD_KEY"},
            "timeouts": timeouts,
        },
        {"id": "local-text", "adapter": "inference", "makes": "text", "timeouts": timeouts},
    ]
    models = [
        {"id": "cloud", "provider": "cloud", "upstream": "gpt-4o-mini", "fallback": [LOCAL]},
        {
            "id": LOCAL,
            "provider": "local-text",
            "context_tokens": 512,
            "capabilities": ["prefill"],
            "load": {"source": str(REPOSITORY / "inference/models" / LOCAL)},
        },
    ]
    catalogue = root / "catalogue.yaml"
    catalogue.write_bytes(msgspec.yaml.encode({"providers": providers, "models": models}))
    environment = {
        "MOA_CATALOGUE": str(catalogue),
        "CLOUD_KEY": "sk-good",
    }
    names = ("auth", "text", "inference", "router", "edge")
    with stacks.gateway(root / "state", environment=environment, processes=names) as stack:
        yield stack, port


@pytest.fixture
async def cloud(running: tuple[Stack, int]) -> AsyncIterator[tuple[Stack, OpenAIEmulator]]:
    """The gateway, with every service up and its cloud answering."""
    stack, port = running
    await asyncio.to_thread(stack.await_ready, "text")
    upstream = OpenAIEmulator()
    await upstream.start(port)
    yield stack, upstream
    await upstream.stop()


async def whole(session: aiohttp.ClientSession, stack: Stack, **headers: str) -> Any:
    """Ask, and read an answer in one piece."""
    headers["X-API-Key"] = stack.api_key
    asked = session.post(stack.url + "/v1/chat/completions", json={**ASK, "stream": False}, headers=headers)
    async with asked as answer:
        return await answer.json()


async def begun(session: aiohttp.ClientSession, stack: Stack, upstream: OpenAIEmulator) -> tuple[Any, bytes]:
    """Ask, and read the first words of the cloud's answer, which then holds; give the response and what was read."""
    upstream.scripts.append(Script(text=("Once ", "upon ", "a ", "time"), hold_at=3))
    answer = await session.post(stack.url + "/v1/chat/completions", json=ASK, headers={"X-API-Key": stack.api_key})
    assert answer.status == 200
    read = b""
    while b'"a "' not in read:
        assert not answer.content.at_eof(), read
        read += await answer.content.readuntil(b"\n\n")
    return answer, read


def check(read: bytes) -> None:
    """Find one whole answer, which the local model ended."""
    chunks = [json.loads(line[6:]) for line in read.decode().split("\n\n") if line.startswith("data: {")]
    choices: list[Any] = [choice for chunk in chunks for choice in chunk["choices"]]
    said = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert said.startswith("Once upon a ")
    assert len(said) > len("Once upon a ")
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    assert chunks[-1]["model"] == LOCAL


async def test_a_killed_service_takes_no_stream_with_it(cloud: tuple[Stack, OpenAIEmulator]) -> None:
    """kill -9 of the text service: the local model goes on from the words that came, the caller reads one answer, and
    the ledger has one charge, of the model that ended it; the call that died is booked as nothing."""
    stack, upstream = cloud

    def rows() -> list[tuple[str, str, int]]:
        with psycopg.connect(stack.database_url) as link:
            return link.execute(
                "select kind, model, tokens from ledger where kind in ('settle', 'orphan', 'late') order by id"
            ).fetchall()

    before = len(rows())
    async with aiohttp.ClientSession() as session:
        answer, read = await begun(session, stack, upstream)
        await asyncio.to_thread(stack.kill, "text")
        read += await answer.read()
    check(read)
    async with asyncio.timeout(90):
        while len(await asyncio.to_thread(rows)) < before + 2:
            await asyncio.sleep(0.05)
    first, second = (await asyncio.to_thread(rows))[before:]
    assert first == ("settle", "", 0)
    assert second[:2] == ("settle", LOCAL)
    assert second[2] > 6


async def test_a_frozen_service_holds_no_stream(cloud: tuple[Stack, OpenAIEmulator]) -> None:
    """The text service stands still amid a stream, with its connections open: it is given up after `idle_s`, and the
    local model goes on. When the service goes on too, it answers again."""
    stack, upstream = cloud
    pid = stack.pid("text")
    assert pid is not None
    async with aiohttp.ClientSession() as session:
        # The service may be ready before the router is connected to it again; who wants no other model waits for that.
        assert (await whole(session, stack, **{"moa-fallback": "none"}))["model"] == "cloud"
        answer, read = await begun(session, stack, upstream)
        os.kill(pid, signal.SIGSTOP)
        try:
            read += await answer.read()
        finally:
            os.kill(pid, signal.SIGCONT)
        check(read)
        upstream.scripts.append(Script(text=("Well ", "again.")))
        told = await whole(session, stack)
        assert (told["model"], told["choices"][0]["message"]["content"]) == ("cloud", "Well again.")
