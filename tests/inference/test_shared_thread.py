"""A thread that works share: who has had the least of it goes next, and what takes long holds nobody up."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import pytest

from inference.fair import Flow
from inference.shared_thread import SharedThread
from services.common.errors import InvalidField, QueueFull

HEAVY, LIGHT, HIGH = Flow("heavy"), Flow("light"), Flow("first", "high")
TIMEOUT_S = 20


class Clock:
    """Every piece takes a second of it."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 1.0
        return self._now


class World:
    """SharedThread, and the order in which pieces were done."""

    def __init__(self, **settings: Any) -> None:
        self.turns = SharedThread("test", clock=Clock(), **settings)
        self.order: list[str] = []
        self.gate = threading.Event()
        self.closed = threading.Event()

    def pieces(self, name: str, count: int, first: Callable[[], object] = bool) -> Generator[None, None, str]:
        """A work of so many pieces; `first` is called before the first."""
        try:
            for n in range(count):
                if n:
                    yield
                else:
                    first()
                self.order.append(name)
        finally:
            self.closed.set()
        return f"{name} done"

    async def held(self) -> asyncio.Task[str]:
        """Have the thread wait amid a piece until the gate opens, so that others queue up."""
        reached = threading.Event()

        def hold() -> None:
            reached.set()
            assert self.gate.wait(TIMEOUT_S)

        task = asyncio.create_task(self.turns.do(self.pieces("held", 1, hold), flow=Flow("holder")))
        await asyncio.to_thread(reached.wait, TIMEOUT_S)
        return task

    def ask(self, name: str, count: int, flow: Flow, **more: int) -> asyncio.Task[str]:
        return asyncio.create_task(self.turns.do(self.pieces(name, count), flow=flow, **more))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(most_waiting=100)
    yield world
    world.gate.set()
    world.turns.stop()


async def run(world: World, held: asyncio.Task[str], *tasks: asyncio.Task[Any]) -> list[Any]:
    await asyncio.sleep(0)  # each has asked
    world.gate.set()
    async with asyncio.timeout(TIMEOUT_S):
        return await asyncio.gather(held, *tasks)


async def test_a_short_work_waits_for_one_piece_of_a_long_one(world: World) -> None:
    """A chat's prompt behind eight texts of a hundred pieces each is done after one piece of theirs at most."""
    held = await world.held()
    flood = [world.ask("long", 100, HEAVY) for _ in range(8)]
    chat = world.ask("chat", 1, LIGHT)
    answers = await run(world, held, *flood, chat)
    assert answers[-1] == "chat done"
    assert world.order.index("chat") <= 2
    assert world.order.count("long") == 800


async def test_the_loop_goes_on_meanwhile(world: World) -> None:
    """A piece that takes long holds the thread, and not the loop."""
    held = await world.held()
    for _ in range(1_000):
        await asyncio.sleep(0)
    assert not held.done()
    await run(world, held)


async def test_flows_share_by_time_and_weight(world: World) -> None:
    """Of two floods each has half of the thread; one of a higher priority four times as much."""
    held = await world.held()
    await run(world, held, world.ask("a", 60, HEAVY), world.ask("b", 60, LIGHT), world.ask("c", 60, HIGH))
    early = world.order[1:61]
    assert abs(early.count("a") - early.count("b")) <= 2
    assert 3 < early.count("c") / early.count("a") < 5


async def test_an_accounts_own_works_take_turns(world: World) -> None:
    """Its short text does not wait for its long one to end."""
    held = await world.held()
    await run(world, held, world.ask("long", 50, HEAVY), world.ask("short", 2, HEAVY))
    assert world.order.index("short") == 2
    assert world.order[1:5].count("short") == 2


async def test_who_leaves_is_not_worked_for(world: World) -> None:
    """What is left of a work is not done, and what it holds is let go of."""
    held = await world.held()
    leaving = world.ask("left", 100, HEAVY)
    await asyncio.sleep(0)
    leaving.cancel()
    await run(world, held, world.ask("after", 1, LIGHT))
    await run(world, asyncio.create_task(world.turns.do(world.pieces("last", 1), flow=HEAVY)))
    assert "left" not in world.order


async def test_long_works_rest_beside_others_work_until_something_new_comes() -> None:
    """A piece that took so long is followed by a rest of twice as long; a new work is done at once all the same."""
    begun = threading.Event()
    # A piece takes a thousand seconds of this clock, so that the rest after it lasts longer than the test.
    ticks = itertools.count(step=1_000)
    thread = SharedThread("test", busy=lambda: True, clock=lambda: float(next(ticks)))
    world = World()
    long = asyncio.create_task(thread.do(world.pieces("long", 3, begun.set), flow=HEAVY))
    await asyncio.to_thread(begun.wait, TIMEOUT_S)
    async with asyncio.timeout(TIMEOUT_S):
        assert await thread.do(world.pieces("new", 1), flow=LIGHT) == "new done"
    assert world.order[:2] == ["long", "new"]
    assert not long.done()
    long.cancel()
    thread.stop()


async def test_what_a_work_raises_its_caller_hears(world: World) -> None:
    """And the thread goes on."""

    def fails() -> Generator[None, None, None]:
        yield
        raise InvalidField("bad")

    with pytest.raises(InvalidField):
        await world.turns.do(fails())
    assert await world.turns.do(world.pieces("next", 2)) == "next done"


async def test_too_much_waiting_is_refused_and_leaves_room_for_others(world: World) -> None:
    """One flow may have as much as is set; another finds room all the same, and the first again when it is done."""
    held = await world.held()
    flood = [world.ask("big", 1, HEAVY, size=45) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull) as refused:
        await world.turns.do(world.pieces("more", 1), flow=HEAVY, size=45)
    assert refused.value.retry_after_s
    other = world.ask("other", 1, LIGHT, size=45)
    await run(world, held, *flood, other)
    assert await world.turns.do(world.pieces("again", 1), flow=HEAVY, size=100) == "again done"


async def test_a_work_without_size_is_never_refused(world: World) -> None:
    """A chat of some words always finds its place behind a flood."""
    held = await world.held()
    flood = world.ask("big", 1, HEAVY, size=100)
    await run(world, held, flood, world.ask("chat", 1, HEAVY))
