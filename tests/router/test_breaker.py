"""Circuit breakers: when a target is left alone, and how it comes back."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from services.catalogue import Model
from services.common import errors
from services.common.errors import MoaError
from services.router.domain.breaker import LIMIT, LONGEST_REST_S, PROBE_S, REST_S, Breakers
from services.router.domain.caller import Caller
from tests.router.rig import ended, said, text
from tests.router.world import World

MODEL = Model(id="m", provider="p")
DOWN = errors.UpstreamFailed("down")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breakers(clock: Clock) -> Breakers:
    return Breakers(clock, jitter=lambda: 0.0)


def fail(breakers: Breakers, times: int = LIMIT, error: MoaError = DOWN) -> None:
    for _ in range(times):
        breakers.failed(MODEL, error)


def test_failures_in_a_row_open_it(breakers: Breakers) -> None:
    """Five do; an answer in between begins the count anew; another model of the provider is not touched."""
    fail(breakers, LIMIT - 1)
    breakers.finished(MODEL)
    fail(breakers, LIMIT - 1)
    assert breakers.admits(MODEL)
    fail(breakers, 1)
    assert not breakers.admits(MODEL)
    assert breakers.admits(Model(id="other", provider="p"))


@pytest.mark.parametrize("kind", [errors.InvalidField, errors.ContentPolicy, errors.ContextTooLong, errors.QueueFull])
def test_what_is_not_the_targets_fault_does_not_count(breakers: Breakers, kind: type[MoaError]) -> None:
    """Refusals of requests, and a full queue, say nothing against the target."""
    fail(breakers, LIMIT * 2, kind("no"))
    assert breakers.admits(MODEL)


def test_one_probe_closes_it(breakers: Breakers, clock: Clock) -> None:
    """After its rest one request tries it, alone; when that begins to be answered, everybody may."""
    fail(breakers)
    clock.now = REST_S - 0.1
    assert not breakers.admits(MODEL)
    clock.now = REST_S
    assert [breakers.admits(MODEL) for _ in range(3)] == [True, False, False]
    breakers.began(MODEL)
    assert [breakers.admits(MODEL) for _ in range(3)] == [True, True, True]


def test_it_is_on_probation_until_an_answer_is_whole(breakers: Breakers, clock: Clock) -> None:
    """One failure after the probe began opens it again; a whole answer wipes the slate."""
    fail(breakers)
    clock.now = REST_S
    assert breakers.admits(MODEL)
    breakers.began(MODEL)
    fail(breakers, 1)
    assert not breakers.admits(MODEL)
    clock.now += REST_S * 2
    assert breakers.admits(MODEL)
    breakers.finished(MODEL)
    fail(breakers, LIMIT - 1)
    assert breakers.admits(MODEL)


def test_a_failed_probe_doubles_the_rest(breakers: Breakers, clock: Clock) -> None:
    """Up to a minute; failures of requests that began before count for nothing meanwhile."""
    fail(breakers)
    for rest_s in (REST_S, 10, LONGEST_REST_S, LONGEST_REST_S):
        fail(breakers, LIMIT)
        clock.now += rest_s - 0.1
        assert not breakers.admits(MODEL), rest_s
        clock.now += 0.2
        assert breakers.admits(MODEL), rest_s
        fail(breakers, 1)


def test_a_probe_that_is_never_heard_of_again_does_not_keep_it_shut(breakers: Breakers, clock: Clock) -> None:
    """Its caller may have left: another request tries after a while."""
    fail(breakers)
    clock.now = REST_S
    assert breakers.admits(MODEL)
    clock.now += PROBE_S - 0.1
    assert not breakers.admits(MODEL)
    clock.now += 0.1
    assert breakers.admits(MODEL)


def test_a_retry_time_lengthens_the_rest(breakers: Breakers, clock: Clock) -> None:
    """As long as the provider asks, up to the longest rest."""
    fail(breakers, error=errors.UpstreamRateLimited("slow down", retry_after_s=15))
    clock.now = 14
    assert not breakers.admits(MODEL)
    clock.now = 15
    assert breakers.admits(MODEL)


def test_its_state_is_seen(breakers: Breakers, clock: Clock) -> None:
    """A gauge tells who is left alone, and a line each time that this changes."""

    def gauge() -> float | None:
        return REGISTRY.get_sample_value("moa_target_open", {"provider": "p", "model": "m"})

    target = {"source": "breaker", "provider": "p", "model": "m"}
    opened = {"event": "breaker.opened", "log_level": "warning", "reason": "upstream_failed", "rest_s": REST_S} | target
    # The package's tests are quiet otherwise.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    with capture_logs() as lines:
        fail(breakers)
        assert gauge() == 1
        assert lines == [opened]
        clock.now = REST_S
        assert breakers.admits(MODEL)
        assert lines == [opened]
        breakers.began(MODEL)
    assert gauge() == 0
    assert lines == [opened, {"event": "breaker.closed", "log_level": "info", **target}]


async def failing(world: World, times: int, error: MoaError = DOWN) -> None:
    """Let `a` fail at so many requests, each of which is answered all the same."""
    for _ in range(times):
        world.play("a", error)
        assert (await world.ask())[0] == "I am b"


async def test_a_target_that_fails_is_passed_over_until_its_probe() -> None:
    """Requests go straight to the next target; after the rest one tries, and then all come back."""
    world = World()
    await failing(world, LIMIT)
    await world.ask()
    assert world.order == "ab" * LIMIT + "b"
    world.now += REST_S
    assert (await world.ask())[0] == "I am a"
    assert (await world.ask())[0] == "I am a"


async def test_streams_that_break_open_it_too() -> None:
    """A target that begins every answer and ends none is no better than one that refuses."""
    world = World(a={"fallback": ()})
    broken: Any = errors.UpstreamBroken("broke")
    for _ in range(LIMIT):
        world.play("a", text(said("I")), broken)
        await world.ask()
    assert world.breakers.is_open(world.catalogue.find("a"))


async def test_a_lone_target_is_asked_all_the_same() -> None:
    """Where there is nobody else, a try is better than a sure refusal; but nobody waits to try twice."""
    world = World(a={"fallback": ()})
    for _ in range(LIMIT + 2):
        world.play("a", DOWN)
    for _ in range(3):
        with pytest.raises(errors.UpstreamFailed):
            await world.ask()
    assert world.order == "a" * (3 + 2 + 1)
    world.scripts.clear()
    assert (await world.ask())[0] == "I am a"
    assert not world.breakers.is_open(world.catalogue.find("a"))


async def test_callers_own_keys_say_nothing_of_the_operators() -> None:
    """What goes wrong with a key that the caller brought opens nothing for others."""
    world = World()
    stranger = Caller(key="k", request_id="r", own_key="AIza-theirs")
    world.catalogue.providers = {
        name: type(row)(id=name, adapter="gemini", makes="text", base_url="x", caller_keys="AIza")
        for name, row in world.catalogue.providers.items()
    }
    for _ in range(LIMIT):
        world.play("a", errors.UpstreamRateLimited("no"))
        assert (await world.ask(caller=stranger))[0] == "I am b"
    assert (await world.ask())[0] == "I am a"


async def test_a_whole_answer_leaves_no_state() -> None:
    """Targets that are well cost nothing: nothing is kept of them."""
    world = World()
    await failing(world, 2)
    world.play("a", text(said("well")), ended())
    await world.ask()
    assert len(world.breakers) == 0
