"""Providers' limits, known beforehand: what would be refused is not asked; it goes elsewhere, or waits in turns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa.common.v1.rates_pb2 import UpstreamRates
from moa.quota.v1 import quota_pb2
from services.catalogue import Rates, Route, RouteTarget
from services.common import errors
from services.common.errors import RateLimited
from services.router.domain.caller import Caller
from services.router.domain.failures import HeldBack
from services.router.domain.fair_queue import MOST_OF_ACCOUNT, FairQueue, QueueFull
from services.router.domain.upstreams import LEARNED_S, Rate, Upstreams
from tests.router.rig import ended, said, text
from tests.router.world import World


class Turn:
    def __init__(self, paces: Paces, names: Sequence[str], tokens: int) -> None:
        self._paces, self._names, self._tokens = paces, names, tokens
        self.used: list[int | None] = []

    def end(self, used: int | None = None) -> None:
        assert self.used == []
        self.used.append(used)
        for name in self._names:
            self._paces.running[name] -= 1
            self._paces.tokens[name] += self._tokens - (self._tokens if used is None else used)


class Paces:
    """Counts requests by name, without time: so many in all."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}
        self.tokens: dict[str, int] = {}
        self.running: dict[str, int] = {}
        self.seen: dict[str, quota_pb2.Pace] = {}
        self.turns: list[Turn] = []
        self.reports: list[tuple[str, int | None, int | None, float]] = []
        self.warm = False
        """Whether a turn needs no call."""

    def turn(self, rates: Sequence[Rate], tokens: int) -> Turn | None:
        return self._taken(rates, tokens) if self.warm else None

    async def enter(self, rates: Sequence[Rate], tokens: int) -> Turn:
        await asyncio.sleep(0)
        return self._taken(rates, tokens)

    def _taken(self, rates: Sequence[Rate], tokens: int) -> Turn:
        for name, pace in rates:
            self.seen[name] = pace
            if pace.requests_per_minute and self.asked.get(name, 0) >= pace.requests_per_minute:
                raise RateLimited("no more", retry_after_s=7.0)
            self.tokens.setdefault(name, pace.tokens_per_minute)
            if pace.tokens_per_minute and self.tokens[name] < tokens:
                raise RateLimited("no more", retry_after_s=9.0)
            if pace.concurrent_requests and self.running.get(name, 0) >= pace.concurrent_requests:
                raise RateLimited("no more", retry_after_s=1.0)
        for name, _ in rates:
            self.asked[name] = self.asked.get(name, 0) + 1
            self.running[name] = self.running.get(name, 0) + 1
            self.tokens[name] -= tokens
        self.turns.append(Turn(self, [name for name, _ in rates], tokens))
        return self.turns[-1]

    def left(self, rates: Sequence[Rate], tokens: int) -> float:
        return min(1 - self.asked.get(name, 0) / pace.requests_per_minute for name, pace in rates)

    def reported(self, rate: Rate, *, requests: int | None, tokens: int | None, wait_s: float) -> None:
        self.reports.append((rate[0], requests, tokens, wait_s))


def limited(of: dict[str, Rates], *, of_models: dict[str, Rates] | None = None, **changes: Any) -> tuple[World, Paces]:
    """Return a world in which providers have limits."""
    rates = {name: {"rates": value} for name, value in (of_models or {}).items()}
    paces = Paces()
    rows: Any = {name: {**rates.get(name, {}), **changes.get(name, {})} for name in {*rates, *changes}}
    return World(rates=of, paces=paces, **rows), paces


def upstreams_of(world: World) -> Upstreams:
    assert world.upstreams is not None
    return world.upstreams


async def _moment(_: float) -> None:
    await asyncio.sleep(0)


def caller(*, max_wait_s: float = 0.0) -> Caller:
    return Caller(key="k", request_id="rid", max_wait_s=max_wait_s)


async def test_a_target_at_its_limit_is_passed_over() -> None:
    """The next one answers, without a call of the first, which is neither sick nor well for it."""
    world, paces = limited({"one": Rates(requests_per_minute=1)})
    assert (await world.ask())[0] == "I am a"
    for _ in range(8):
        assert (await world.ask())[0] == "I am b"
    assert world.order == "abbbbbbbb"
    assert len(world.breakers) == 0
    assert world.pauses == []
    assert paces.asked == {"one": 1}


async def test_nobody_else_is_a_429_that_says_when() -> None:
    """Without another target, and with no word of waiting, the caller is told at once, and pays nothing."""
    world, _ = limited({"one": Rates(requests_per_minute=1)}, a={"fallback": ()})
    await world.ask()
    with pytest.raises(HeldBack) as refused:
        await world.ask()
    assert refused.value.retry_after_s == 7.0
    assert world.order == "a"
    assert [row[3] for row in world.ledger.rows] == ["a", "released"]


