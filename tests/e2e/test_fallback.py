"""A provider that fails, and another that answers in its place, behind the real edge; the ledger afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from deploy.local.stack import Stack
from services.router.domain.breaker import JITTER, LIMIT, REST_S
from tests.e2e.conftest import Gateway
from tests.e2e.pair import MESSAGES, SPARE, Pair, running
from tests.emulators.gemini import GeminiEmulator
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.script import Counts


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, int, int]]:
    """The gateway, with the ports of its providers."""
    with running(tmp_path_factory.mktemp("pair")) as made:
        yield made


@pytest.fixture
async def pair(stack: tuple[Stack, int, int]) -> AsyncIterator[Pair]:
    """The gateway, with both providers answering."""
    gateway, main_port, spare_port = stack
    main, spare = OpenAIEmulator(), GeminiEmulator()
    await main.start(main_port)
    await spare.start(spare_port)
    yield Pair(Gateway(gateway), main, spare)
    await main.stop()
    await spare.stop()


def refuse(reason: str) -> Callable[[Pair], Any]:
    return lambda pair: pair.play(pair.main, refuse=reason)


FAILURES: dict[str, Callable[[Pair], Any]] = {
    "refuses": refuse("upstream_failed"),
    "denies": refuse("upstream_auth"),
    "is-hasty": lambda pair: pair.play(pair.main, hold_at=-1),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", FAILURES)
async def test_the_fallback_answers(pair: Pair, name: str, stream: bool) -> None:
    """A 500, a refused key, silence: the next provider's answer comes, under its own name, bounded by what it can
    give, and it alone is charged, by its own counts."""
    before = await pair.booked()
    cost = await asyncio.to_thread(pair.gateway.metric, "router", "moa_cost_usd_total")
    FAILURES[name](pair)
    pair.play(pair.spare, text=("I ", "stand ", "in."), counts=Counts(prompt=9, completion=3))
    async with pair.client as client:
        asked = client.chat.completions.with_raw_response.create
        raw = await asked(model=name, messages=MESSAGES, stream=stream, max_tokens=17)
        assert (raw.headers["x-moa-provider"], raw.headers["x-moa-model"]) == ("spare", SPARE)
        answer: Any = raw.parse()
        if stream:
            chunks = [chunk async for chunk in answer]
            told = {chunk.model for chunk in chunks}
            said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        else:
            told, said = {answer.model}, answer.choices[0].message.content
            assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (9, 3)
    assert (said, told) == ("I stand in.", {SPARE})
    assert pair.spare.seen[-1].body["generationConfig"]["maxOutputTokens"] == 16
    silent = name == "is-hasty"
    assert await pair.charged(before, 2 if silent else 1) == [("spare", SPARE, 12)]
    asked_for = "hasty" if silent else "main"
    stood_in = f'moa_fallbacks_total{{by_model="{SPARE}",by_provider="spare",model="{name}",provider="{asked_for}"}}'
    assert stood_in in await asyncio.to_thread(pair.gateway.metrics, "router")
    # 9 tokens at the spare's price of a prompt, 3 at that of a completion.
    assert await asyncio.to_thread(pair.gateway.metric, "router", "moa_cost_usd_total") == cost + 7.5


async def test_a_provider_that_is_down_is_stood_in_for(pair: Pair) -> None:
    """Nobody listens: the caller notices nothing but the name."""
    await pair.main.stop()
    async with pair.client as client:
        answer = await client.chat.completions.create(model="is-down", messages=MESSAGES)
    assert answer.model == SPARE


async def test_a_sick_provider_is_left_alone_until_it_is_well(pair: Pair) -> None:
    """After five failures in a row the other answers at once and it is not even asked; after a rest one request tries
    it, and it answers again. The metric tells when it is left alone."""
    for _ in range(LIMIT):
        pair.play(pair.main, refuse="upstream_failed")
    gauge = 'moa_target_open{model="is-sick",provider="main"} '

    async with pair.client as client:

        async def asked() -> str:
            """Ask for the sick one; give who answered."""
            raw = await client.chat.completions.with_raw_response.create(model="is-sick", messages=MESSAGES)
            return str(raw.headers["x-moa-provider"])

        assert [await asked() for _ in range(LIMIT - 1)] == ["spare"] * (LIMIT - 1)
        sick_at = time.monotonic()
        assert await asked() == "spare"
        assert len(pair.main.seen) == LIMIT
        assert gauge + "1.0" in await asyncio.to_thread(pair.gateway.metrics, "router")
        async with asyncio.timeout(60):
            while await asked() != "main":
                await asyncio.sleep(0.2)
        assert time.monotonic() - sick_at > REST_S * (1 - JITTER)
        assert len(pair.main.seen) == LIMIT + 1
    assert gauge + "0.0" in await asyncio.to_thread(pair.gateway.metrics, "router")


async def test_content_policy_is_told_untried_elsewhere(pair: Pair) -> None:
    """The provider's refusal reaches the caller; the other is not asked, and nothing is charged."""
    pair.play(pair.main, refuse="content_policy")
    async with pair.client as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="is-strict", messages=MESSAGES)
    assert caught.value.code == "content_policy_violation"
    assert not pair.spare.seen


