"""Streams that die after their first events: how they go on, and what they cost."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa.common.v1 import usage_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common import errors
from services.common.errors import MoaError, detail_of
from services.router.domain.caller import Caller
from tests.router.rig import called, ended, said, text, thought
from tests.router.world import LIMIT, World

BROKE = errors.UpstreamBroken("broke")
PREFILL = {"capabilities": {"prefill"}}


def finished(prompt: int, completion: int, reasoning: int = 0) -> text_service_pb2.GenerateTextResponse:
    """Make a last message with its counts."""
    usage = usage_pb2.Usage(prompt_tokens=prompt, completion_tokens=completion, reasoning_tokens=reasoning, exact=True)
    done = text_pb2.CandidateFinished(reason=text_pb2.FINISH_REASON_STOP)
    return text(
        text_pb2.TextEvent(candidate_finished=done), text_pb2.TextEvent(finished=text_pb2.Finished(usage=usage))
    )


def in_band(error: MoaError, usage: usage_pb2.Usage | None = None) -> text_service_pb2.GenerateTextResponse:
    """Make the last message of a service whose provider failed."""
    told = [text_pb2.TextEvent(usage=usage)] if usage else []
    return text(*told, text_pb2.TextEvent(error=detail_of(error, "rid")))


def kinds(events: list[text_pb2.TextEvent]) -> list[str | None]:
    return [event.WhichOneof("event") for event in events]


WAYS: dict[str, Any] = {
    "raised": BROKE,
    "told": in_band(BROKE),
    "silent": errors.UpstreamTimeout("silent"),
    "away": errors.Unavailable("away"),
    "told late": in_band(errors.UpstreamFailed("no"), usage_pb2.Usage(prompt_tokens=7, completion_tokens=2)),
}


@pytest.mark.parametrize("how", WAYS)
async def test_a_target_with_prefill_goes_on_from_there(how: str) -> None:
    """It is given what was delivered, and no more tokens than are left; the caller reads one answer, hears who goes on,
    and pays for prompt and answer once: the prefix was part of the second's prompt."""
    world = World(b=PREFILL)
    world.play("a", text(said("Once ")), text(said("upon"), said(" a ")), WAYS[how])
    world.play("b", text(said(" time")), text(said(".")), finished(20 + 3, 2))
    got, events, answer = await world.ask("tell", max_tokens=50)
    assert got == "Once upon a time."
    assert kinds(events)[-2:] == ["candidate_finished", "finished"]
    assert "error" not in kinds(events)
    [started] = [event.started for event in events if event.HasField("started")]
    assert (started.provider, started.model) == ("two", "b")
    assert (answer.model.id, answer.succeeded) == ("b", True)
    assert world.asked[1].messages == ("tell", "Once upon a")
    assert (world.asked[1].bound, world.asked[1].books) == (50 - 3, True)
    usage = events[-1].finished.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.exact) == (20, 5, False)
    rows = [row for row in world.ledger.rows if row[1]]
    assert rows == [(world.asked[1].reservation, 20, 5, "b")]
    assert not world.ledger.open


async def test_a_target_that_begins_anew_says_the_same_first() -> None:
    """Without prefill what was delivered is skipped, in whatever pieces it comes; the second's own count is the charge.
    Until it has caught up it may book nothing by itself: it would book less than was delivered."""
    world = World()
    world.play("a", text(said("Once ")), text(said("upon a ")), BROKE)
    world.play("b", text(thought("hm"), said("Onc")), text(said("e upon a t")), text(said("ime")), finished(7, 5))
    got, events, _ = await world.ask()
    assert got == "Once upon a time"
    assert kinds(events) == ["text", "text", "started", "text", "text", "candidate_finished", "finished"]
    assert [asked.books for asked in world.asked] == [True, False]
    assert world.asked[1].bound == 100
    assert world.ledger.rows == [("r1", 7, 5, "b")]


@pytest.mark.parametrize(
    "other",
    [
        [text(said("Twice upon a time")), ended()],
        [text(said("Once ")), ended()],
        [text(said("Once")), text(called(0, "f", "{}", "c"))],
        [text(said("Once")), in_band(BROKE)],
        [text(said("Once"))],
    ],
    ids=["differs", "ends early", "calls a tool", "breaks", "stops"],
)
async def test_another_answer_is_never_sewn_on(other: list[Any]) -> None:
    """Whoever says something else, or less, is given up; the next may still say the same; else the error is told, and
    what was delivered is charged."""
    for last in ([text(said("Once upon a time")), finished(7, 5)], other):
        world = World()
        world.play("a", text(said("Once ")), text(said("upon")), BROKE)
        world.play("b", *other)
        for _ in range(3):
            world.play("c", *last)
        got, events, answer = await world.ask()
        if last is other:
            assert (got, kinds(events)) == ("Once upon", ["text", "text", "error"])
            assert events[-1].error.reason == BROKE.reason
            assert not answer.succeeded
            [row] = [row for row in world.ledger.rows if row[1]]
            assert (row[2], row[3]) == (2, "a")
        else:
            assert (got, answer.model.id) == ("Once upon a time", "c")
            assert [row[1:] for row in world.ledger.rows if row[1]] == [(7, 5, "c")]
        assert not world.ledger.open
        assert all(call.ended for call in world.calls if call is not world.calls[0])