async def test_a_caller_that_waits_is_served_when_there_is_room() -> None:
    """It is asked once, when the one that runs has ended."""
    world, paces = limited({"one": Rates(concurrent_requests=1)}, a={"fallback": ()})
    running = await world.begin()
    waiting = asyncio.create_task(world.begin(caller=caller(max_wait_s=30)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.order == "a"
    assert upstreams_of(world).waiting(world.catalogue.find("a")) == 1
    with pytest.raises(HeldBack):
        await world.begin()  # who does not wait passes nobody who does
    async with running:
        while await running.next():
            pass
    async with await waiting as answer:
        while await answer.next():
            pass
    assert world.order == "aa"
    assert paces.running == {"one": 0}


async def test_waiting_ends_when_the_caller_wishes() -> None:
    """In vain, it is told what it would have been told at once."""
    world, paces = limited({"one": Rates(requests_per_minute=1)}, a={"fallback": ()})
    await world.ask()
    with pytest.raises(HeldBack):
        await world.begin(caller=caller(max_wait_s=0.02))
    assert paces.running == {"one": 0}
    assert world.order == "a"


async def test_who_leaves_while_it_waits_leaves_at_once() -> None:
    """It holds no place, and its quota goes back."""
    world, paces = limited({"one": Rates(concurrent_requests=1)}, a={"fallback": ()})
    running = await world.begin()
    leaver = asyncio.create_task(world.begin(caller=caller(max_wait_s=30)))
    for _ in range(5):
        await asyncio.sleep(0)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    assert upstreams_of(world).waiting(world.catalogue.find("a")) == 0
    async with running:
        pass
    assert len(world.ledger.open) == 0
    assert paces.running == {"one": 0}


@pytest.mark.parametrize("warm", [False, True])
async def test_what_was_set_aside_is_settled_by_what_was_used(warm: bool) -> None:
    """By the provider's count at the end; all of it where a call is left; nothing where it refused."""
    world, paces = limited({"one": Rates(tokens_per_minute=10_000)}, a={"fallback": ()})
    paces.warm = warm
    world.play("a", text(said("x")), ended())
    await world.ask()
    async with await world.begin():
        pass
    world.play("a", errors.UpstreamRateLimited("no", retry_after_s=60))
    with pytest.raises(errors.UpstreamRateLimited):
        await world.ask()
    assert [turn.used for turn in paces.turns] == [[12], [None], [0]]


async def test_a_rescue_keeps_the_limits_too() -> None:
    """An answer that goes on elsewhere counts there, and its first target counts what it might have used."""
    world, paces = limited({"one": Rates(requests_per_minute=9), "two": Rates(requests_per_minute=9)})
    world.play("a", text(said("one ")), errors.UpstreamBroken("broke"))
    world.play("b", text(said("one two")), ended())
    assert (await world.ask())[0] == "one two"
    assert paces.asked == {"one": 1, "two": 1}
    assert paces.running == {"one": 0, "two": 0}


async def test_a_model_counts_in_its_own_limit_and_its_providers() -> None:
    """Both bind; a model that has none, of a provider that has none, has no turn at all."""
    world, paces = limited(
        {"one": Rates(requests_per_minute=9)}, of_models={"a": Rates(tokens_per_minute=500, requests_per_minute=4)}
    )
    await world.ask()
    assert set(paces.asked) == {"one", "one/a"}
    await world.ask(model="b")
    assert set(paces.asked) == {"one", "one/a"}
    upstreams = upstreams_of(world)
    assert upstreams.left(world.catalogue.find("a"), 10) == 0.75
    assert upstreams.left(world.catalogue.find("b"), 10) == 1.0


async def test_a_virtual_model_spreads_over_keys_by_what_is_left() -> None:
    """With `most_headroom` each request goes to the key with most left, so that all are used up together; then the
    caller is told."""
    targets = tuple(RouteTarget(model=name) for name in "abc")
    rates = {
        "one": Rates(requests_per_minute=2),
        "two": Rates(requests_per_minute=6),
        "three": Rates(requests_per_minute=4),
    }
    paces = Paces()
    route = Route(id="team", targets=targets, strategy="most_headroom")
    world = World(rates=rates, paces=paces, routes=[route])
    for _ in range(12):
        await world.ask(model="team")
    assert paces.asked == {"one": 2, "two": 6, "three": 4}
    assert {name: world.order[:6].count(name) for name in "abc"} == {"a": 1, "b": 3, "c": 2}
    with pytest.raises(HeldBack):
        await world.ask(model="team")


async def test_limits_are_learned_from_answers_for_a_while() -> None:
    """What a provider says of a model is kept to for a while; each number that the operator says counts before it."""
    world, paces = limited({}, of_models={"b": Rates(requests_per_minute=100)}, a={"fallback": ()})
    upstreams = upstreams_of(world)
    a, b = world.catalogue.find("a"), world.catalogue.find("b")
    assert upstreams.rates(a) == ()
    upstreams.learn(
        a, UpstreamRates(requests_per_minute=1, requests_left=1, tokens_per_minute=50_000, tokens_left=49_000)
    )
    upstreams.learn(b, UpstreamRates(requests_per_minute=1, requests_left=0, tokens_per_minute=70_000))
    assert paces.reports == [("one/a", 1, 49_000, 0.0), ("two/b", 0, None, 0.0)]
    await world.ask()
    assert paces.seen["one/a"] == quota_pb2.Pace(requests_per_minute=1, tokens_per_minute=50_000)
    with pytest.raises(HeldBack):
        await world.ask()
    await world.ask(model="b")
    assert paces.seen["two/b"] == quota_pb2.Pace(requests_per_minute=100, tokens_per_minute=70_000)
    world.now += LEARNED_S + 1
    assert upstreams.rates(a) == ()
    await world.ask()


async def test_what_an_answer_tells_of_limits_is_learned_and_told_to_no_caller() -> None:
    """It comes with the end of an answer; the next request is held to it. A refusal with a time rests the model."""
    world, paces = limited({}, a={"fallback": ()})
    last = ended()
    last.events[-1].finished.rates.CopyFrom(UpstreamRates(requests_per_minute=3, requests_left=2))
    world.play("a", text(said("x")), last)
    _, events, _ = await world.ask()
    assert events[-1].HasField("finished")
    assert not events[-1].finished.HasField("rates")
    assert paces.reports == [("one/a", 2, None, 0.0)]
    world.play("a", errors.UpstreamRateLimited("no", retry_after_s=600))
    with pytest.raises(errors.UpstreamRateLimited):
        await world.ask()
    assert paces.seen["one/a"].requests_per_minute == 3
    assert paces.reports[1:] == [("one/a", None, None, 60.0)]


async def test_accounts_take_turns_whatever_each_has_waiting() -> None:
    """Ten of one account do not go before the one of another that came after them."""
    room = asyncio.Event()
    order: list[str] = []

    async def take(name: str) -> str | float:
        if not room.is_set():
            return 1.0
        order.append(name)
        return name

    def wait(account: str, number: int) -> asyncio.Task[str]:
        name = f"{account}{number}"
        return asyncio.create_task(queue.wait(account, lambda: take(name)))

    queue: FairQueue[str] = FairQueue(_moment, order.remove, lambda _: None)
    waiting = [wait("a", number) for number in range(10)]
    await asyncio.sleep(0)
    waiting += [wait("b", 0), wait("c", 0), wait("b", 1)]
    await asyncio.sleep(0)
    assert len(queue) == 13
    room.set()
    await asyncio.gather(*waiting)
    assert order[:6] == ["a0", "b0", "c0", "a1", "b1", "a2"]
    assert order[6:] == [f"a{number}" for number in range(3, 10)]
    assert len(queue) == 0


async def test_a_queue_is_bounded_for_each_account() -> None:
    """The place of others is not filled by one."""

    async def never() -> float:
        return 1.0

    queue: FairQueue[str] = FairQueue(_moment, lambda _: None, lambda _: None)
    waiting = [asyncio.create_task(queue.wait("a", never)) for _ in range(MOST_OF_ACCOUNT)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await queue.wait("a", never)
    other = asyncio.create_task(queue.wait("b", never))
    await asyncio.sleep(0)
    assert len(queue) == MOST_OF_ACCOUNT + 1
    for task in (*waiting, other):
        task.cancel()
    await asyncio.gather(*waiting, other, return_exceptions=True)
    assert len(queue) == 0
    await queue.aclose()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=20), st.integers(0, 10))
def test_whatever_is_given_is_taken_or_given_back(waiters: list[tuple[str, bool]], room: int) -> None:
    """However many leave, and when: what one got that had left is there for the next."""

    async def tried() -> None:
        free, got = room, 0

        async def take() -> int | float:
            nonlocal free
            await asyncio.sleep(0)
            if not free:
                return 1.0
            free -= 1
            return 1

        def back(_: int) -> None:
            nonlocal free
            free += 1

        queue: FairQueue[int] = FairQueue(_moment, back, lambda _: None)
        tasks = [asyncio.create_task(queue.wait(account, take)) for account, _ in waiters]
        for task, (_, leaves) in zip(tasks, waiters, strict=True):
            await asyncio.sleep(0)
            if leaves:
                task.cancel()
        for _ in range(200):
            await asyncio.sleep(0)
        got = sum(1 for task in tasks if task.done() and not task.cancelled())
        assert free + got == room
        assert got == min(room, sum(1 for task in tasks if not task.cancelled()))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(queue) == 0
        await queue.aclose()

    asyncio.run(tried())