async def test_when_all_fail_the_caller_hears_what_helps(pair: Pair) -> None:
    """The first has no good key, the second is overloaded: come again. Nothing is charged, and the metrics tell of
    each failure."""
    before = await pair.booked()
    pair.play(pair.main, refuse="upstream_auth")
    for _ in range(3):
        pair.play(pair.spare, refuse="upstream_overloaded")
    async with pair.client as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="fails", messages=MESSAGES)
        assert (caught.value.status_code, caught.value.code) == (503, "upstream_overloaded")
        pair.play(pair.spare, counts=Counts(prompt=1, completion=1))
        await client.chat.completions.create(model=SPARE, messages=MESSAGES)
    assert await pair.charged(before) == [("spare", SPARE, 2)]
    text = await asyncio.to_thread(pair.gateway.metrics, "router")
    failed = 'moa_attempts_failed_total{model="%s",provider="%s",reason="%s"} %s'
    assert failed % ("fails", "main", "upstream_auth", "1.0") in text
    assert failed % (SPARE, "spare", "upstream_overloaded", "3.0") in text


async def test_a_caller_may_want_no_other(pair: Pair) -> None:
    """With `moa-fallback: none` the failure of the model that was asked for is told, and nobody else is asked."""
    pair.play(pair.main, refuse="upstream_auth")
    async with pair.client as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(
                model="is-kept", messages=MESSAGES, extra_headers={"moa-fallback": "none"}
            )
        assert caught.value.code == "upstream_auth"
        assert not pair.spare.seen
        with pytest.raises(openai.BadRequestError, match="moa-fallback"):
            await client.chat.completions.create(
                model="is-kept", messages=MESSAGES, extra_headers={"moa-fallback": "maybe"}
            )


async def test_a_virtual_model_is_listed_and_answered_by_its_targets(pair: Pair) -> None:
    """One name over two providers and two keys of one: the next answers when the first fails, and is charged by its own
    counts and prices; headers name who answered for what, and a tag chooses the other key."""
    before = await pair.booked()
    cost = await asyncio.to_thread(pair.gateway.metric, "router", "moa_cost_usd_total")
    pair.play(pair.main, refuse="upstream_failed")
    pair.play(pair.spare, text=("I ", "stand ", "in."), counts=Counts(prompt=9, completion=3))
    async with pair.client as client:
        listed = {model.id: model.owned_by async for model in client.models.list()}
        assert listed["team-fast"] == "virtual-text"
        assert not any("@" in name for name in listed)
        asked = client.chat.completions.with_raw_response.create
        raw = await asked(model="team-fast", messages=MESSAGES, max_tokens=17)
        answer = raw.parse()
        assert (answer.model, answer.choices[0].message.content) == (SPARE, "I stand in.")
        names = ("x-moa-route", "x-moa-provider", "x-moa-model")
        assert [raw.headers[name] for name in names] == ["team-fast", "spare", SPARE]
        assert await pair.charged(before) == [("spare", SPARE, 12)]
        assert await asyncio.to_thread(pair.gateway.metric, "router", "moa_cost_usd_total") == cost + 7.5
        pair.play(pair.main, counts=Counts(prompt=2, completion=1))
        raw = await asked(model="team-fast", messages=MESSAGES, extra_headers={"moa-tags": "second"})
        assert [raw.headers[name] for name in names] == ["team-fast", "main@second", "is-routed"]
        assert (await pair.charged(before, 2))[1:] == [("main@second", "is-routed", 3)]
        # 3 tokens at the price of its provider's own row.
        assert await asyncio.to_thread(pair.gateway.metric, "router", "moa_cost_usd_total") == cost + 7.5 + 1.5