_SCHEMA = text_pb2.ResponseFormat(kind=text_pb2.ResponseFormat.KIND_JSON_SCHEMA)
UNRESCUED: dict[str, tuple[dict[str, Any], Any]] = {
    "half a tool call": ({}, called(0, "f", '{"a"', "c")),
    "candidates": ({"candidates": 2}, said("x")),
    "log probabilities": ({"sampling": text_pb2.Sampling(logprobs=True)}, said("x")),
    "a schema": (
        {"response_format": text_pb2.ResponseFormat(kind=text_pb2.ResponseFormat.KIND_JSON_SCHEMA)},
        said("x"),
    ),
    "an ended candidate": ({}, text_pb2.TextEvent(candidate_finished=text_pb2.CandidateFinished())),
}


@pytest.mark.parametrize("what", UNRESCUED)
async def test_what_cannot_be_gone_on_with_ends_in_the_error(what: str) -> None:
    """One error event, told as it came; nobody else is asked."""
    fields, event = UNRESCUED[what]
    able = {"capabilities": {"prefill", "candidates", "logprobs", "json_schema"}}
    world = World(a=able, b=able)
    world.play("a", text(said("I "), event), BROKE)
    _, events, _ = await world.ask(**fields)
    assert kinds(events)[-1] == "error"
    assert kinds(events).count("error") == 1
    assert world.order == "a"


async def test_shown_reasoning_is_gone_on_from_by_prefill_alone() -> None:
    """A target that begins anew would reason anew; one that goes on from the text is not asked to reason, and the
    reasoning that was shown is charged."""
    world = World(c=PREFILL)
    world.play("a", text(thought("let me"), thought("see")), text(said("It ")), BROKE)
    world.play("c", text(said(" is")), finished(20 + 1, 1))
    got, events, _ = await world.ask(reasoning=text_pb2.ReasoningOptions(include=True))
    assert (got, world.order) == ("It is", "ac")
    usage = events[-1].finished.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens) == (20, 4, 2)


@pytest.mark.parametrize("kind", [errors.ContentPolicy, errors.ContextTooLong, errors.UpstreamRejected])
async def test_what_is_the_callers_is_told(kind: type[MoaError]) -> None:
    """A provider that stops for its policy in the middle is not gone round."""
    world = World(b=PREFILL)
    world.play("a", text(said("I ")), in_band(kind("no")))
    _, events, _ = await world.ask()
    assert (kinds(events), world.order) == (["text", "error"], "a")


async def test_a_broken_connection_is_gone_on_with_at_the_same_model() -> None:
    """Where it takes a prefill: once. A silent one is not asked twice."""
    world = World(a={"fallback": (), **PREFILL})
    for words in ("Once", " upon"):
        world.play("a", text(said(words)), BROKE)
    got, events, _ = await world.ask()
    assert (got, kinds(events)[-1], world.order) == ("Once upon", "error", "aa")
    world.play("a", text(said("Once")), errors.UpstreamTimeout("silent"))
    _, events, _ = await world.ask()
    assert (kinds(events), world.order) == (["text", "error"], "aaa")


async def test_it_goes_on_as_often_as_there_are_targets() -> None:
    """Each is given all that was delivered by those before."""
    world = World(b=PREFILL, c=PREFILL)
    world.play("a", text(said("one")), BROKE)
    world.play("b", text(said(" two")), errors.UpstreamTimeout("silent"))
    world.play("c", text(said(" three")), finished(20 + 2, 1))
    got, _, answer = await world.ask()
    assert (got, answer.model.id) == ("one two three", "c")
    assert world.asked[2].messages == ("hi", "one two")
    assert [row for row in world.ledger.rows if row[1]] == [("r2", 20, 3, "c")]


async def test_a_stop_string_that_has_begun_is_not_lost() -> None:
    """A target that goes on from its first half would not see it: there the answer begins anew."""
    world = World(b=PREFILL)
    world.play("a", text(said("Hi <e")), BROKE)
    world.play("b", text(said("Hi <em>")), ended())
    got, _, _ = await world.ask(stop=["<end>"])
    assert got == "Hi <em>"
    assert world.asked[1].messages == ("hi",)


