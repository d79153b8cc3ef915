"""The router with the text service in its process, behind the real edge (`MOA_COLOCATE=text`)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from deploy.local.ports import Ports
from tests import stacks
from tests.e2e.conftest import Gateway
from tests.e2e.draining import drains
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.script import Counts, Script
from tests.tasks.system import until

MODEL = "gpt-4o-mini"
MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[tuple[Gateway, OpenAIEmulator]]:
    """Yield a gateway whose router asks its provider itself, and the provider."""
    upstream = OpenAIEmulator()
    await upstream.start(port := Ports().any())
    provider = {"id": "cloud", "adapter": "openai", "makes": "text", "base_url": f"http://127.0.0.1:{port}/v1"}
    catalogue = tmp_path / "catalogue.yaml"
    row = {"id": MODEL, "provider": "cloud", "context_tokens": 128_000}
    rows = {"providers": [{**provider, "credentials": {"api_key": "CLOUD_KEY"}}], "models": [row]}
    catalogue.write_bytes(msgspec.yaml.encode(rows))
    environment = {"MOA_CATALOGUE": str(catalogue), "CLOUD_KEY": "sk-good", "MOA_COLOCATE": "text", "MOA_DRAIN_S": "30"}
    stack = stacks.gateway(tmp_path / "state", environment=environment, processes=("auth", "text", "router", "edge"))
    with stack:
        yield Gateway(stack), upstream
    await upstream.stop()


async def test_one_process_answers_by_every_law(running: tuple[Gateway, OpenAIEmulator]) -> None:
    """Whole and streamed answers are charged once as the provider counts, its refusals keep their words, both halves
    have their log lines and metrics, and a stop lets an answer end."""
    gateway, upstream = running
    assert set(gateway.stack.names) == {"auth", "router", "edge"}
    counts = Counts(prompt=7, completion=2)
    client = openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key=gateway.key, max_retries=0)
    async with client:
        ask = client.chat.completions.create
        upstream.scripts.append(Script(text=("Hi ", "there."), counts=counts))
        whole = await ask(model=MODEL, messages=MESSAGES, max_tokens=9)
        assert (whole.choices[0].message.content, whole.usage and whole.usage.total_tokens) == ("Hi there.", 9)
        upstream.scripts.append(Script(refuse="context_too_long"))
        with pytest.raises(openai.BadRequestError) as refused:
            await ask(model=MODEL, messages=MESSAGES, max_tokens=9)
        assert refused.value.code == "context_length_exceeded"
        held = Script(text=("Hi ", "there."), counts=counts, hold_at=1)
        upstream.scripts.append(held)
        stream = await ask(model=MODEL, messages=MESSAGES, max_tokens=9, stream=True)
        first = await anext(aiter(stream))
        metrics = await asyncio.to_thread(gateway.metrics, "router")
        pid = gateway.stack.pid("router")
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        await drains(gateway.stack.address("router"))
        held.gate.set()
        rest = [chunk async for chunk in stream]
    assert first.id == rest[-1].id
    assert rest[-1].choices[0].finish_reason == "stop"
    for method in ("moa.router.v1.OpenAIService/CreateChatCompletion", "moa.text.v1.TextService/GenerateWholeText"):
        assert f'method="/{method}"' in metrics
    await asyncio.to_thread(gateway.stack.await_ready, "router")
    await asyncio.to_thread(until, lambda: used(gateway) == [(14, 4)], what="the settlement of all that was answered")
    # The last line may be half written.
    log, _, _ = gateway.stack.log("router").read_text().rpartition("\n")
    lines = [json.loads(line) for line in log.splitlines()]
    finished = [line for line in lines if line["event"] == "rpc.finished" and "TextService" in line["method"]]
    assert {line["code"] for line in finished} == {"OK", "INVALID_ARGUMENT"}


def used(gateway: Gateway) -> list[tuple[int, int]]:
    """Return what was booked of each model, prompts and completions; none where the answer is no success."""
    rows = gateway.get("/account/usage?group_by=model").json().get("rows", [])
    return [(int(row["prompt_tokens"]), int(row["completion_tokens"])) for row in rows]
