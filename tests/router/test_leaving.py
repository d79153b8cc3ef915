"""Callers who leave, and attempts that are given up: who pays for what (docs/charging.md)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moa.common.v1 import usage_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common import errors
from services.common.errors import MoaError
from services.router import metrics
from services.router.domain.caller import Caller
from services.router.operations.image import ImageCall
from services.router.operations.text import TextCall
from tests.counters import count_of
from tests.router.rig import ended, said, text
from tests.router.world import World

IMAGE = image_pb2.ImageEvent(image=image_pb2.Image())
DONE = image_pb2.ImageEvent(finished=image_pb2.ImageFinished(usage=usage_pb2.Usage(images=3)))
STEP = image_pb2.ImageEvent(progress=image_pb2.Progress(step=1, steps=4))


class Gate:
    """Holds a call after the messages before it, until the caller has left."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()


class Held:
    """A call that plays messages; at a `Gate` it waits."""

    def __init__(self, messages: list[Any]) -> None:
        self._left = messages
        self.cancelled = False

    async def read(self) -> Any:
        message = self._left.pop(0)
        if isinstance(message, Gate):
            message.reached.set()
            await asyncio.Event().wait()
        if isinstance(message, MoaError):
            raise message
        return message

    def cancel(self) -> None:
        self.cancelled = True

    def close(self) -> None: ...


def world_of(*messages: Any, makes: Any = "text") -> World:
    """Make a world whose model `a` plays this at its one call."""
    world = World(makes=makes, a={"fallback": ()})
    call = Held(list(messages))
    played: Any = world
    played.generate_text = played.generate_image = lambda *_, **__: call
    return world


