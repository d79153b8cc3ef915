"""A cloud provider behind the real edge: what its failures, silences and leavers look like to a caller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import openai
import psycopg
import pytest

from deploy.local.ports import Ports
from deploy.local.stack import Stack
from tests import stacks
from tests.e2e.conftest import Gateway
from tests.e2e.test_accounts import Person
from tests.emulators.embeddings import OpenAIEmbeddings
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.script import Script

MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]
NATIVE = {"messages": MESSAGES, "model_id": "gpt-4o-mini", "provider": "cloud"}
HASTY, RESTLESS = "hasty", "restless"
"""Models whose provider has to begin soon, or may not pause for long."""


@dataclass(frozen=True)
class Cloud:
    """A gateway with one cloud provider, whose emulator runs in the test's own loop."""

    gateway: Gateway
    upstream: OpenAIEmulator

    @property
    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.gateway.url + "/v1", api_key=self.gateway.key, max_retries=0)

    def play(self, **how: Any) -> Script:
        """Queue what the provider does next."""
        script = Script(**how)
        self.upstream.scripts.append(script)
        return script


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, int]]:
    """A gateway whose provider listens at a port of ours; how long it may be silent is the model's affair."""
    root: Path = tmp_path_factory.mktemp("cloud")
    port = Ports().any()
    provider = {
        "adapter": "openai",
        "makes": "text",
        "base_url": f"http://127.0.0.1:{port}/v1",
        "credentials": {"api_key": "CLOUD_KEY"},
    }
    model = {"context_tokens": 128_000, "capabilities": ["tools", "vision"]}
    # A request to `cloud` ends by nothing but its answer or its caller's leaving, however slow the machine.
    rows = (("cloud", "gpt-4o-mini", 60, 60), ("hasty", HASTY, 0.5, 60), ("restless", RESTLESS, 60, 1))
    providers: list[dict[str, Any]] = []
    models: list[dict[str, Any]] = []
    for name, model_id, first_token_s, idle_s in rows:
        timeouts = {"connect_s": 5, "first_token_s": first_token_s, "idle_s": idle_s}
        providers.append({**provider, "id": name, "timeouts": timeouts})
        models.append({**model, "id": model_id, "provider": name, "upstream": "gpt-4o-mini"})
    providers.append({**provider, "id": "batched", "batch_price_factor": 0.5})
    priced = {"prices": {"input": 3.0, "output": 15.0}}
    models.append({**model, **priced, "id": "gpt-batched", "provider": "batched", "upstream": "gpt-4o-mini"})
    providers.append({**provider, "id": "embedding", "makes": "embedding", "options": {"base64": True, "batch": 2}})
    embedding = {"id": "text-embedding-3-small", "provider": "embedding", "context_tokens": 8_191}
    models.append({**embedding, "prices": {"input": 20.0}})
    models.append({"id": "bge-*", "provider": "embedding"})
    catalogue = root / "catalogue.yaml"
    catalogue.write_bytes(msgspec.yaml.encode({"providers": providers, "models": models}))
    environment = {"MOA_CATALOGUE": str(catalogue), "CLOUD_KEY": "sk-good"}
    names = ("auth", "text", "tasks", "router", "edge")
    with stacks.gateway(root / "state", environment=environment, processes=names) as running:
        yield running, port


@pytest.fixture
async def cloud(stack: tuple[Stack, int]) -> AsyncIterator[Cloud]:
    """The gateway, with its provider answering."""
    upstream = OpenAIEmbeddings()
    # The gateway may have read its list by then, or not.
    upstream.newer.add("bge-m3")
    await upstream.start(stack[1])
    yield Cloud(Gateway(stack[0]), upstream)
    await upstream.stop()


async def test_embeddings_are_booked_and_counted_as_the_provider_reports(cloud: Cloud) -> None:
    """Of a request that takes two calls the usage in the ledger, the tokens, their cost and the answers are counted
    once each; a refusal of the provider costs nothing. Of a model whose price nobody knows no cost is told."""

    def counted(name: str) -> float:
        lines = cloud.gateway.metrics("router").splitlines()
        mine = [line for line in lines if line.startswith(f"{name}{{") and "text-embedding-3-small" in line]
        return sum(float(line.rpartition(" ")[2]) for line in mine)

    def booked() -> dict[str, Any]:
        rows = cloud.gateway.get("/account/usage?group_by=model,provider").json().get("rows", [])
        return {row["model"]: row for row in rows if row["provider"] == "embedding"}

    async with cloud.client as client:
        raw = await client.embeddings.with_raw_response.create(
            model="text-embedding-3-small", input=["abcd", "ef", "안녕"]
        )
        made = raw.parse()
        assert [each.embedding[0] for each in made.data] == [4.0, 2.0, 2.0]
        assert made.usage.total_tokens == 8
        assert raw.headers["x-moa-cost"] == "tokens=8"
        for _ in range(3):
            cloud.play(refuse="upstream_failed")
        with pytest.raises(openai.InternalServerError):
            await client.embeddings.create(model="text-embedding-3-small", input="a")
        for model in ("text-embedding-3-small", "bge-m3"):
            await client.embeddings.create(model=model, input="a")
    assert counted("moa_tokens_total") == 9
    assert counted("moa_cost_usd_total") == pytest.approx(9 * 20 / 1e6)
    assert counted("moa_first_event_seconds_count") == 2
    async with asyncio.timeout(90):
        while sum(int(row["prompt_tokens"]) for row in booked().values()) < 10:
            await asyncio.sleep(0.1)
    rows = booked()
    known, new = rows["text-embedding-3-small"], rows["bge-m3"]
    assert (known["prompt_tokens"], known["charged_nano_usd"], known["unpriced_requests"]) == ("9", "180000", 0)
    assert (new["prompt_tokens"], new.get("charged_nano_usd"), new["unpriced_requests"]) == ("1", None, 1)


