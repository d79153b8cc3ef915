"""What providers say of their limits beside an answer: read, bounded, told to the router, used to choose a key."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from moa.common.v1.rates_pb2 import UpstreamRates
from services.providers.credentials import Keys
from services.providers.http.rates import MOST, rates_in
from tests.emulators.echo import Echo, EchoEmulator
from tests.text.harness import chat, text_of, text_service
from tests.text.subjects import SUBJECTS

FULL = {
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-remaining-requests": "499",
    "x-ratelimit-limit-tokens": "200000",
    "x-ratelimit-remaining-tokens": "199000",
    "x-ratelimit-reset-tokens": "6m0s",
}
NAMED_BY_ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-tokens-limit": "30000",
}


@pytest.mark.parametrize(
    ("headers", "rates"),
    [
        (
            FULL,
            UpstreamRates(requests_per_minute=500, requests_left=499, tokens_per_minute=200_000, tokens_left=199_000),
        ),
        (NAMED_BY_ANTHROPIC, UpstreamRates(requests_per_minute=50, requests_left=49, tokens_per_minute=30_000)),
        ({}, None),
        ({"x-ratelimit-remaining-requests": "3"}, None),
        ({"x-ratelimit-limit-requests": "0"}, None),
        (
            {"x-ratelimit-limit-tokens": "7", "x-ratelimit-remaining-tokens": "0"},
            {"tokens_per_minute": 7, "tokens_left": 0},
        ),
        (
            {"x-ratelimit-limit-tokens": "7", "x-ratelimit-remaining-tokens": "99"},
            {"tokens_per_minute": 7, "tokens_left": 7},
        ),
        ({"x-ratelimit-limit-tokens": "7", "x-ratelimit-remaining-tokens": "-1"}, {"tokens_per_minute": 7}),
        ({**FULL, "x-ratelimit-limit-requests": "1e9"}, {"tokens_per_minute": 200_000, "tokens_left": 199_000}),
        ({"x-ratelimit-limit-requests": "9" * 5000}, None),
        ({"x-ratelimit-limit-requests": str(MOST + 1)}, None),
        ({"x-ratelimit-limit-requests": "٣"}, None),
        ({"x-ratelimit-limit-requests": "²"}, None),
    ],
)
def test_limits_are_read_from_headers(headers: Mapping[str, str], rates: UpstreamRates | dict[str, int] | None) -> None:
    """In whole numbers that can be true; what is left is told beside its limit, and is no more than that."""
    expected = UpstreamRates(**rates) if isinstance(rates, dict) else rates
    assert rates_in(headers) == expected


@given(st.dictionaries(st.sampled_from([*FULL, *NAMED_BY_ANTHROPIC]), st.text(max_size=12) | st.integers().map(str)))
def test_whatever_a_provider_says_is_bounded(headers: dict[str, str]) -> None:
    """Nothing that it says is an error, and no number is beyond what can be kept."""
    rates = rates_in(headers)
    if rates is not None:
        assert 0 <= rates.requests_left <= rates.requests_per_minute <= MOST
        assert 0 <= rates.tokens_left <= rates.tokens_per_minute <= MOST
        assert rates.requests_per_minute or rates.tokens_per_minute


def test_the_key_with_most_left_is_used() -> None:
    """Requests are spread by what is left, not evenly; what is used up comes back within a minute."""
    now = [0.0]
    keys = Keys(["a", "b", "c"], clock=lambda: now[0])
    keys.learn(0, UpstreamRates(requests_per_minute=100, requests_left=10))
    keys.learn(1, UpstreamRates(requests_per_minute=100, requests_left=90, tokens_per_minute=1000, tokens_left=200))
    keys.learn(2, UpstreamRates(requests_per_minute=100, requests_left=60))
    assert [keys.take() for _ in range(40)] == [2] * 40
    assert {keys.take() for _ in range(4)} == {1, 2}
    assert keys.rest(1, 5)
    assert keys.rest(2, 5)
    assert keys.take() == 0
    now[0] = 60
    assert {keys.take() for _ in range(3)} == {0, 1, 2}


def _answer(_: str) -> bytes:
    piece = {"choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": "stop"}]}
    return f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n".encode()


class Upstream(EchoEmulator):
    """Notes by which key each request came."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.keys.append(request.headers["Authorization"])
        return await super()._answer(request)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as emulator:
        emulator.echo = Echo("rates", _answer, content_type="text/event-stream", headers=lambda _: FULL)
        yield emulator


async def test_the_router_is_told_what_one_key_has_left(upstream: Upstream, tmp_path: Path) -> None:
    """With the end of an answer, typed. Of several keys nobody is told: they are spread by it where they are."""
    (subject,) = [subject for subject in SUBJECTS if subject.name == "openai"]
    providers, models = subject.providers(upstream), subject.models()
    async with text_service(tmp_path, providers, models, subject.environment) as service:
        events = await service.ask(chat())
        assert text_of(events) == "hello"
        assert events[-1].finished.rates == rates_in(FULL)
    several = {name: f"{key},another-key" for name, key in subject.environment.items()}
    upstream.keys.clear()
    async with text_service(tmp_path, providers, models, several) as service:
        for left in ("10", "400"):
            headers = {**FULL, "x-ratelimit-remaining-requests": left}
            upstream.echo = replace(upstream.echo, headers=lambda _, given=headers: given)  # type: ignore[misc]
            assert not (await service.ask(chat()))[-1].finished.HasField("rates")
        for _ in range(3):
            await service.ask(chat())
    assert upstream.keys == ["Bearer sk-good", *["Bearer another-key"] * 4]
