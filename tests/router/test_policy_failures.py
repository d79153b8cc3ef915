"""Policies that fail, hang or return what is no verdict: their rows say what becomes of requests and answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moa.common.v1 import usage_pb2
from moa.text.v1 import text_pb2
from services.common import errors
from services.policies import Asked, Change, Hook, Refuse, Replace, Stop, Watch
from services.router.domain.policies import Policies
from tests.router.hooks import Answers, Fails, Watching, denying, policy, world
from tests.router.rig import ended, said, text
from tests.router.world import World


@pytest.mark.parametrize("hangs", [False, True], ids=["breaks", "hangs"])
async def test_a_policy_that_fails_closed_refuses(hangs: bool) -> None:
    """What must be judged and cannot be is a 503 that may be sent again, not an internal error."""
    there = world(Fails(hangs=hangs), deadline_s=0.01)
    with pytest.raises(errors.Unavailable):
        await there.ask()
    assert there.asked == []


@pytest.mark.parametrize("hangs", [False, True], ids=["breaks", "hangs"])
async def test_a_policy_that_fails_open_lets_all_pass(hangs: bool) -> None:
    """The request is served as it is, and the answer too; the others judge all the same."""
    fails = policy(Fails(hangs=hangs), fails_open=True, deadline_s=0.05)
    there = World(policies=Policies([fails, policy(denying("never"), name="two", fails_open=True, deadline_s=60)]))
    there.play("a", text(said("one ")), text(said("two")), ended())
    assert (await there.ask())[0] == "one two"
    with pytest.raises(errors.ContentPolicy):
        await there.ask("never")


async def _waits_for_what_was_cancelled(_: Any) -> Any:
    waited = asyncio.get_running_loop().create_future()
    waited.cancel()
    return await waited


@pytest.mark.parametrize("fails_open", [False, True], ids=["closed", "open"])
@pytest.mark.parametrize("verdict", ["no", False, Stop("no"), Refuse(None), Change(None)])  # type: ignore[arg-type]
async def test_what_is_no_verdict_on_a_request_is_a_failure(verdict: Any, fails_open: bool) -> None:
    """It does not pass for a permission: whoever meant to refuse has not allowed it."""
    there = world(Answers(lambda _: verdict), fails_open=fails_open)
    if fails_open:
        assert (await there.ask())[0] == "I am a"
        return
    with pytest.raises(errors.Unavailable):
        await there.ask()
    assert there.asked == []


async def test_a_policy_whose_own_work_was_cancelled_fails_as_its_row_says() -> None:
    """The caller has not left, so that it is told: its call does not end as one that was cancelled."""

    class Cancelled(Hook):
        async def before(self, asked: Asked, request: Any) -> Any:
            return await _waits_for_what_was_cancelled(request)

    with pytest.raises(errors.Unavailable):
        await world(Cancelled()).ask()
    assert (await world(Cancelled(), fails_open=True).ask())[0] == "I am a"


MADE = [
    pytest.param("stop", id="a word"),
    pytest.param(Refuse("no"), id="a verdict on requests"),
    pytest.param(Stop(None), id="no reason"),  # type: ignore[arg-type]
    pytest.param(Replace([text_pb2.TextEvent(finished=text_pb2.Finished())]), id="an end"),
    pytest.param(Replace([said("x"), text_pb2.TextEvent(usage=usage_pb2.Usage(prompt_tokens=9))]), id="counts"),
    pytest.param(Stop("no", [text_pb2.TextEvent(started=text_pb2.Started())]), id="who answers"),
    pytest.param(Replace([text_pb2.TextEvent()]), id="nothing"),
]


@pytest.mark.parametrize("verdict", MADE)
async def test_what_is_no_verdict_on_an_event_is_a_failure(verdict: Any) -> None:
    """A policy makes pieces of answers, not their ends and counts: each has one end, and costs what it counts."""
    there = world(Watching(lambda _: verdict))
    there.play("a", text(said("one")), ended())
    got, events, _ = await there.ask()
    assert (got, [event.WhichOneof("event") for event in events][-1]) == ("", "error")
    assert events[-1].error.reason == errors.Unavailable.reason


async def test_what_judges_an_answer_and_is_no_watch_is_a_failure() -> None:
    """It is known before anybody is asked."""

    class NoWatch(Hook):
        def watch(self, asked: Asked, request: Any) -> Any:
            return "x"

    there = world(NoWatch())
    with pytest.raises(errors.Unavailable):
        await there.ask()
    assert there.asked == []
    assert (await world(NoWatch(), fails_open=True).ask())[0] == "I am a"


async def test_an_answer_that_cannot_be_judged_ends_in_an_error() -> None:
    """Closed: its caller is told that it did not end, and pays for what it got: here, for nothing."""

    def broken(event: Any) -> None:
        raise ZeroDivisionError

    there = world(Watching(broken))
    there.play("a", text(said("one")), ended())
    got, events, answer = await there.ask()
    assert got == ""
    assert events[-1].error.reason == errors.Unavailable.reason
    assert not answer.succeeded
    assert [row[1:] for row in there.ledger.rows] == [(0, 0, "voided")]
    assert there.calls[0].ended == "closed"


async def test_a_policy_that_cannot_let_go_harms_no_answer() -> None:
    """It is over by then, and charged."""

    class Clinging(Watch):
        def close(self) -> None:
            raise ZeroDivisionError

    class Clings(Hook):
        def watch(self, asked: Asked, request: Any) -> Watch:
            return Clinging()

    there = world(Clings())
    assert (await there.ask())[0] == "I am a"
    assert [row[1:3] for row in there.ledger.rows] == [(7, 5)]
