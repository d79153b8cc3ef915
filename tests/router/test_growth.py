"""Answers that nobody bounded: what is set aside for them as they grow, what their models are told, and their ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moa.common.v1 import error_pb2
from moa.text.v1 import text_pb2
from services.catalogue import Model, Prices, Provider
from services.common import errors
from services.quota_client.amounts import UNLIMITED
from services.router.domain import bounds
from services.router.domain.caller import Caller
from services.router.domain.growth import INCREMENT
from tests.router.rig import ended, said, text
from tests.router.test_rescue import finished, kinds
from tests.router.world import LIMIT, World

LONG: dict[str, Any] = {"max_output_tokens": 100_000, "context_tokens": 200_000}
PIECE = " word" * 80
"""A hundred tokens, as they are estimated."""
PROMPT = 26
"""Tokens that the prompt has at most."""
BROKE = errors.UpstreamBroken("broke")


def pieces(count: int) -> list[Any]:
    """Return so many messages of a hundred tokens each."""
    return [text(said(PIECE)) for _ in range(count)]


async def test_more_is_set_aside_as_an_answer_grows() -> None:
    """It begins with an increment, and each further one is there before the last is used up; the model is told no
    bound of ours, and what it reports is charged."""
    world = World(a=LONG)
    world.play("a", *pieces(300), finished(10, 30_500))
    got, events, _ = await world.ask(max_tokens=None)
    assert (len(got), kinds(events)[-1]) == (300 * len(PIECE), "finished")
    assert [asked.bound for asked in world.asked] == [0]
    held = LIMIT - PROMPT
    for lent in world.ledger.extended:
        assert lent.tokens == max(INCREMENT, held // 2)
        held += lent.tokens
    assert 30_000 < held < 30_000 * 2
    assert world.ledger.rows == [("r1", 10, 30_500, "a")]


async def test_no_piece_waits_for_auth_while_something_is_set_aside() -> None:
    """An auth that is slow to answer is noticed only where all that was set aside is used up, and goes on then."""
    world = World(a=LONG)
    world.ledger.there.clear()
    world.play("a", *pieces(50), finished(10, 5000))
    async with await world.begin(max_tokens=None) as answer:
        covered = LIMIT - PROMPT
        for _ in range(-(-covered // 100)):
            assert (await answer.next()).events
        waiting = asyncio.create_task(answer.next())
        assert (await asyncio.wait([waiting], timeout=0.01))[1], "more was delivered than was set aside"
        world.ledger.there.set()
        assert (await waiting).events
        while await answer.next() is not None:
            pass
    assert world.ledger.rows == [("r1", 10, 5000, "a")]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("left", [0, 500])
async def test_an_answer_ends_at_its_length_where_nothing_more_can_be_had(left: int, stream: bool) -> None:
    """What others used up meanwhile ends it as a bound does, after what was delivered, which is what is charged."""
    world = World(a=LONG)
    world.ledger.left = 10**6
    world.play("a", *pieces(50), ended())
    answer = await world.begin(max_tokens=None) if stream else None
    world.ledger.left = left
    answer = answer or await world.begin(max_tokens=None, stream=False)
    events: list[text_pb2.TextEvent] = []
    async with answer:
        while (message := await answer.next()) is not None:
            events += message.events
    covered = LIMIT - PROMPT + left
    assert sum(event.HasField("text") for event in events) == -(-covered // 100)
    assert [event.candidate_finished.reason for event in events[-2:-1]] == [text_pb2.FINISH_REASON_LENGTH]
    usage = events[-1].finished.usage
    assert (usage.completion_tokens, usage.exact) == (covered, False)
    assert [row[2:] for row in world.ledger.rows] == [(covered, "a")]
    assert world.calls[0].ended in ("cancelled", "closed")
    assert (answer.succeeded, world.order) == (True, "a")


async def test_each_candidate_that_has_not_ended_is_ended() -> None:
    """What is set aside is for all of them together."""
    world = World(a={**LONG, "capabilities": {"candidates"}})
    world.ledger.left = 0
    stop = text_pb2.CandidateFinished(reason=text_pb2.FINISH_REASON_STOP)
    world.play("a", text(text_pb2.TextEvent(candidate=1, candidate_finished=stop)), *pieces(50), ended())
    _, events, _ = await world.ask(max_tokens=None, candidates=3)
    assert [event.candidate for event in events if event.HasField("candidate_finished")] == [1, 0, 2]
    assert events[-1].finished.usage.completion_tokens == (LIMIT - PROMPT) // 3 * 3


async def test_an_answer_fails_where_auth_cannot_say_what_is_left() -> None:
    """No other model is asked, since it could not go on either, and none is taken for ill; what came is charged."""
    world = World(a={**LONG, "capabilities": {"prefill"}}, b={"capabilities": {"prefill"}})
    world.ledger.away = errors.Unavailable("accounts cannot be reached now")
    for _ in range(5):
        world.play("a", *pieces(50), ended())
        got, events, answer = await world.ask(max_tokens=None)
        assert events[-1].error.reason == error_pb2.REASON_UNAVAILABLE
        assert "accounts could not be reached" in events[-1].error.message
        assert (len(got) // len(PIECE), answer.succeeded) == (-(-(LIMIT - PROMPT) // 100), False)
    assert world.order == "aaaaa"
    assert {row[2] for row in world.ledger.rows} == {1000}


async def test_what_ran_out_may_be_there_again_when_it_is_needed() -> None:
    """A refusal ahead of need ends nothing: it is asked again where the answer could not go on."""
    world = World(a=LONG)
    world.ledger.left = 0
    world.play("a", *pieces(20), finished(10, 2000))
    async with await world.begin(max_tokens=None) as answer:
        for _ in range(8):
            assert (await answer.next()).events
            await asyncio.sleep(0)
        world.ledger.left = INCREMENT
        while await answer.next() is not None:
            pass
    assert world.ledger.rows == [("r1", 10, 2000, "a")]


async def test_a_model_that_ends_within_what_it_has_is_set_aside_no_more() -> None:
    """Where the first increment is the longest answer, nothing grows; what is bounded has all of it at once."""
    world = World(a={"max_output_tokens": 800}, b={"max_output_tokens": 800}, c={"max_output_tokens": 800})
    for bound in (None, 900):
        world.play("a", *pieces(8), finished(10, 800))
        await world.ask(max_tokens=bound)
    assert [asked.bound for asked in world.asked] == [0, 800]
    assert not world.ledger.extended


async def test_an_operators_bound_is_kept() -> None:
    """The catalogue may bound answers whose callers say nothing: as if they had said that."""
    world = World(a={**LONG, "default_max_tokens": 300})
    await world.ask(max_tokens=None)
    assert [asked.bound for asked in world.asked] == [300]


async def test_dollars_are_set_aside_with_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the dearest price of a model that may answer; of whoever brings a provider's key none."""
    world = World(a={**LONG, "prices": Prices(input=1.0, output=2.0)}, b={"prices": Prices(input=1.0, output=4.0)})
    monkeypatch.setattr(Provider, "takes_key", lambda provider, key: True)
    for own_key in ("", "theirs"):
        caller = Caller(key="k", request_id="rid", own_key=own_key)
        world.play("a", *pieces(20), finished(10, 2000))
        await world.ask(max_tokens=None, caller=caller)
    assert [lent.nano_usd for lent in world.ledger.extended] == [INCREMENT * 4000, 0]


