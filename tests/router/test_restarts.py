"""A target whose process is being started again is waited for, within bounds."""

from __future__ import annotations

import pytest

from services.common import errors
from services.router.domain.attempts import LOOK_S
from services.router.domain.caller import Caller
from tests.router.test_attempts import failing
from tests.router.world import World


async def test_a_process_that_is_started_again_is_waited_for() -> None:
    """A lone target whose process is away is looked for until it is back. To look is no try: what may pass is still
    tried twice more afterwards, under the same reservation, and no breaker opens."""
    world = World(a={"fallback": ()})
    world.play("a", failing(errors.UpstreamOverloaded))
    world.away = 20
    assert (await world.ask())[0] == "I am a"
    assert world.pauses == [LOOK_S] * 20 + [0.5]
    assert world.order == "aa"
    assert world.ledger.rows == [("r1", 7, 5, "a")]


async def test_a_process_that_died_with_a_call_is_waited_for() -> None:
    """The call is made anew when its target's process is back, under another id than the dead one had."""
    world = World(a={"fallback": ()})
    world.play("a", failing(errors.Unavailable))
    world.away_after = 1
    assert (await world.ask())[0] == "I am a"
    assert world.pauses == [0.5, *[LOOK_S] * 10]
    assert world.ledger.rows == [("r1", 0, 0, "voided"), ("r2", 7, 5, "a")]


async def test_a_fallback_answers_before_a_process_is_back() -> None:
    """Nobody waits where another may answer at once."""
    world = World()
    world.away = 1_000
    said, _, _ = await world.ask()
    assert (said, world.order, world.pauses) == ("I am b", "b", [])


async def test_nobody_waits_for_a_process_beyond_the_callers_deadline() -> None:
    """A caller with two seconds is told after two that a part is being started again; nothing is charged."""
    world = World(a={"fallback": ()})
    world.away = 1_000
    with pytest.raises(errors.Unavailable):
        await world.begin(caller=Caller(key="k", request_id="rid", until=world.now + 2))
    assert sum(world.pauses) == pytest.approx(2, abs=LOOK_S)
    assert world.ledger.rows == [("r1", 0, 0, "released")]


async def test_what_a_process_says_once_it_is_back_is_told() -> None:
    """That it was away is told no more, though that would pass by itself: it has passed."""
    world = World(a={"fallback": ()})
    world.play("a", failing(errors.UpstreamAuth))
    world.away = 3
    with pytest.raises(errors.UpstreamAuth):
        await world.ask()
    assert world.pauses == [LOOK_S] * 3
