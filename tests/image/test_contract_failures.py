"""What every image adapter does when things go wrong: refusals, leavers, silence, cut and damaged answers."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model
from services.common import errors
from tests.emulators.base import Emulator
from tests.emulators.pictures import ImageScript, png
from tests.image.harness import ImageClient, images_of
from tests.image.subjects import ALL, TIMEOUTS, Subject
from tests.seconds import Seconds

PICTURE = png(64, 48, "orange")


async def test_a_withheld_image_is_a_content_policy_error(
    service: ImageClient, upstream: Emulator, ask: GenerateImageRequest
) -> None:
    """However the provider withholds an image, the caller hears of the policy."""
    upstream.scripts.append(ImageScript(filtered=True))
    with pytest.raises(errors.ContentPolicy):
        await service.ask(ask)


@pytest.mark.parametrize("reason", sorted(ALL))
async def test_refusals_are_typed(
    service: ImageClient, upstream: Emulator, subject: Subject, reason: str, ask: GenerateImageRequest
) -> None:
    """Each way to be refused is one reason."""
    if reason not in subject.reasons:
        pytest.skip("the protocol has no word for it")
    upstream.scripts.append(ImageScript(refuse=reason))
    with pytest.raises(errors.BY_WORD[reason]) as refused:
        await service.ask(ask)
    about_the_caller = reason in ("content_policy", "upstream_rejected")
    assert (f"Words about {reason}" in refused.value.message) == about_the_caller


async def test_the_retry_time_is_passed_on(service: ImageClient, upstream: Emulator, ask: GenerateImageRequest) -> None:
    """A rate limit says when to come back."""
    upstream.scripts.append(ImageScript(refuse="upstream_rate_limited", retry_after_s=17))
    with pytest.raises(errors.UpstreamRateLimited) as refused:
        await service.ask(ask)
    assert refused.value.retry_after_s == 17


async def test_a_caller_who_leaves_closes_the_upstream_sockets(
    service: ImageClient, upstream: Emulator, ask: GenerateImageRequest
) -> None:
    """Every call of the request is hung up at once."""
    scripts = [ImageScript(hold_at=0) for _ in range(2)]
    upstream.scripts.extend(scripts)
    ask.count = 2
    call = service.call(ask)
    reading = asyncio.ensure_future(call.read())
    await asyncio.wait_for(scripts[0].held.wait(), 30)
    call.cancel()
    await scripts[0].hung_up(service.turn)
    if scripts[1].held.is_set():
        await scripts[1].hung_up(service.turn)
    with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
        await reading


async def test_a_silent_provider_is_a_timeout(
    service: ImageClient, upstream: Emulator, ask: GenerateImageRequest, seconds: Seconds
) -> None:
    """A provider that does not answer in time is a timeout, and its socket is closed."""
    script = ImageScript(hold_at=0)
    upstream.scripts.append(script)
    asking = asyncio.create_task(service.ask(ask))
    await asyncio.wait_for(script.held.wait(), 30)
    await seconds.until(asking, TIMEOUTS["connect_s"] + TIMEOUTS["first_token_s"])
    with pytest.raises(errors.UpstreamTimeout):
        await asking
    await script.hung_up()


async def test_half_an_answer_is_broken(service: ImageClient, upstream: Emulator, ask: GenerateImageRequest) -> None:
    """An answer that breaks off is never an image."""
    upstream.scripts.append(ImageScript(cut_at=0))
    with pytest.raises(errors.UpstreamBroken):
        await service.ask(ask)


async def test_what_is_no_image_is_broken(service: ImageClient, upstream: Emulator, ask: GenerateImageRequest) -> None:
    """Bytes that are no image are not passed on as one."""
    upstream.scripts.append(ImageScript(image=b"<html>" * 20))
    with pytest.raises(errors.UpstreamBroken):
        await service.ask(ask)


async def test_a_failure_after_some_images_is_an_event(
    service: ImageClient, upstream: Emulator, model: Model, ask: GenerateImageRequest
) -> None:
    """What was delivered stands and is counted; then the error, in the stream."""
    limit = model.limits.count
    count = limit if isinstance(limit, int) else 1
    if count >= 10:
        pytest.skip("one call makes them all")
    second = ImageScript(hold_at=0, cut_at=0)
    upstream.scripts.extend([ImageScript(), second])
    ask.count = min(10, 2 * count)
    messages = aiter(service.call(ask))
    first = await anext(messages)
    assert first.events[0].HasField("image")
    second.gate.set()
    rest = [event async for message in messages for event in message.events]
    assert rest[-1].HasField("error")
    assert rest[-1].error.reason == errors.UpstreamBroken.reason
    delivered = 1 + sum(event.HasField("image") for event in rest)
    assert rest[-2].usage.images == delivered


async def test_a_malformed_answer_is_broken(
    service: ImageClient, upstream: Emulator, ask: GenerateImageRequest
) -> None:
    """An answer that is whole but cannot be read is a broken one, whatever its status says."""
    upstream.scripts.append(ImageScript(malformed_at=0))
    with pytest.raises(errors.UpstreamBroken):
        await service.ask(ask)


@pytest.mark.parametrize("size", [1, 7])
async def test_pieces_of_any_size(
    service: ImageClient, upstream: Emulator, ask: GenerateImageRequest, size: int
) -> None:
    """An answer that comes in small pieces gives the same image."""
    upstream.scripts.append(ImageScript(image=PICTURE, write_bytes=size))
    assert images_of(await service.ask(ask)) == [PICTURE]


async def test_the_upstream_comes_back(service: ImageClient, upstream: Emulator, ask: GenerateImageRequest) -> None:
    """A provider that was restarted is reached again, in spite of the connections that died with it."""
    assert images_of(await service.ask(ask))
    port = upstream.port
    await upstream.stop()
    with pytest.raises(errors.UpstreamFailed):
        await service.ask(ask)
    await upstream.start(port)
    assert images_of(await service.ask(ask))


async def test_connections_are_kept(service: ImageClient, upstream: Emulator, ask: GenerateImageRequest) -> None:
    """Five requests go over one connection, or over a second that the provider's list, read at the start, has left."""
    for _ in range(5):
        await service.ask(ask)
    assert len({seen.peer for seen in upstream.seen}) <= 2