async def test_a_batch_is_answered_by_its_providers_batch_api_for_its_price(cloud: Cloud) -> None:
    """Each request has its answer, and is booked once, at half the price, though the task service is killed while the
    provider has them; a caller may want it the ordinary way."""
    batches = cloud.upstream.batches
    batches.ends_at_once = False

    def rests() -> bool:
        """Return whether the batch is known to be at its provider, and nobody looks at it now."""
        with psycopg.connect(cloud.gateway.stack.database_url) as link:
            found = link.execute("select 1 from tasks.provider_batches where state = 2 and leased_until is null")
            return found.fetchone() is not None

    async def ended(how: str) -> dict[str, Any]:
        params = {"model": "gpt-batched", "max_tokens": 32, "messages": [{"role": "user", "content": "hi"}]}
        body = {"requests": [{"custom_id": name, "params": params} for name in ("one", "two")]}
        headers = {"x-api-key": cloud.gateway.key, "moa-batch": how}
        async with aiohttp.ClientSession(cloud.gateway.url, headers=headers) as session:
            async with session.post("/v1/messages/batches", json=body) as made:
                path = f"/v1/messages/batches/{(await made.json())['id']}"
            async with asyncio.timeout(120):
                if how == "provider":
                    while not await asyncio.to_thread(rests):
                        await asyncio.sleep(0.05)
                    await asyncio.to_thread(cloud.gateway.stack.kill, "tasks")
                    batches.end(batches.made[0])
                while True:
                    async with session.get(path) as got:
                        if got.status == 200 and (await got.json())["processing_status"] == "ended":
                            break
                    await asyncio.sleep(0.1)
            async with session.get(f"{path}/results") as got:
                lines = [json.loads(line) for line in (await got.text()).splitlines()]
        return {line["custom_id"]: line["result"] for line in lines}

    async def booked(requests: int) -> int:
        async with asyncio.timeout(90):
            while True:
                rows = cloud.gateway.get("/account/usage?group_by=model").json().get("rows", [])
                for row in rows:
                    if row["model"] == "gpt-batched" and int(row["requests"]) == requests:
                        return int(row["charged_nano_usd"])
                await asyncio.sleep(0.1)

    for result in (await ended("provider")).values():
        message = result["message"]
        assert (message["type"], message["model"], message["stop_reason"]) == ("message", "gpt-batched", "end_turn")
        assert message["content"][0]["text"] == "Hello 안녕 🌍!"
        assert message["usage"]["output_tokens"] == 5
    assert [len(made.lines) for made in batches.made] == [2]
    cost = 7 * 3_000 + 5 * 15_000
    assert await booked(2) == cost
    assert (await ended("ordinary")).keys() == {"one", "two"}
    assert len(batches.made) == 1
    assert await booked(4) == 3 * cost


REASONS = {
    "upstream_auth": (502, openai.InternalServerError),
    "upstream_rate_limited": (429, openai.RateLimitError),
    "upstream_overloaded": (503, openai.InternalServerError),
    "upstream_failed": (502, openai.InternalServerError),
    "context_too_long": (400, openai.BadRequestError),
    "content_policy": (400, openai.BadRequestError),
}
PASSING = ("upstream_overloaded", "upstream_failed")
"""What is asked again, twice at most."""


@pytest.mark.parametrize(("reason", "known"), REASONS.items(), ids=REASONS.keys())
async def test_a_providers_refusal_keeps_its_meaning(cloud: Cloud, reason: str, known: tuple[int, Any]) -> None:
    """Each refusal reaches the official client with the right status and class; the gateway's key is never the
    caller's 401, and a retry time is passed on."""
    for _ in range(3 if reason in PASSING else 1):
        cloud.play(refuse=reason, retry_after_s=7 if reason == "upstream_rate_limited" else None)
    status, kind = known
    async with cloud.client as client:
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    assert caught.value.status_code == status
    if reason == "upstream_rate_limited":
        assert caught.value.response.headers["retry-after"] == "7"


