"""Prompts that are counted, and those that need not be."""

from __future__ import annotations

from typing import Any

import pytest

from moa.text.v1 import text_pb2, text_service_pb2
from services.common.errors import ContextTooLong, QuotaExhausted, UpstreamBroken
from services.router.domain.caller import Caller
from services.router.operations.text import TEXT
from tests.router.rig import ended, said, text
from tests.router.world import World

CALLER = Caller(key="k", request_id="rid")
CONTEXT = 10


def counting(text: str) -> text_service_pb2.CountTokensRequest:
    request = text_service_pb2.CountTokensRequest(model="a")
    request.messages.add(role=text_pb2.ROLE_USER).parts.add(text=text)
    return request


async def test_what_cannot_fit_is_not_counted() -> None:
    """A text beyond the context by the longest token that there is: whoever would count is not asked."""
    world = World(a={"context_tokens": CONTEXT})
    with pytest.raises(ContextTooLong, match="10 tokens of a's context"):
        await world.operations.count_tokens(TEXT, counting("x" * 128 * (CONTEXT + 1)), CALLER)
    assert world.counted == []


async def test_what_may_fit_is_counted() -> None:
    """By whoever answers, though most of its tokens would have to be long ones."""
    world = World(a={"context_tokens": CONTEXT})
    world.counts["a"] = 9
    assert await world.operations.count_tokens(TEXT, counting("x" * 100 * CONTEXT), CALLER) == 9
    assert world.counted == ["a"]


@pytest.mark.parametrize(("chars", "counted"), [(128 * (CONTEXT + 1), []), (100 * CONTEXT, ["a"])])
async def test_before_a_refusal_only_what_may_fit_is_counted(chars: int, counted: list[str]) -> None:
    """A prompt beyond its model's context, which a fallback could read, and no quota for it."""
    world = World(a={"context_tokens": CONTEXT})

    async def refuse(key: str, **_: Any) -> Any:
        raise QuotaExhausted("no")

    world.ledger.reserve = refuse  # type: ignore[method-assign]
    with pytest.raises(QuotaExhausted):
        await world.begin("x" * chars)
    assert world.counted == counted


@pytest.mark.parametrize("guesses", [False, True], ids=["reported", "not reported"])
async def test_a_prompt_is_guessed_only_where_nobody_reports_its_tokens(
    monkeypatch: pytest.MonkeyPatch, guesses: bool
) -> None:
    """To guess a long prompt takes as long as to bound it, and nearly every provider counts it."""
    asked: list[str] = []

    def noting(request: text_service_pb2.GenerateTextRequest) -> int:
        asked.append(request.model)
        return 7

    monkeypatch.setattr("services.router.domain.prompt.prompt_tokens", noting)
    world = World(a={"fallback": ()})
    world.play("a", text(said("Hello")), UpstreamBroken("gone") if guesses else ended())
    await world.ask()
    assert bool(asked) is guesses
