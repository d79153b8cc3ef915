"""The streams of the image adapters that have them, under the same failures as the text adapters' streams."""

from __future__ import annotations

import asyncio

import pytest

from moa.image.v1.image_pb2 import OPERATION_EDIT, ImageEvent
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model
from services.common import errors
from tests.emulators.base import Emulator
from tests.emulators.pictures import ImageScript, png
from tests.image.harness import Failed, ImageClient, given
from tests.image.subjects import STREAMING, TIMEOUTS, Subject
from tests.seconds import Seconds

BEGIN_S = TIMEOUTS["connect_s"] + TIMEOUTS["first_token_s"]
PREVIEWS = ["progress", "progress", "progress"]


@pytest.fixture(params=STREAMING, ids=lambda subject: subject.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    """The others answer at once."""
    assert isinstance(request.param, Subject)
    return request.param


@pytest.fixture
def streamed(model: Model, ask: GenerateImageRequest) -> GenerateImageRequest:
    """Ask for previews."""
    assert model.can("preview")
    ask.stream = True
    ask.preview_every = 5
    return ask


def _kinds(events: list[ImageEvent]) -> list[str | None]:
    return [event.WhichOneof("event") for event in events]


@pytest.mark.parametrize("edit", [False, True])
async def test_previews(service: ImageClient, streamed: GenerateImageRequest, edit: bool) -> None:
    """Pictures that are not finished come as progress before the image, of generations and of edits."""
    if edit:
        streamed.operation = OPERATION_EDIT
        streamed.images.append(given(png()))
    assert _kinds(await service.ask(streamed)) == [*PREVIEWS, "image", "finished"]


async def test_previews_come_as_they_are_made(
    service: ImageClient, upstream: Emulator, streamed: GenerateImageRequest
) -> None:
    """The first is delivered while the provider still works on the second."""
    script = ImageScript(hold_at=1)
    upstream.scripts.append(script)
    messages = aiter(service.call(streamed))
    first = await anext(messages)
    assert _kinds(list(first.events)) == ["progress"]
    await asyncio.wait_for(script.held.wait(), 30)
    script.gate.set()
    rest = [event async for message in messages for event in message.events]
    assert _kinds(rest) == ["progress", "progress", "image", "finished"]


@pytest.mark.parametrize("at", [-1, 0, 1])
async def test_a_caller_who_leaves_a_stream_closes_the_upstream_socket(
    service: ImageClient, upstream: Emulator, streamed: GenerateImageRequest, at: int
) -> None:
    """Before the headers, before the first picture or after it: the provider sees the hang-up at once."""
    script = ImageScript(hold_at=at)
    upstream.scripts.append(script)
    call = service.call(streamed)
    if at == 1:
        await call.read()
    await asyncio.wait_for(script.held.wait(), 30)
    call.cancel()
    await script.hung_up(service.turn)


@pytest.mark.parametrize("at", [-1, 0])
async def test_slow_first_picture(
    service: ImageClient, upstream: Emulator, streamed: GenerateImageRequest, seconds: Seconds, at: int
) -> None:
    """A provider that does not begin in time is a timeout, told as a status, and its socket is closed."""
    script = ImageScript(hold_at=at)
    upstream.scripts.append(script)
    asking = asyncio.create_task(service.ask(streamed))
    await asyncio.wait_for(script.held.wait(), 30)
    await seconds.until(asking, BEGIN_S)
    with pytest.raises(errors.UpstreamTimeout):
        await asking
    await script.hung_up()


async def test_silence_between_pictures(
    service: ImageClient, upstream: Emulator, streamed: GenerateImageRequest, seconds: Seconds
) -> None:
    """A provider that falls silent ends the stream with an error event, after what came."""
    script = ImageScript(hold_at=2)
    upstream.scripts.append(script)
    told: list[ImageEvent] = []
    asking = asyncio.create_task(service.ask(streamed, told))
    async with asyncio.timeout(60):
        while len(told) < 2:
            await service.turn()
    await seconds.until(asking, TIMEOUTS["idle_s"])
    with pytest.raises(Failed) as failed:
        await asking
    assert isinstance(failed.value.error, errors.UpstreamTimeout)
    assert _kinds(failed.value.before) == ["progress", "progress", "usage"]
    await script.hung_up()


@pytest.mark.parametrize("how", ["cut_at", "clip_at"])
async def test_cut_stream(service: ImageClient, upstream: Emulator, streamed: GenerateImageRequest, how: str) -> None:
    """A stream that ends without its image is never a clean end: previews, then an error event."""
    upstream.scripts.append(ImageScript(**{how: 2}))  # type: ignore[arg-type]
    with pytest.raises(Failed) as failed:
        await service.ask(streamed)
    assert isinstance(failed.value.error, errors.UpstreamBroken)
    assert _kinds(failed.value.before) == ["progress", "progress", "usage"]
    assert failed.value.before[-1].usage.images == 0


async def test_a_stream_cut_before_its_first_picture_is_a_status(
    service: ImageClient, upstream: Emulator, streamed: GenerateImageRequest
) -> None:
    """Nothing was written yet, so the failure has its own status."""
    upstream.scripts.append(ImageScript(cut_at=0))
    with pytest.raises(errors.UpstreamBroken):
        await service.ask(streamed)


@pytest.mark.parametrize("at", [0, 2])
async def test_failure_inside_the_stream(
    service: ImageClient, upstream: Emulator, streamed: GenerateImageRequest, at: int
) -> None:
    """A failure that the provider reports is of its reason: a status in place of the first picture, later an event."""
    upstream.scripts.append(ImageScript(fail_at=at))
    with pytest.raises((Failed, errors.UpstreamFailed)) as raised:
        await service.ask(streamed)
    error = raised.value.error if isinstance(raised.value, Failed) else raised.value
    assert isinstance(error, errors.UpstreamFailed)
    assert isinstance(raised.value, Failed) == (at > 0)


@pytest.mark.parametrize("at", [0, 2, 3])
async def test_malformed_chunk(
    service: ImageClient, upstream: Emulator, streamed: GenerateImageRequest, at: int
) -> None:
    """A piece that cannot be read is passed over; the image comes."""
    upstream.scripts.append(ImageScript(malformed_at=at))
    assert _kinds(await service.ask(streamed)) == [*PREVIEWS, "image", "finished"]


@pytest.mark.parametrize("size", [1, 7])
async def test_stream_in_pieces_of_any_size(
    service: ImageClient, upstream: Emulator, streamed: GenerateImageRequest, size: int
) -> None:
    """Frames that are torn apart on the wire come out whole."""
    upstream.scripts.append(ImageScript(write_bytes=size))
    assert _kinds(await service.ask(streamed)) == [*PREVIEWS, "image", "finished"]


async def test_large_previews(service: ImageClient, upstream: Emulator, streamed: GenerateImageRequest) -> None:
    """Five megabytes a picture come through whole in a stream."""
    large = png(64, 48) + bytes(5 * 2**20)
    upstream.scripts.append(ImageScript(image=large))
    events = await service.ask(streamed)
    assert _kinds(events) == [*PREVIEWS, "image", "finished"]
    assert events[0].progress.preview.data == events[3].image.image.data == large