async def leave(world: World, gate: Gate, work: Any) -> None:
    """Begin some work, and cancel it as a caller's leaving does once `gate` is reached."""
    task = asyncio.create_task(work)
    await asyncio.wait_for(gate.reached.wait(), 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await world.operations.aclose()


async def draw(world: World, count: int, *, whole: bool = False, wait: Gate | None = None) -> None:
    """Ask for images and read to the end, told what is delivered: each at once, or all at the end."""
    request = image_service_pb2.GenerateImageRequest(model="a", prompt="x", stream=not whole, count=count)
    answer = await world.operations.begin(ImageCall(request), Caller(key="k", request_id="rid"))
    made = 0
    async with answer:
        while (message := await answer.next()) is not None:
            images = sum(event.HasField("image") for event in message.events)
            made += images
            if not whole:
                answer.delivered(images)
        if wait is not None:
            wait.reached.set()
            await asyncio.Event().wait()
        answer.delivered(made)


@pytest.mark.parametrize("word", [None, usage_pb2.Usage(prompt_tokens=40, completion_tokens=3)])
async def test_before_the_first_event_only_the_backend_knows(word: usage_pb2.Usage | None) -> None:
    """Who leaves before anything was read pays what the backend says: the prompt where the work had begun, and nothing
    where the backend says nothing."""
    gate = Gate()
    world = world_of(gate)
    if word is not None:
        world.ledger.words["r1"] = word
    await leave(world, gate, world.ask())
    assert world.ledger.rows == [("r1", *((40, 3) if word else (0, 0)), "a?")]


async def test_signs_of_life_are_no_beginning() -> None:
    """A place in a queue was read and then the caller left: still only the backend knows."""
    gate = Gate()
    world = world_of(text(text_pb2.TextEvent(started=text_pb2.Started(model="a"))), gate)
    world.ledger.words["r1"] = usage_pb2.Usage(prompt_tokens=40)
    await leave(world, gate, world.ask())
    assert world.ledger.rows == [("r1", 40, 0, "a?")]


async def test_between_attempts_nothing_is_owed() -> None:
    """The caller leaves while the gateway waits to try again: the attempt that failed is the operator's."""
    paused = Gate()
    world = world_of(errors.UpstreamFailed("no"))
    world.ledger.words["r1"] = usage_pb2.Usage(prompt_tokens=40)

    async def pause(_: float) -> None:
        paused.reached.set()
        await asyncio.Event().wait()

    world.pause = pause  # type: ignore[method-assign,assignment]
    await leave(world, paused, world.ask())
    assert world.ledger.rows == [("r1", 0, 0, "voided")]


@pytest.mark.parametrize(("counted", "prompt"), [(5, 5), (None, 26)])
async def test_amid_a_stream_the_prompt_is_counted_or_bounded(counted: int | None, prompt: int) -> None:
    """Who leaves after two pieces, of a provider that reports at the end, owes the prompt as the provider counts it, by
    its bound where it does not count, and the two tokens that were delivered."""
    gate = Gate()
    world = world_of(text(said("one ")), text(said("two")), gate)
    if counted is not None:
        world.counts["a"] = counted
    await leave(world, gate, world.ask())
    assert world.counted == ["a"]
    assert world.ledger.rows == [("r1", prompt, 2, "a")]


async def test_amid_a_stream_what_was_reported_counts() -> None:
    """A provider that reports as it goes is taken at its word; what it delivered since is added."""
    gate = Gate()
    usage = text_pb2.TextEvent(usage=usage_pb2.Usage(prompt_tokens=33, completion_tokens=1, exact=True))
    world = world_of(text(said("one "), usage), text(said("two")), gate)
    await leave(world, gate, world.ask())
    assert (world.counted, world.ledger.rows) == ([], [("r1", 33, 2, "a")])


async def test_images_left_amid_the_work_are_the_backends_to_count() -> None:
    """Two of eight were delivered. What else was begun only the backend knows: unless it tells, it is two."""
    for word, images in ((usage_pb2.Usage(images=6), 6), (None, 2)):
        gate = Gate()
        world = world_of(
            image_service_pb2.GenerateImageResponse(events=[IMAGE]),
            image_service_pb2.GenerateImageResponse(events=[IMAGE]),
            gate,
            makes="image",
        )
        if word is not None:
            world.ledger.words["r1"] = word
        await leave(world, gate, draw(world, 8))
        assert world.ledger.rows == [("r1", 0, images, "a?")]


async def test_images_that_were_all_made_are_charged_though_the_caller_left() -> None:
    """The answer was whole when its caller left, before it was handed over: all were made for it."""
    gate = Gate()
    world = world_of(image_service_pb2.GenerateImageResponse(events=[IMAGE, IMAGE, IMAGE, DONE]), makes="image")
    await leave(world, gate, draw(world, 3, whole=True, wait=gate))
    assert world.ledger.rows == [("r1", 0, 3, "a")]


async def test_images_that_this_gateway_could_not_hand_over_cost_nothing() -> None:
    """Its own failure is not the caller's leaving."""
    world = world_of(image_service_pb2.GenerateImageResponse(events=[IMAGE, IMAGE, IMAGE, DONE]), makes="image")
    request = image_service_pb2.GenerateImageRequest(model="a", prompt="x", count=3)
    answer = await world.operations.begin(ImageCall(request), Caller(key="k", request_id="rid"))

    async def handle() -> None:
        async with answer:
            while await answer.next() is not None:
                pass
            raise errors.Internal("the store is full")

    with pytest.raises(errors.Internal):
        await handle()
    assert world.ledger.rows == [("r1", 0, 0, "released")]


@pytest.mark.parametrize(
    ("kind", "counted"),
    [
        (errors.UpstreamBroken, True),
        (errors.UpstreamTimeout, True),
        (errors.Unavailable, True),
        (errors.UpstreamFailed, False),
        (errors.UpstreamRateLimited, False),
    ],
)
async def test_an_attempt_that_was_given_up_is_the_operators(kind: type[MoaError], counted: bool) -> None:
    """It is counted where the provider may bill for it, which it does not after a refusal; the caller pays for the one
    that answered."""
    labels = ("one", "a")

    def unbilled() -> float:
        return count_of(metrics.UNBILLED_TOKENS.labels(*labels))

    before = unbilled()
    world = World()
    world.play("a", kind("no"))
    await world.ask()
    assert [row for row in world.ledger.rows if row[1]] == [(world.ledger.rows[-1][0], 7, 5, "b")]
    assert (unbilled() > before) == counted


async def test_a_stream_that_is_gone_on_with_elsewhere_is_paid_once() -> None:
    """The broken half is the operator's: counted as unbilled, while the answer is charged as a whole."""
    unbilled = metrics.UNBILLED_ATTEMPTS.labels("one", "a", "upstream_broken")
    before = count_of(unbilled)
    world = World(b={"capabilities": {"prefill"}})
    world.play("a", text(said("one ")), errors.UpstreamBroken("cut"))
    world.play("b", text(said(" two")), ended())
    await world.ask()
    assert len([row for row in world.ledger.rows if row[1]]) == 1
    assert count_of(unbilled) == before + 1


async def ask_whole(world: World) -> None:
    """Ask for a whole answer, and read it."""
    request = text_service_pb2.GenerateTextRequest(model="a", max_tokens=10)
    request.messages.add(role=text_pb2.ROLE_USER).parts.add(text="hi")
    answer = await world.operations.begin(TextCall(request), Caller(key="k", request_id="rid"))
    async with answer:
        while await answer.next() is not None:
            pass


@pytest.mark.parametrize(
    ("kind", "calls"),
    [
        (errors.UpstreamBroken, 1),
        (errors.UpstreamFailed, 3),
        (errors.UpstreamOverloaded, 3),
    ],
)
async def test_paid_work_is_not_asked_for_again(kind: type[MoaError], calls: int) -> None:
    """A provider that hung up after it had the request may have done the work: for a whole answer it is not asked
    again. One that refused with a status did none. Either way clients are told not to try again by themselves."""
    world = World(a={"fallback": ()})
    for _ in range(3):
        world.play("a", kind("no"))
    with pytest.raises(kind) as told:
        await ask_whole(world)
    assert world.order == "a" * calls
    assert ("x-should-retry", "false") in told.value.headers


async def test_images_are_not_made_twice() -> None:
    """A provider that sent half an image is not asked for another."""
    world = World(makes="image", a={"fallback": ()})
    for _ in range(3):
        world.play("a", errors.UpstreamBroken("half an image"))
    with pytest.raises(errors.UpstreamBroken):
        await draw(world, 1)
    assert world.order == "a"


async def test_another_target_may_still_answer() -> None:
    """Who has fallbacks wants them asked when one broke."""
    world = World()
    world.play("a", errors.UpstreamBroken("no"))
    await ask_whole(world)
    assert world.order == "ab"


async def test_clients_may_retry_what_passes_when_it_says() -> None:
    """A limit with a time to come again is no reason to tell clients that they should not."""
    world = World(a={"fallback": ()})
    world.play("a", errors.UpstreamRateLimited("no", retry_after_s=30))
    with pytest.raises(errors.UpstreamRateLimited) as told:
        await ask_whole(world)
    assert told.value.headers == ()