async def test_a_silent_target_is_hedged_and_its_caller_pays_one(pair: Pair) -> None:
    """After 20 quick answers the first says nothing: the second is asked and answers, the first is hung up on, and
    one charge is booked, the second's."""
    async with pair.client as client:
        # As many as tell what is slow: on a busy machine one more may be hedged itself, and a tenth of all may be.
        for _ in range(20):
            pair.play(pair.main, text=("Quick.",))
            answer = await client.chat.completions.create(model="team-hedged", messages=MESSAGES, stream=True)
            assert {chunk.model async for chunk in answer} == {"is-hedged"}
    before = await pair.booked()
    silent = pair.play(pair.main, hold_at=-1)
    pair.play(pair.spare, text=("I ", "am ", "here."), counts=Counts(prompt=9, completion=3))
    async with pair.client as client:
        answer = await client.chat.completions.create(model="team-hedged", messages=MESSAGES, stream=True)
        chunks = [chunk async for chunk in answer]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "I am here."
    assert {chunk.model for chunk in chunks} == {SPARE}
    async with asyncio.timeout(60):
        await silent.left.wait()
    assert await pair.charged(before) == [("spare", SPARE, 12)]
    text = await asyncio.to_thread(pair.gateway.metrics, "router")
    assert f'moa_hedges_total{{model="{SPARE}",outcome="won",provider="spare"}} 1.0' in text
    assert 'moa_unbilled_attempts_total{model="is-hedged",provider="main",reason="hedge"} 1.0' in text


async def test_a_shadow_is_asked_and_charged_to_nobody(pair: Pair) -> None:
    """Its provider has the same prompt; the ledger has the first's charge alone, and a metric the shadow's cost."""
    before = await pair.booked()
    pair.play(pair.main, text=("Mine.",), counts=Counts(prompt=4, completion=2))
    pair.play(pair.spare, text=("Unheard.",), counts=Counts(prompt=9, completion=3))
    done = f'moa_shadows_total{{model="{SPARE}",outcome="done",provider="spare"}} 1.0'
    cost = f'moa_operator_cost_usd_total{{model="{SPARE}",provider="spare",why="shadow"}} 7.5'
    async with pair.client as client:
        answer = await client.chat.completions.create(model="team-shadowed", messages=MESSAGES, max_tokens=10)
        assert answer.choices[0].message.content == "Mine."
        async with asyncio.timeout(60):
            while done not in (text := await asyncio.to_thread(pair.gateway.metrics, "router")):
                await asyncio.sleep(0.05)
    assert cost in text
    assert pair.spare.seen[-1].body["contents"][-1]["parts"] == [{"text": "hi"}]
    assert await pair.charged(before) == [("main", "is-shadowed", 6)]


async def test_a_provider_at_its_known_limit_is_not_asked(pair: Pair) -> None:
    """One request a minute by the catalogue: the second is the fallback's; without one it is a 429 that says when,
    after as long a wait as its caller wants."""
    pair.play(pair.main, text=("First.",))
    pair.play(pair.spare, text=("Second.",))
    async with pair.client as client:
        asked = client.chat.completions.with_raw_response.create
        first, second = [await asked(model="is-limited", messages=MESSAGES) for _ in range(2)]
        assert [raw.headers["x-moa-provider"] for raw in (first, second)] == ["main", "spare"]
        alone = {"moa-fallback": "none", "moa-max-wait": "0.1"}
        with pytest.raises(openai.RateLimitError, match="provider main is at its limit") as refused:
            await asked(model="is-limited", messages=MESSAGES, extra_headers=alone)
        assert 0 < int(refused.value.response.headers["retry-after"]) <= 60
        with pytest.raises(openai.BadRequestError, match="moa-max-wait"):
            await asked(model="is-limited", messages=MESSAGES, extra_headers={"moa-max-wait": "soon"})
    assert len(pair.main.seen) == 1
    text = await asyncio.to_thread(pair.gateway.metrics, "router")
    assert 'moa_upstream_held_back_total{outcome="timeout",provider="main"} 1.0' in text


