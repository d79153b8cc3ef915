"""Requests for providers' batch APIs: who is handed what, and what it costs at most; an answer that came back."""

from __future__ import annotations

from typing import Any

import pytest

from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import GenerateTextRequest, GenerateTextResponse
from services.catalogue import Catalogue, Model, Prices, Provider
from services.common.errors import ContextTooLong, PermissionDenied, Unauthenticated
from services.router.dialects.anthropic.batched import AnsweredCall, _caller
from services.router.domain.caller import Caller
from services.router.domain.operations import Operations
from services.router.operations.text import TextCall
from tests.router.rig import KEY, OTHER_KEY, Played, ended, said, text

PRICES = Prices(input=3, output=15)
CATALOGUE = Catalogue(
    [
        Provider(id="halved", adapter="played", makes="text", base_url="x", batch_price_factor=0.5),
        Provider(id="plain", adapter="played", makes="text", base_url="x"),
    ],
    [
        Model(id="smart", provider="halved", prices=PRICES, context_tokens=1000, capabilities=frozenset(("vision",))),
        Model(id="third", provider="halved", prices=PRICES, batch_price_factor=0.3),
        Model(id="never", provider="halved", batch_price_factor=1),
        Model(id="alone", provider="plain"),
    ],
    frozenset({"halved", "plain"}),
)


@pytest.fixture
def played() -> Played:
    return Played()


@pytest.fixture
def operations(played: Played) -> Operations:
    nobody: Any = played
    return Operations(catalogue=lambda: CATALOGUE, admission=nobody, backends=nobody, inputs=nobody)


def asked(model: str, words: str = "hi", **more: Any) -> GenerateTextRequest:
    request = GenerateTextRequest(model=model, max_tokens=100, **more)
    request.messages.add(role=text_pb2.ROLE_USER).parts.add(text=words)
    return request


CALLER = Caller(key=KEY, request_id="req")


@pytest.mark.parametrize(("model", "factor"), [("smart", 0.5), ("third", 0.3)])
async def test_a_request_is_bounded_at_the_batchs_price(operations: Operations, model: str, factor: float) -> None:
    """As its own reservation would be, but for the price; the request is whole, as whoever answers is asked."""
    handed = await operations.handing_over.prepare(TextCall(asked(model)), CALLER)
    assert handed is not None
    prompt = handed.need.tokens - 100
    assert handed.need.nano_usd == -(-(prompt * 3_000 + 100 * 15_000) * round(factor * 10) // 10)
    assert (handed.need.requests, handed.request.max_tokens, handed.request.stream) == (1, 100, False)
    assert (handed.request.provider, handed.request.model) == ("halved", model)


@pytest.mark.parametrize("model", ["never", "alone"])
async def test_what_has_no_batch_api_is_asked_for_as_any_other(operations: Operations, model: str) -> None:
    """So is what holds a link, which is fetched when it is asked."""
    assert await operations.handing_over.prepare(TextCall(asked(model)), CALLER) is None
    linked = asked("smart")
    linked.messages[0].parts.add().image.url = "https://example.com/a.png"
    assert await operations.handing_over.prepare(TextCall(linked), CALLER) is None


async def test_a_request_that_would_be_refused_is_refused(operations: Operations) -> None:
    """Before anything is reserved: for its key, or for its length."""
    with pytest.raises(PermissionDenied):
        await operations.handing_over.prepare(TextCall(asked("smart")), Caller(key=OTHER_KEY, request_id="req"))
    with pytest.raises(ContextTooLong):
        await operations.handing_over.prepare(TextCall(asked("smart", "word " * 40_000)), CALLER)


async def test_an_answer_that_came_back_asks_and_reserves_nothing(operations: Operations, played: Played) -> None:
    """It goes the way of any answer from its first event on."""
    answered = GenerateTextResponse(events=[*text(said("Hello")).events, *ended().events])
    call = AnsweredCall(asked("smart", provider="halved"), TextCall(asked("smart")).prompt, answered)
    async with await operations.begin(call, CALLER) as answer:
        message = await answer.next()
        assert message is not None
        assert message.events[0].text.text == "Hello"
        assert await answer.next() is None
        assert answer.model.id == "smart"
    assert played.texts == []


async def test_services_alone_may_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account's own key is refused, and a grant passes."""
    monkeypatch.setattr("services.router.dialects.anthropic.batched.begin", lambda key: Caller(key=key, request_id="r"))
    with pytest.raises(Unauthenticated):
        _caller(KEY)
    assert _caller("moa-grant.x").dialect == "anthropic"