async def test_silence_before_the_first_token_is_504(cloud: Cloud) -> None:
    """A provider that takes the request and says nothing is a timeout, in the dialect, and its socket is closed."""
    script = cloud.play(hold_at=-1)
    async with cloud.client as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(model=HASTY, messages=MESSAGES, max_tokens=8)
    assert caught.value.status_code == 504
    assert caught.value.code == "upstream_timeout"
    await asyncio.wait_for(script.left.wait(), 90)


async def test_a_provider_that_is_down_is_502_or_503(cloud: Cloud) -> None:
    """Nobody listens: the caller reads it as the provider's fault, after two more tries."""
    await cloud.upstream.stop()
    async with cloud.client as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    assert caught.value.status_code in (502, 503)


@pytest.mark.parametrize(
    ("model", "how"),
    [
        ("gpt-4o-mini", {"cut_at": 2}),
        ("gpt-4o-mini", {"clip_at": 2}),
        # In one write: on a busy machine a pause amid it would end the stream before its second piece.
        (RESTLESS, {"hold_at": 2, "together": True}),
    ],
    ids=["cut", "clipped", "silent"],
)
async def test_a_stream_that_breaks_ends_in_an_error_event(cloud: Cloud, model: str, how: dict[str, Any]) -> None:
    """After the first byte a failure is an event that the official client raises, never a clean end."""
    cloud.play(**how)
    got: list[str] = []
    async with cloud.client as client:
        stream = await client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError):  # noqa: PT012  # it breaks on the way
            async for chunk in stream:
                got += [choice.delta.content or "" for choice in chunk.choices]
    assert "".join(got) == "Hello "


async def test_reasoning_comes_apart_from_the_answer(cloud: Cloud) -> None:
    """Asked for, reasoning has events of its own; not asked for, it is left out; either way it is no answer."""
    for include in (True, False):
        cloud.play(reasoning=("Let me ", "think."), text=("Four", "."))
        events = await streamed(cloud, {**NATIVE, "stream": True, "include_reasoning": include})
        assert "".join(e.get("response", "") for e in events) == "Four."
        assert "".join(e.get("reasoning", "") for e in events) == ("Let me think." if include else "")


async def test_leaving_closes_the_providers_socket(cloud: Cloud) -> None:
    """A caller that hangs up mid-stream ends the upstream request too."""
    script = cloud.play(hold_at=2)
    async with aiohttp.ClientSession() as session:
        answer = await session.post(
            cloud.gateway.url + "/generate/text",
            json={**NATIVE, "stream": True},
            headers={"X-API-Key": cloud.gateway.key},
        )
        await answer.content.readuntil(b"\n\n")
        answer.close()
    await asyncio.wait_for(script.left.wait(), 90)


async def test_leaving_before_the_first_event_closes_it_too(cloud: Cloud) -> None:
    """A caller that hangs up while the provider still thinks stops it as well."""
    script = cloud.play(hold_at=-1)
    async with aiohttp.ClientSession() as session:
        asked = asyncio.create_task(
            session.post(cloud.gateway.url + "/generate/text", json=NATIVE, headers={"X-API-Key": cloud.gateway.key})
        )
        await asyncio.wait_for(script.held.wait(), 90)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    await asyncio.wait_for(script.left.wait(), 90)


async def test_a_new_account_may_not_use_the_cloud(cloud: Cloud) -> None:
    """A provider that was not granted is 403, in the native envelope and as the official client's class."""
    person = await asyncio.to_thread(Person, cloud.gateway)
    answer = await asyncio.to_thread(person.post, "/generate/text", NATIVE)
    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    async with openai.AsyncOpenAI(base_url=cloud.gateway.url + "/v1", api_key=person.key, max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError):
            await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)


async def test_an_answer_with_a_malformed_piece_is_no_success(cloud: Cloud) -> None:
    """One unreadable chunk may have held a word: what came before it stands, and an error is the end."""
    cloud.play(malformed_at=1)
    events = await streamed(cloud, {**NATIVE, "stream": True})
    assert "".join(e.get("response", "") for e in events) == "Hel"
    assert events[-1]["error"]["code"] == "upstream_broken"


async def streamed(cloud: Cloud, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events of a native stream."""
    headers = {"X-API-Key": cloud.gateway.key}
    async with (
        aiohttp.ClientSession() as session,
        session.post(cloud.gateway.url + "/generate/text", json=body, headers=headers) as answer,
    ):
        assert answer.status == 200, await answer.text()
        lines = (await answer.read()).decode().split("\n\n")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