async def test_a_key_has_so_many_tokens_a_minute(pair: Pair) -> None:
    """What an answer came to is what counts; the request that would be beyond it is a 429 with the minute's headers."""
    limits = {"name": "small", "limits": {"tokens_per_minute": 400}}
    sent = {"Authorization": f"Bearer {pair.gateway.key}"}
    async with httpx.AsyncClient(base_url=pair.gateway.url, headers=sent) as rest:
        made = (await rest.post("/account/keys", json=limits)).raise_for_status().json()
    assert made["key"]["tokens_per_minute"] == 400
    pair.play(pair.spare, counts=Counts(prompt=200, completion=150))
    async with openai.AsyncOpenAI(base_url=pair.gateway.url + "/v1", api_key=made["api_key"], max_retries=0) as client:
        asked = client.chat.completions.with_raw_response.create
        raw = await asked(model=SPARE, messages=MESSAGES, max_tokens=16)
        assert raw.headers["x-ratelimit-limit-tokens"] == "400"
        with pytest.raises(openai.RateLimitError, match="400 tokens a minute for this key") as refused:
            await asked(model=SPARE, messages=[{"role": "user", "content": "hi " * 240}], max_tokens=16)
    headers = refused.value.response.headers
    assert 0 < int(headers["retry-after"]) <= 60
    assert int(headers["x-ratelimit-remaining-tokens"]) < 200
    assert int(headers["x-ratelimit-reset-tokens"].removesuffix("s")) > 0


async def test_a_policy_refuses_in_the_callers_dialect(pair: Pair) -> None:
    """With the operator's words, before anybody is asked; what it has nothing against is answered."""
    messages: list[Any] = [{"role": "user", "content": "what of Bluebird?"}]
    async with pair.client as client:
        with pytest.raises(openai.BadRequestError, match="the bluebird is not talked about"):
            await client.chat.completions.create(model=SPARE, messages=messages)
    body = {"contents": [{"parts": [{"text": "bluebird"}]}]}
    sent = {"x-goog-api-key": pair.gateway.key}
    async with httpx.AsyncClient(base_url=pair.gateway.url, headers=sent) as rest:
        refused = await rest.post(f"/v1beta/models/{SPARE}:generateContent", json=body)
    assert (refused.status_code, refused.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert "the bluebird is not talked about" in refused.json()["error"]["message"]
    assert pair.spare.seen == []


async def test_a_router_that_is_stopped_ends_its_streams_with_a_word(pair: Pair) -> None:
    """SIGTERM, and an answer that outlasts the drain time: its stream ends in an error, not as if it were whole. What
    was delivered is charged, and the next router answers."""
    before = await pair.booked()
    pair.play(pair.main, text=("Once ", "upon "), hold_at=1)
    pid = pair.gateway.stack.pid("router")
    assert pid is not None
    async with pair.client as client:
        answer = await client.chat.completions.create(model="is-lent", messages=MESSAGES, stream=True)
        chunks = aiter(answer)
        while (await anext(chunks)).choices[0].delta.content != "Once ":
            pass
        os.kill(pid, signal.SIGTERM)
        with pytest.raises(openai.APIError, match="shutting down; try again in a second"):
            await anext(chunks)
        [(provider, _, tokens)] = await pair.charged(before)
        assert (provider, tokens > 0) == ("main", True)
        async with asyncio.timeout(60):
            while True:
                pair.play(pair.main, text=("Well.",))
                try:
                    await client.chat.completions.create(model="is-lent", messages=MESSAGES)
                    break
                except openai.InternalServerError:
                    await asyncio.sleep(0.1)
