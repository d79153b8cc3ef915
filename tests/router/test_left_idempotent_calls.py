"""Requests with an idempotency key whose callers leave, whose answers are large, and whose store is away."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from moa.idempotency.v1 import idempotency_service_pb2 as pb
from services.common.errors import (
    AnswerLost,
    MoaError,
    NotFound,
    RequestRunning,
    Unavailable,
    UpstreamBroken,
)
from services.router.idempotency import calls as module
from tests.router.idempotency import TIMEOUT_S, Context, World, body


@pytest.fixture
def world() -> World:
    return World()


async def test_who_leaves_while_claiming_leaves_no_claim(world: World) -> None:
    """Nothing was begun, so the key is free again."""
    claimed, go = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        claimed.set()
        await go.wait()

    world.claims.answering = slow
    leaving = asyncio.create_task(world.ask(Context("k")))
    await asyncio.wait_for(claimed.wait(), TIMEOUT_S)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    go.set()
    await asyncio.wait_for(world.claims.told.wait(), TIMEOUT_S)
    assert (world.did, world.claims.claims) == (0, {})


async def test_a_claim_whose_answer_got_lost_is_given_back(world: World) -> None:
    """Whoever cannot tell whether it has claimed refuses the request, does nothing, and leaves the key free."""

    async def lost() -> None:
        raise Unavailable("the connection broke")

    world.claims.answering = lost
    with pytest.raises(Unavailable):
        await world.ask(Context("k"))
    await asyncio.wait_for(world.claims.told.wait(), TIMEOUT_S)
    assert (world.did, world.claims.claims) == (0, {})


async def test_work_goes_on_without_its_caller(world: World) -> None:
    """A caller whose connection breaks asks again, and has the whole answer of the work that was begun."""
    go = asyncio.Event()

    async def work(request: Any, context: Any) -> None:
        assert context.time_remaining() is None
        await context.write(body("one "))
        await go.wait()
        for _ in range(40):
            await context.write(body("two"))

    world.work = work
    context = Context("k")
    leaving = asyncio.create_task(world.ask(context))
    await asyncio.wait_for(context.wrote.wait(), TIMEOUT_S)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    go.set()
    await asyncio.wait_for(world.claims.told.wait(), TIMEOUT_S)
    again = Context("k")
    await world.ask(again)
    assert b"".join(message.data for message in again.messages) == b"one " + 40 * b"two"
    assert world.did == 1


async def test_a_caller_who_cannot_be_written_to_has_left(world: World) -> None:
    """Its call ends by that error; the work goes on."""

    class Gone(Context):
        async def write(self, message: Any) -> None:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        await world.ask(Gone("k"))
    await asyncio.wait_for(world.claims.told.wait(), TIMEOUT_S)
    again = Context("k")
    await world.ask(again)
    assert again.replayed


async def test_a_slow_reader_is_not_outrun(world: World) -> None:
    """The work is some messages ahead of its caller, not all of them."""
    ahead: list[int] = []
    go = asyncio.Event()

    async def work(request: Any, context: Any) -> None:
        for n in range(100):
            await context.write(body(f"{n} "))
            ahead.append(n)

    class Slow(Context):
        async def write(self, message: Any) -> None:
            await super().write(message)
            await go.wait()

    world.work = work
    context = Slow("k")
    asking = asyncio.create_task(world.ask(context))
    await asyncio.wait_for(context.wrote.wait(), TIMEOUT_S)
    for _ in range(200):
        await asyncio.sleep(0)
    assert 0 < len(ahead) < 20
    go.set()
    await asking
    assert len(context.messages) == 100


async def test_an_answer_beyond_the_bound_is_given_once() -> None:
    """The first caller has all of it; who asks again is told that it is too large to be kept, and not to try again."""
    world = World(answer_bytes=1_000)

    async def work(request: Any, context: Any) -> None:
        for _ in range(4):
            await context.write(body("x" * 400))

    world.work = work
    first = Context("k")
    await world.ask(first)
    assert len(first.messages) == 4
    with pytest.raises(AnswerLost, match="larger than is kept") as refused:
        await world.ask(Context("k"))
    assert ("x-should-retry", "false") in refused.value.headers
    assert world.did == 1


@pytest.mark.parametrize("leaves", ["before the bound", "behind it"])
async def test_nobody_works_for_an_answer_that_nobody_can_have(leaves: str) -> None:
    """Once an answer is too large to be kept, its caller's leaving ends the work as without a key."""
    world = World(answer_bytes=1_000)
    ended, go, large = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(request: Any, context: Any) -> None:
        try:
            await context.write(body("x"))
            if leaves == "before the bound":
                await go.wait()
            await context.write(body("x" * 2_000))
            large.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    world.work = work
    context = Context("k")
    asking = asyncio.create_task(world.ask(context))
    await asyncio.wait_for((context.wrote if leaves == "before the bound" else large).wait(), TIMEOUT_S)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    go.set()
    await asyncio.wait_for(ended.wait(), TIMEOUT_S)
    await asyncio.wait_for(world.claims.told.wait(), TIMEOUT_S)
    with pytest.raises(AnswerLost):
        await world.ask(Context("k"))


async def test_memory_of_answers_is_given_back(world: World) -> None:
    """Whether kept, failed or too large."""
    left = world.once.free_bytes

    async def fails(request: Any, context: Any) -> None:
        await context.write(body("a part"))
        raise UpstreamBroken("broke")

    async def large(request: Any, context: Any) -> None:
        for _ in range(5):
            await context.write(body("x" * (4 << 20)))

    for key, work in (("a", world.answer), ("b", fails), ("c", large)):
        world.work = work
        with contextlib.suppress(MoaError):
            await world.ask(Context(key))
    assert world.once.free_bytes == left


async def test_an_answer_waits_for_a_store_that_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept when the store is back."""
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    world.claims.away = 3
    first, again = Context("k"), Context("k")
    await world.ask(first)
    await world.ask(again)
    assert first.messages == again.messages
    assert world.did == 1


async def test_a_caller_does_not_wait_for_a_store_that_stays_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer ends all the same; until it is kept, who asks again is told that it runs."""
    monkeypatch.setattr(module, "KEEPING_S", 0.0)
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    world.claims.away = 1_000_000
    await world.ask(Context("k"))
    with pytest.raises(RequestRunning):
        await world.ask(Context("k"))
    world.claims.away = 0
    await asyncio.wait_for(world.claims.told.wait(), TIMEOUT_S)
    await world.ask(again := Context("k"))
    assert again.replayed


async def test_an_answer_that_has_just_gone_is_lost(world: World) -> None:
    """Between the claim and the reading it may be forgotten."""
    await world.ask(Context("k"))
    claims = world.claims

    async def gone(claim_id: str) -> pb.StoredAnswer:
        raise NotFound("gone")

    claims.read = gone  # type: ignore[method-assign]
    with pytest.raises(AnswerLost):
        await world.ask(Context("k"))


async def test_at_the_end_work_without_callers_is_interrupted(world: World) -> None:
    """A router that stops does not wait for it."""
    never = asyncio.Event()

    async def work(request: Any, context: Any) -> None:
        await context.write(body("x"))
        await never.wait()

    world.work = work
    context = Context("k")
    asking = asyncio.create_task(world.ask(context))
    await asyncio.wait_for(context.wrote.wait(), TIMEOUT_S)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(world.once.aclose(0), TIMEOUT_S)
    assert world.once.working == 0
