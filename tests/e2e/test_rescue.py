"""Streams that break in the middle, behind the real edge, and go on at another provider; what the ledger says then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import msgspec
import openai
import psycopg
import pytest

from deploy.local.ports import Ports
from deploy.local.stack import Stack
from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc
from tests import stacks, waiting
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.script import Counts, Script

MESSAGES: list[Any] = [{"role": "user", "content": "Tell me a story."}]
PIECES = ("Once ", "upon ", "a ", "time ", "there ", "was ", "a ", "cat.")
ON, ANEW = "goes-on", "begins-anew"
"""Models of the second provider: one takes a prefill."""


@dataclass(frozen=True)
class Pair:
    """A gateway, the provider that was asked for, and the one that goes on."""

    stack: Stack
    main: OpenAIEmulator
    spare: OpenAIEmulator

    def breaks(self, at: int, how: str = "cut_at") -> None:
        """Let the first provider's next stream break in place of a piece."""
        self.main.scripts.append(Script(text=PIECES, together=True, **{how: at}))  # type: ignore[arg-type]

    def rows(self) -> list[tuple[str, str, int, int, int, bool]]:
        """Return what the ledger closed with a charge: kind, model, tokens, of prompt and completion, exact."""
        with psycopg.connect(self.stack.database_url) as link:
            return link.execute(
                "select kind, model, tokens, prompt_tokens, completion_tokens, exact from ledger"
                " where kind in ('settle', 'orphan', 'late') and tokens <> 0 order by id"
            ).fetchall()

    def open(self) -> int:
        """Count the reservations that auth takes for running."""
        with psycopg.connect(self.stack.database_url) as link:
            row = link.execute("select count(*) from open_reservations").fetchone()
        assert row is not None
        return int(row[0])

    async def charged(self, before: int) -> Any:
        """Return the one row that the ledger has more than before."""
        await until(lambda: len(self.rows()) > before)
        [row] = self.rows()[before:]
        return row

    async def asked(self, model: str, path: str = "/v1/chat/completions", **body: Any) -> list[dict[str, Any]]:
        """Stream an answer; give its events."""
        sent = {"messages": MESSAGES, "stream": True, "max_tokens": 100, **body}
        sent["model" if path.startswith("/v1") else "model_id"] = model
        headers = {"X-API-Key": self.stack.api_key}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.stack.url + path, json=sent, headers=headers) as answer,
        ):
            assert answer.status == 200, await answer.text()
            lines = (await answer.read()).decode().split("\n\n")
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


async def until(true: Callable[[], bool], *, within_s: float = 90.0) -> None:
    """Wait for a condition of another process that nothing announces."""
    async with asyncio.timeout(within_s):
        pauses = waiting.pauses()
        while not await asyncio.to_thread(true):
            await asyncio.sleep(next(pauses))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, int, int]]:
    root: Path = tmp_path_factory.mktemp("rescue")
    ports = Ports()
    main, spare = ports.any(), ports.any()
    providers = [
        {
            "id": name,
            "adapter": "openai",
            "makes": "text",
            "base_url": f"http://127.0.0.1:{port}/v1",
            "credentials": {"api_key": "KEY"},
            "timeouts": {"connect_s": 5, "first_token_s": 60, "idle_s": idle_s},
        }
        for name, port, idle_s in (("main", main, 60), ("restless", main, 1), ("spare", spare, 60))
    ]
    models: list[dict[str, Any]] = [
        {"id": f"{provider}-{other}", "provider": provider, "upstream": "gpt-4o-mini", "fallback": [other]}
        for provider in ("main", "restless")
        for other in (ON, ANEW)
    ]
    models += [
        {"id": ON, "provider": "spare", "upstream": "gpt-4o", "capabilities": ["prefill"]},
        {"id": ANEW, "provider": "spare", "upstream": "gpt-4o-mini"},
    ]
    catalogue = root / "catalogue.yaml"
    catalogue.write_bytes(msgspec.yaml.encode({"providers": providers, "models": models}))
    environment = {"MOA_CATALOGUE": str(catalogue), "KEY": "sk-good", "MOA_LEFT_CALL_S": "1"}
    names = ("auth", "text", "router", "edge")
    with stacks.gateway(root / "state", environment=environment, processes=names) as running:
        yield running, main, spare


@pytest.fixture
async def pair(stack: tuple[Stack, int, int]) -> AsyncIterator[Pair]:
    running, main_port, spare_port = stack
    main, spare = OpenAIEmulator(), OpenAIEmulator()
    await main.start(main_port)
    await spare.start(spare_port)
    yield Pair(running, main, spare)
    await main.stop()
    await spare.stop()


@pytest.mark.parametrize(("asked", "how"), [("main", "cut_at"), ("main", "clip_at"), ("restless", "hold_at")])
async def test_another_provider_goes_on(pair: Pair, asked: str, how: str) -> None:
    """The official client reads one answer; the second provider was given what the first had said; the last chunks name
    it; one row charges what both gave, by the second's counts, and names it."""
    before = len(await asyncio.to_thread(pair.rows))
    pair.breaks(3, how)
    pair.spare.scripts.append(Script(text=(" time ", "there was ", "a cat."), counts=Counts(prompt=10, completion=6)))
    async with openai.AsyncOpenAI(base_url=pair.stack.url + "/v1", api_key=pair.stack.api_key, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=f"{asked}-{ON}", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert said == "Once upon a time there was a cat."
    assert (chunks[0].model, chunks[-1].model) == (f"{asked}-{ON}", ON)
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == ["stop"]
    assert pair.spare.seen[-1].body["messages"] == [*MESSAGES, {"role": "assistant", "content": "Once upon a"}]
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 9)
    assert await pair.charged(before) == ("settle", ON, 16, 7, 9, False)