async def test_a_rescued_answer_goes_on_with_what_is_set_aside() -> None:
    """Whoever goes on has what the first had left, and is told no bound either; all is one answer, charged once."""
    world = World(a=LONG, b={**LONG, "capabilities": {"prefill"}})
    world.play("a", *pieces(20), BROKE)
    world.play("b", *pieces(60), finished(10 + 2000, 6000))
    got, events, _ = await world.ask(max_tokens=None)
    assert (len(got), kinds(events)[-1]) == (80 * len(PIECE), "finished")
    assert [asked.bound for asked in world.asked] == [0, 0]
    assert sum(lent.tokens for lent in world.ledger.extended) > 8000 - LIMIT
    assert [row[1:] for row in world.ledger.rows if row[1]] == [(10, 8000, "b")]


async def test_a_whole_answer_that_comes_in_parts_is_one() -> None:
    """Nothing of it is delivered before its end, so that another model may answer where it breaks."""
    world = World(a=LONG)
    world.play("a", *pieces(20), BROKE)
    world.play("b", text(said("I am ")), text(), text(said("b")), finished(10, 3))
    async with await world.begin(max_tokens=None, stream=False) as answer:
        message = await answer.next()
        assert "".join(event.text.text for event in message.events) == "I am b"
        assert message.events[-1].HasField("finished")
        assert await answer.next() is None
    assert [row[1:] for row in world.ledger.rows] == [(10, 3, "b")]


@pytest.mark.parametrize(
    ("row", "left", "told"),
    [
        (LONG, UNLIMITED, None),
        (LONG, 100_000, None),
        (LONG, 99_999, 99_999),
        ({"context_tokens": 8000}, 6999, 6999),
        ({"context_tokens": 8000}, 7000, None),
        ({"context_tokens": 1_000_000}, 8192, 8192),
        ({"context_tokens": 1_000_000}, 800_000, None),
        ({}, 500, None),
        ({**LONG, "default_max_tokens": 300}, UNLIMITED, 300),
        (LONG, 0, 1),
    ],
)
def test_a_model_is_told_what_is_left_where_it_would_say_more(row: dict[str, Any], left: int, told: int | None) -> None:
    """Never more than fits beside the prompt (1,000 tokens): some refuse it. Where a row says nothing, nothing."""
    assert bounds.stated(left, 1000, Model(id="m", provider="p", **row), bounded=False) == told


async def test_a_model_is_told_what_is_left_in_all() -> None:
    """The first increment, and what the account and the key have left beside it; one caller's bound is as before."""
    world = World(a=LONG)
    world.ledger.left = 5000
    await world.ask(max_tokens=None)
    assert world.asked[0].bound == LIMIT - PROMPT + 5000
    await world.ask(max_tokens=70)
    assert world.asked[1].bound == 70


async def test_a_caller_who_leaves_takes_nothing_more() -> None:
    """What was being lent when the answer was left is not waited for, and what was delivered is charged."""
    world = World(a=LONG)
    world.ledger.there.clear()
    world.play("a", *pieces(50), ended())
    async with await world.begin(max_tokens=None, caller=Caller(key="k", request_id="rid")) as answer:
        for _ in range(8):
            await answer.next()
    await world.operations.aclose()
    assert not world.ledger.extended
    [row] = world.ledger.rows
    assert row[2:] == (800, "a")
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "growth"]
