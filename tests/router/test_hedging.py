"""Hedging: a second target is asked where the first is silent for long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moa.text.v1 import text_pb2, text_service_pb2
from services.common import errors
from tests.router.rig import ended, said, text
from tests.router.routed import world
from tests.router.world import LIMIT, World


class TestHedging:
    """Hedging: another target is asked when the first has been silent for longer than is usual for it."""

    async def slow(self, requests: int = 25, **changes: Any) -> World:
        """Return a world whose `a` is known to answer at once."""
        played = world("a", "b", "c", hedge=True, changes=changes)
        for _ in range(requests):
            await played.ask(model="team")
        assert played.order == "a" * requests
        played.asked.clear()
        played.calls.clear()
        played.ledger.rows.clear()
        return played

    async def asking(self, played: World, calls: int = 2) -> asyncio.Task[Any]:
        asking = asyncio.create_task(played.ask(model="team"))
        while len(played.calls) < calls and not asking.done():
            await asyncio.sleep(0)
        return asking

    async def test_the_second_answers_while_the_first_is_silent(self) -> None:
        """It is the caller's answer and charge, once; the first is cancelled, and what is heard of it is void."""
        played = await self.slow()
        played.play("a", asyncio.Event())
        said_text, _, answer = await (await self.asking(played))
        assert (said_text, answer.model.id, played.order) == ("I am b", "b", "ab")
        assert played.calls[0].ended == "cancelled"
        assert [row[1:] for row in played.ledger.rows] == [(0, 0, "voided"), (7, 5, "b")]
        assert [asked.reservation for asked in played.asked] == [played.ledger.rows[0][0], ""]
        assert not played.ledger.open

    async def test_the_one_that_was_left_may_go_on_with_a_broken_answer(self) -> None:
        """It was slow, and is not sick."""
        played = world("a", "b", hedge=True, changes={"a": {"capabilities": frozenset({"prefill"})}})
        for _ in range(25):
            await played.ask(model="team")
        played.asked.clear()
        played.ledger.rows.clear()
        played.play("a", asyncio.Event())
        played.play("b", text(said("Hello")), errors.UpstreamTimeout("silent"))
        played.play("a", text(said(" world")), ended())
        said_text, _, answer = await played.ask(model="team")
        assert (said_text, answer.model.id, played.order) == ("Hello world", "a", "aba")
        assert [row[3] for row in played.ledger.rows] == ["voided", "voided", "a"]

    async def test_the_first_may_still_answer(self) -> None:
        """Then the second is cancelled, and the caller pays for the first under the reservation that it has."""
        played = await self.slow()
        first = asyncio.Event()
        played.play("a", first, text(said("I am a")), ended())
        played.play("b", asyncio.Event())
        asking = await self.asking(played)
        first.set()
        said_text, _, answer = await asking
        assert (said_text, answer.model.id) == ("I am a", "a")
        assert played.calls[1].ended == "cancelled"
        assert [row[1:] for row in played.ledger.rows] == [(7, 5, "a")]

    async def test_a_failure_of_one_is_waited_out_by_the_other(self) -> None:
        """Whichever fails."""
        played = await self.slow()
        first, second = asyncio.Event(), asyncio.Event()
        played.play("a", first, errors.UpstreamFailed("no"))
        played.play("b", second, text(said("I am b")), ended())
        asking = await self.asking(played)
        first.set()
        while played.calls[0].left:
            await asyncio.sleep(0)
        second.set()
        assert (await asking)[0] == "I am b"
        first, second = asyncio.Event(), asyncio.Event()
        played.calls.clear()
        played.play("a", first, text(said("I am a")), ended())
        played.play("b", second, errors.UpstreamFailed("no"))
        asking = await self.asking(played)
        second.set()
        while played.calls[1].left:
            await asyncio.sleep(0)
        first.set()
        assert (await asking)[0] == "I am a"

    async def test_the_next_is_asked_when_both_fail(self) -> None:
        """As if they had been asked one after the other."""
        played = await self.slow()
        both = asyncio.Event()
        played.play("a", both, errors.UpstreamFailed("no"))
        played.play("b", both, errors.UpstreamFailed("no"))
        asking = await self.asking(played)
        both.set()
        assert (await asking)[0] == "I am c"
        assert played.order == "abc"
        assert [row[3] for row in played.ledger.rows if row[1]] == ["c"]

    async def test_who_leaves_meanwhile_owes_the_first_alone(self) -> None:
        """Both calls are cancelled; only the first had a reservation, and its service says what it came to."""
        played = await self.slow()
        played.play("a", asyncio.Event())
        played.play("b", asyncio.Event())
        asking = await self.asking(played)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert [call.ended for call in played.calls] == ["cancelled", "cancelled"]
        assert [row[3] for row in played.ledger.rows] == ["a?"]
        assert not played.ledger.open

    async def test_who_shows_that_it_works_is_waited_for(self) -> None:
        """A sign of life is no silence."""
        played = await self.slow()
        first, alive = asyncio.Event(), asyncio.Event()
        played.play("a", text_service_pb2.GenerateTextResponse(), alive, text(said("I am a")), ended())
        paused = asyncio.Event()

        async def pause(seconds: float) -> None:
            await paused.wait()

        played.pause = pause  # type: ignore[method-assign]
        asking = await self.asking(played, 1)
        while len(played.calls[0].left) > 2:
            await asyncio.sleep(0)
        paused.set()
        for _ in range(5):
            await asyncio.sleep(0)
        alive.set()
        assert (await asking)[0] == "I am a"
        assert played.order == "a"
        assert not first.is_set()

    async def test_a_tenth_of_the_requests_may_be_hedged(self) -> None:
        """When all targets slow down at once, twice the load would not help."""
        played = await self.slow(25)
        hedged = 0
        for _ in range(10):
            played.calls.clear()
            first = asyncio.Event()
            played.play("a", first, text(said("I am a")), ended())
            asking = asyncio.create_task(played.ask(model="team"))
            for _ in range(30):
                await asyncio.sleep(0)
            hedged += len(played.calls) - 1
            first.set()
            await asking
        assert hedged == 3

    @pytest.mark.parametrize("whole", [False, True])
    @pytest.mark.parametrize("first_wins", [False, True])
    async def test_whoever_answers_gets_no_more_than_is_set_aside(self, whole: bool, first_wins: bool) -> None:
        """An answer that nobody bounded grows as its own pieces are delivered, and ends where nothing more can be had,
        though the other call was asked after it, or before."""
        long = {"max_output_tokens": 100_000, "context_tokens": 200_000}
        played = world("a", "b", hedge=True, changes={"a": long, "b": long})
        for _ in range(25):
            await played.ask(model="team", stream=not whole)
        gate, never = asyncio.Event(), asyncio.Event()
        pieces = [text(said(" word" * 80)) for _ in range(50)]
        events = {"a": gate if first_wins else never, "b": never if first_wins else gate}
        for name, event in events.items():
            played.play(name, event, *pieces, ended())
        played.calls.clear()
        played.ledger.left = 10**6
        asking = asyncio.create_task(played.ask(model="team", max_tokens=None, stream=not whole))
        while len(played.calls) < 2:
            await asyncio.sleep(0)
        played.ledger.left = 0
        gate.set()
        said_text, events_seen, answer = await asking
        assert answer.model.id == ("a" if first_wins else "b")
        finished = [event.candidate_finished for event in events_seen if event.HasField("candidate_finished")]
        assert [one.reason for one in finished] == [text_pb2.FINISH_REASON_LENGTH]
        assert len(said_text) <= LIMIT * 4
        assert answer.usage.completion_tokens <= LIMIT

    async def test_it_is_off_unless_said(self) -> None:
        """A silent target is waited for as ever."""
        played = world("a", "b")
        for _ in range(25):
            await played.ask(model="team")
        first = asyncio.Event()
        played.play("a", first, text(said("I am a")), ended())
        played.calls.clear()
        asking = await self.asking(played, 1)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(played.calls) == 1
        first.set()
        assert (await asking)[0] == "I am a"
