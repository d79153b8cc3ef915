"""Images whose target fails while nothing has been shown but that it waits or works."""

from __future__ import annotations

from typing import Any

import pytest

from moa.common.v1 import usage_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from services.common import errors
from services.common.errors import MoaError, detail_of
from services.router.domain.caller import Caller
from services.router.operations.image import ImageCall
from tests.router.world import World

QUEUED = image_pb2.ImageEvent(queued=image_pb2.Queued(position=1))
STEP = image_pb2.ImageEvent(progress=image_pb2.Progress(step=1, steps=4))
IMAGE = image_pb2.ImageEvent(image=image_pb2.Image())
WORDS = image_pb2.ImageEvent(text=image_pb2.ImageText(text="here"))
DONE = image_pb2.ImageEvent(finished=image_pb2.ImageFinished(usage=usage_pb2.Usage(images=1)))


def message(*events: image_pb2.ImageEvent) -> image_service_pb2.GenerateImageResponse:
    return image_service_pb2.GenerateImageResponse(events=events)


def failure(kind: type[MoaError]) -> image_pb2.ImageEvent:
    return image_pb2.ImageEvent(error=detail_of(kind("no"), "rid"))


async def ask(world: World, caller: Caller | None = None) -> tuple[list[str | None], Any]:
    """Ask for an image; give the kinds of its events, and the answer."""
    request = image_service_pb2.GenerateImageRequest(model="a", prompt="a red circle", stream=True)
    answer = await world.operations.begin(ImageCall(request), caller or Caller(key="k", request_id="rid"))
    kinds: list[str | None] = []
    async with answer:
        while (said := await answer.next()) is not None:
            kinds += [event.WhichOneof("event") for event in said.events]
            answer.delivered(sum(event.HasField("image") for event in said.events))
    return kinds, answer


async def test_a_failure_before_the_first_event_goes_to_the_next() -> None:
    """As with text: the next target makes the image, and is charged."""
    world = World(makes="image")
    world.play("a", errors.UpstreamAuth("no"))
    world.play("b", message(IMAGE, DONE))
    kinds, answer = await ask(world)
    assert (kinds, answer.model.id) == (["image", "finished"], "b")
    assert world.ledger.rows == [("r1", 0, 1, "b")]


@pytest.mark.parametrize("how", ["raised", "told"])
async def test_waiting_and_progress_are_no_part_of_the_answer(how: str) -> None:
    """The next target begins anew under its own name; the one image is charged once."""
    world = World(makes="image")
    broken: Any = message(failure(errors.Internal)) if how == "told" else errors.Unavailable("away")
    world.play("a", message(QUEUED), message(STEP), broken)
    world.play("b", message(QUEUED), message(IMAGE), message(DONE))
    kinds, answer = await ask(world)
    assert kinds == ["queued", "progress", "started", "queued", "image", "finished"]
    assert (answer.model.id, answer.succeeded) == ("b", True)
    assert [row for row in world.ledger.rows if row[2]] == [(world.asked[1].reservation, 0, 1, "b")]
    assert not world.ledger.open


@pytest.mark.parametrize("shown", [IMAGE, WORDS], ids=["an image", "words"])
async def test_what_was_shown_is_not_made_twice(shown: image_pb2.ImageEvent) -> None:
    """After the first image, or words beside it, a failure is the last event; what was delivered is charged."""
    world = World(makes="image")
    world.play("a", message(shown), message(failure(errors.UpstreamFailed)))
    kinds, _ = await ask(world)
    assert kinds[-1] == "error"
    assert world.order == "a"
    assert [row for row in world.ledger.rows if row[2]] == ([("r1", 0, 1, "a")] if shown is IMAGE else [])


@pytest.mark.parametrize(
    ("kind", "caller"),
    [(errors.ContentPolicy, None), (errors.Internal, Caller(key="k", request_id="r", fallback=False))],
)
async def test_what_is_the_callers_or_its_wish_is_told(kind: type[MoaError], caller: Caller | None) -> None:
    """A withheld image is not asked for elsewhere, nor is anything for a caller that wants no other model."""
    world = World(makes="image")
    world.play("a", message(QUEUED), message(failure(kind)))
    kinds, _ = await ask(world, caller)
    assert (kinds, world.order) == (["queued", "error"], "a")
    assert not world.ledger.open


async def test_when_nobody_else_can_the_failure_is_told() -> None:
    """Once, as it came."""
    world = World(makes="image")
    world.play("a", message(QUEUED), message(failure(errors.UpstreamFailed)))
    for model in "bc":
        world.play(model, errors.UpstreamAuth("no"))
    kinds, _ = await ask(world)
    assert (kinds, world.order) == (["queued", "error"], "abc")
    assert not world.ledger.open