async def test_without_fallback_a_break_is_an_error_as_ever() -> None:
    """Neither a chain nor the caller's leave: one error event, and nobody is asked."""
    for world, caller in (
        (World(a={"fallback": ()}), None),
        (World(b=PREFILL), Caller(key="k", request_id="r", fallback=False)),
    ):
        world.play("a", text(said("I")), BROKE)
        _, events, _ = await world.ask(caller=caller)
        assert (kinds(events), world.order) == (["text", "error"], "a")


async def test_a_caller_that_leaves_meanwhile_pays_for_what_came() -> None:
    """While another target is asked the caller hangs up: its call is cancelled, and one row has what was delivered."""
    world = World(b=PREFILL)
    world.play("a", text(said("one ")), text(said("two")), errors.UpstreamTimeout("silent"))
    answer = await world.begin()
    asked = asyncio.Event()

    class Mute:
        cancelled = False

        async def read(self) -> Any:
            asked.set()
            await asyncio.Event().wait()

        def cancel(self) -> None:
            self.cancelled = True

    mute = Mute()

    async def read_on() -> None:
        async with answer:
            while await answer.next() is not None:
                world.generate_text = lambda *_, **__: mute  # type: ignore[method-assign,assignment]

    reading = asyncio.create_task(read_on())
    await asyncio.wait_for(asked.wait(), 20)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await world.operations.aclose()
    assert mute.cancelled
    [row] = [row for row in world.ledger.rows if row[1]]
    assert (row[0], row[2], row[3]) == ("r2", 2, "a")
    assert not world.ledger.open


PIECES = st.lists(st.text("ab \n한", min_size=1, max_size=4), min_size=1, max_size=8)
ENDS = st.sampled_from([*WAYS.values(), None])


def split(words: str, cuts: list[int]) -> list[str]:
    """Cut a text into pieces."""
    places = sorted({min(cut, len(words)) for cut in cuts} | {0, len(words)})
    return [words[low:high] for low, high in pairwise(places)]


@given(
    pieces=PIECES,
    cuts=st.lists(st.integers(0, 30), max_size=4),
    ends=st.tuples(ENDS, ENDS, ENDS),
    fills=st.tuples(st.booleans(), st.booleans()),
    lies=st.tuples(st.booleans(), st.booleans()),
    stops=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    counts=st.tuples(st.integers(1, 2 * LIMIT), st.integers(1, 2 * LIMIT)),
)
async def test_whatever_happens_it_is_one_answer_charged_once(
    pieces: list[str],
    cuts: list[int],
    ends: tuple[Any, Any, Any],
    fills: tuple[bool, bool],
    lies: tuple[bool, bool],
    stops: tuple[int, int],
    counts: tuple[int, int],
) -> None:
    """Three targets that break where they like, go on or begin anew, tell the same story or another, and count as they
    like: there is exactly one end, and it is the last event; what was delivered is the story from its beginning, all of
    it where the end is good; at most one row of the ledger has a charge, and none more than was reserved; no
    reservation stays open."""
    whole = "".join(pieces)

    class Story(World):
        def generate_text(
            self, request: Any, model: Any, caller: Any, reserved: Any, *, prompt_bound: int, books: bool = True
        ) -> Any:
            place = "abc".index(model.id)
            prefix = request.messages[-1].parts[0].text if len(request.messages) > 1 else ""
            assert whole.startswith(prefix)
            rest = whole[len(prefix) :] if books or not lies[place - 1] else "Z" + whole
            messages: list[Any] = [text(said(piece)) for piece in split(rest, cuts)]
            if ends[place] is not None:
                messages = [*messages[: stops[place % 2]], ends[place]]
            else:
                messages.append(finished(*counts))
            self.scripts[model.id] = [messages]
            return super().generate_text(request, model, caller, reserved, prompt_bound=prompt_bound, books=books)

    able: dict[str, Any] = {name: PREFILL for name, fill in zip("bc", fills, strict=True) if fill}
    world = Story(**able)
    try:
        got, events, answer = await world.ask(max_tokens=LIMIT)
    except MoaError:
        assert not [row for row in world.ledger.rows if row[1] or row[2]]
        assert not world.ledger.open
        return
    last = kinds(events)[-1]
    assert [kind for kind in kinds(events) if kind in ("finished", "error")] == [last]
    assert (last == "finished") == answer.succeeded
    assert whole.startswith(got)
    assert got == whole or last == "error"
    charged = [row for row in world.ledger.rows if row[1] or row[2]]
    assert len(charged) == 1 or (not charged and not got)
    if "started" in kinds(events):
        assert all(row[1] + row[2] <= LIMIT for row in charged)
    assert not world.ledger.open