async def test_a_provider_that_says_the_same_again_goes_on_too(pair: Pair) -> None:
    """What was delivered is not shown twice, and the counts are the second's own; the native stream's end names it."""
    before = len(await asyncio.to_thread(pair.rows))
    pair.breaks(4)
    pair.spare.scripts.append(Script(text=PIECES, counts=Counts(prompt=7, completion=8)))
    events = await pair.asked(f"main-{ANEW}", "/generate/text")
    assert "".join(event.get("response", "") for event in events) == "".join(PIECES)
    assert events[-1]["model_id"] == ANEW
    assert events[-1]["usageMetadata"]["totalTokenCount"] == 15
    assert await pair.charged(before) == ("settle", ANEW, 15, 7, 8, True)


async def test_another_story_is_not_sewn_on(pair: Pair) -> None:
    """The caller reads the first's words and an error, in its dialect, never a clean end; the second's socket is
    closed, and what was delivered is charged."""
    before = len(await asyncio.to_thread(pair.rows))
    pair.breaks(2)
    other = Script(text=("Once ", "there ", "was "), linger=True)
    pair.spare.scripts.append(other)
    events = await pair.asked(f"main-{ANEW}")
    said = "".join(c["delta"].get("content") or "" for e in events for c in e.get("choices", ()))
    assert said == "Once upon "
    assert events[-1]["error"]["code"] == "upstream_broken"
    await asyncio.wait_for(other.left.wait(), 90)
    kind, model, tokens, prompt, completion, exact = await pair.charged(before)
    assert (kind, model, completion, exact) == ("settle", f"main-{ANEW}", 2, False)
    assert tokens == prompt + completion
    assert "moa_rescues_total" in await asyncio.to_thread(metrics, pair)


def metrics(pair: Pair) -> str:
    import requests

    return requests.get(f"{pair.stack.internal_url}/metrics/router", timeout=60).text


async def test_grpc_hears_who_goes_on(pair: Pair) -> None:
    """A second `started` event names the second; one `finished` event ends the stream."""
    before = len(await asyncio.to_thread(pair.rows))
    pair.breaks(2)
    pair.spare.scripts.append(Script(text=(" a time.",)))
    request = text_service_pb2.GenerateTextRequest(model=f"main-{ON}", stream=True)
    request.messages.add(role=text_pb2.ROLE_USER).parts.add(text="Tell me a story.")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{pair.stack.port}") as channel:
        stub: Any = text_service_pb2_grpc.TextServiceStub(channel)
        events: list[text_pb2.TextEvent] = []
        async for message in stub.GenerateText(request, metadata=(("x-api-key", pair.stack.api_key),)):
            assert message.events
            events += message.events
    started = [event.started.model for event in events if event.HasField("started")]
    assert started == [f"main-{ON}", ON]
    assert "".join(event.text.text for event in events) == "Once upon a time."
    assert [e.WhichOneof("event") for e in events if e.HasField("finished") or e.HasField("error")] == ["finished"]
    assert await pair.charged(before) == ("settle", ON, 12, 5, 7, False)


async def test_a_router_that_is_killed_meanwhile_is_charged_once(pair: Pair) -> None:
    """kill -9 of the router while the second provider goes on: the service behind it books its own count, whose prompt
    holds what the first had delivered, on the one reservation; the successor and the first add nothing."""
    before = len(await asyncio.to_thread(pair.rows))
    pair.breaks(3)
    held = Script(text=(" time ", "there ", "was ", "a ", "cat."), hold_at=2)
    pair.spare.scripts.append(held)
    async with aiohttp.ClientSession() as session:
        answer = await session.post(
            pair.stack.url + "/v1/chat/completions",
            json={"model": f"main-{ON}", "messages": MESSAGES, "stream": True, "max_tokens": 100},
            headers={"X-API-Key": pair.stack.api_key},
        )
        read = b""
        while b"there " not in read:
            assert not answer.content.at_eof(), read
            read += await answer.content.readuntil(b"\n\n")
        await asyncio.to_thread(pair.stack.kill, "router")
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
    await asyncio.wait_for(held.left.wait(), 90)
    await asyncio.to_thread(pair.stack.await_ready, "router")
    kind, model, tokens, prompt, completion, exact = await pair.charged(before)
    assert (kind, model, completion, exact) == ("settle", ON, 2, False)
    assert tokens == prompt + completion
    # The successor takes the journal up, and changes nothing.
    pair.main.scripts.append(Script(text=PIECES, counts=Counts(prompt=1, completion=1)))
    await pair.asked(f"main-{ON}")
    await until(lambda: len(pair.rows()) == before + 2)
    await until(lambda: not pair.open())
    assert len(await asyncio.to_thread(pair.rows)) == before + 2
