"""What every image adapter must do, shown on each of them through the real service and a strict emulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from moa.image.v1.image_pb2 import (
    BACKGROUND_TRANSPARENT,
    OPERATION_EDIT,
    OPERATION_OUTPAINT,
    OPERATION_REMOVE_BACKGROUND,
    OPERATION_VARIATION,
    OUTPUT_FORMAT_JPEG,
    QUALITY_HIGH,
    QUALITY_MEDIUM,
    Diffusion,
    Operation,
)
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.common import errors
from services.common.catalogue import Model, load
from tests.emulators.base import Emulator
from tests.emulators.pictures import ImageScript, png
from tests.image.harness import SHIPPED, ImageClient, given, image_service, images_of, shipped_rows
from tests.image.subjects import ALL, SUBJECTS, Subject

PICTURE = png(64, 48, "orange")
MASK = png(64, 48, "white")


@pytest.fixture(params=SUBJECTS, ids=lambda subject: subject.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    assert isinstance(request.param, Subject)
    return request.param


@pytest.fixture
def model(subject: Subject) -> Model:
    return load(SHIPPED, {}).find(subject.model, provider=subject.provider)


@pytest.fixture
async def upstream(subject: Subject) -> AsyncIterator[Emulator]:
    async with subject.emulator() as emulator:
        yield emulator
        assert emulator.refused == [], "the adapter sent something that the real service would refuse"


@pytest.fixture
async def service(subject: Subject, upstream: Emulator, tmp_path: Path) -> AsyncIterator[ImageClient]:
    rows = shipped_rows(subject.provider, upstream.url + subject.path, **subject.row(upstream))
    async with image_service(tmp_path, *rows, subject.environment) as client:
        yield client


@pytest.fixture
async def impatient(subject: Subject, upstream: Emulator, tmp_path: Path) -> AsyncIterator[ImageClient]:
    """A service whose provider may be silent for half a second only."""
    row = subject.row(upstream, connect_s=0.5, first_token_s=0.5, idle_s=0.5)
    rows = shipped_rows(subject.provider, upstream.url + subject.path, **row)
    async with image_service(tmp_path, *rows, subject.environment) as client:
        yield client


@pytest.fixture
def ask(subject: Subject) -> GenerateImageRequest:
    return GenerateImageRequest(model=subject.model, provider=subject.provider, prompt="A 바다 at night 🌊")


async def test_one_image(service: ImageClient, upstream: Emulator, ask: GenerateImageRequest) -> None:
    """The provider's very bytes come back, described, and are counted once."""
    upstream.scripts.append(ImageScript(image=PICTURE))
    events = await service.ask(ask)
    assert images_of(events) == [PICTURE]
    (image,) = [e.image.image for e in events if e.HasField("image")]
    assert (image.mime_type, image.width, image.height) == ("image/png", 64, 48)
    assert [e.WhichOneof("event") for e in events].count("finished") == 1
    assert events[-1].finished.usage.images == 1
    assert "바다 at night 🌊" in str(upstream.seen[-1].body)


async def test_several_images(service: ImageClient, upstream: Emulator, ask: GenerateImageRequest) -> None:
    """Seven images come with indices 0 to 6, in as many calls as the model needs."""
    ask.count = 7
    events = await service.ask(ask)
    assert len(images_of(events)) == 7
    assert events[-1].finished.usage.images == 7
    assert 1 <= len(upstream.seen) <= 7


async def test_the_rewritten_prompt_is_told(
    service: ImageClient, upstream: Emulator, subject: Subject, ask: GenerateImageRequest
) -> None:
    """Where the provider rewrites prompts and says so, the caller is told."""
    if not subject.revises:
        pytest.skip("the provider does not say")
    upstream.scripts.append(ImageScript(revised="A sea, at night"))
    (event,) = [e for e in await service.ask(ask) if e.HasField("image")]
    assert event.image.revised_prompt == "A sea, at night"


async def _asked_or_refused(
    service: ImageClient, model: Model, capability: str, request: GenerateImageRequest, param: str
) -> bool:
    """Ask. A model without the capability must refuse, naming the field; tell whether it answered."""
    if model.can(capability):
        assert len(images_of(await service.ask(request))) == 1
        return True
    with pytest.raises(errors.Unsupported) as refused:
        await service.ask(request)
    assert refused.value.param == param
    return False


async def test_edit(
    service: ImageClient, upstream: Emulator, model: Model, ask: GenerateImageRequest, subject: Subject
) -> None:
    """An input image is changed, or refused by name; a model that needs a mask says so."""
    ask.images.append(given(PICTURE))
    ask.operation = OPERATION_EDIT
    if subject.name == "nova-canvas":
        with pytest.raises(errors.Unsupported, match="only inside a mask"):
            await service.ask(ask)
        return
    await _asked_or_refused(service, model, "edit", ask, "operation")


async def test_edit_with_mask(service: ImageClient, model: Model, ask: GenerateImageRequest) -> None:
    """A mask goes along in the provider's own colours (the emulators look), or is refused by name."""
    ask.images.append(given(PICTURE))
    ask.mask.CopyFrom(given(MASK))
    if not model.can("edit"):
        pytest.skip("no edits at all")
    await _asked_or_refused(service, model, "mask", ask, "mask")


@pytest.mark.parametrize(
    ("operation", "capability"),
    [
        (OPERATION_VARIATION, "variation"),
        (OPERATION_OUTPAINT, "outpaint"),
        (OPERATION_REMOVE_BACKGROUND, "remove_background"),
    ],
)
async def test_other_operations(
    service: ImageClient, model: Model, ask: GenerateImageRequest, operation: Operation.ValueType, capability: str
) -> None:
    """Variation, outpainting and background removal are made or refused by name."""
    ask.operation = operation
    ask.images.append(given(PICTURE if operation != OPERATION_OUTPAINT else png(512, 512)))
    if operation == OPERATION_REMOVE_BACKGROUND:
        ask.ClearField("prompt")
    if operation == OPERATION_OUTPAINT:
        ask.width, ask.height = (1024, 1024) if model.limits.get("sizes") else (768, 640)
    await _asked_or_refused(service, model, capability, ask, "operation")


async def test_references(service: ImageClient, upstream: Emulator, model: Model, ask: GenerateImageRequest) -> None:
    """Two reference images go along where the model takes them."""
    if model.limits.get("images", 1) < 2 or not model.can("edit"):
        pytest.skip("one image at most")
    ask.operation = OPERATION_VARIATION if model.can("variation") else OPERATION_EDIT
    ask.images.extend([given(PICTURE), given(png(32, 32, "red"))])
    assert len(images_of(await service.ask(ask))) == 1


async def test_aspect_ratio(service: ImageClient, model: Model, ask: GenerateImageRequest) -> None:
    """A ratio that the model makes is asked for in its own words."""
    ratios = model.limits.get("ratios") or {"1:1": ""}
    for ratio in ratios:
        ask.aspect_ratio = ratio
        await _asked_or_refused(service, model, "aspect_ratio", ask, "aspect_ratio")


async def test_sizes(service: ImageClient, model: Model, ask: GenerateImageRequest) -> None:
    """Every size that the catalogue names is one that the provider takes."""
    ratios = model.limits.get("ratios", {})
    sizes = [*model.limits.get("sizes", []), *(ratios.values() if isinstance(ratios, dict) else [])]
    for size in sizes or ["1024x1024"]:
        if model.limits.get("size") and not sizes:
            pytest.skip("any size, for outpainting only")
        width, _, height = size.partition("x")
        ask.width, ask.height = int(width), int(height)
        await _asked_or_refused(service, model, "size", ask, "size")


@pytest.mark.parametrize(("width", "height"), [(17, 31), (8192, 8192)])
async def test_what_size_it_cannot_make_is_refused(
    service: ImageClient, upstream: Emulator, ask: GenerateImageRequest, width: int, height: int
) -> None:
    """The refusal names the field and says what the model makes; nothing is sent."""
    ask.width, ask.height = width, height
    with pytest.raises(errors.Unsupported) as refused:
        await service.ask(ask)
    assert refused.value.param == "size"
    assert upstream.seen == []


async def test_an_odd_ratio_is_refused(service: ImageClient, upstream: Emulator, ask: GenerateImageRequest) -> None:
    """17:31 is made by nobody; the refusal says which are."""
    ask.aspect_ratio = "17:31"
    with pytest.raises(errors.Unsupported) as refused:
        await service.ask(ask)
    assert refused.value.param == "aspect_ratio"
    assert "1:1" in refused.value.message or "1024x1024" in refused.value.message
    assert upstream.seen == []


async def test_a_seed_is_sent_or_refused(
    service: ImageClient, upstream: Emulator, model: Model, subject: Subject, ask: GenerateImageRequest
) -> None:
    """A seed reaches the provider, counted up over several calls, or is refused by name."""
    ask.seed = 4000
    if not await _asked_or_refused(service, model, "seed", ask, "seed"):
        return
    assert subject.seed_of(upstream.seen[-1].body) == 4000
    if model.limits.get("count", 1) == 1:
        upstream.seen.clear()
        ask.count = 3
        await service.ask(ask)
        assert sorted(subject.seed_of(seen.body) for seen in upstream.seen) == [4000, 4001, 4002]


async def test_words_of_quality_style_and_format(service: ImageClient, model: Model, ask: GenerateImageRequest) -> None:
    """Quality, background, format and negative prompt are sent in the provider's words or refused by name."""
    for capability, param, fields in (
        ("quality", "quality", {"quality": QUALITY_HIGH}),
        ("quality", "quality", {"quality": QUALITY_MEDIUM}),
        ("background", "background", {"background": BACKGROUND_TRANSPARENT}),
        ("output_format", "output_format", {"output_format": OUTPUT_FORMAT_JPEG}),
        ("negative_prompt", "negative_prompt", {"negative_prompt": "fog"}),
        ("guidance_scale", "guidance_scale", {"diffusion": Diffusion(guidance_scale=7.5)}),
        ("colors", "colors", {"colors": ["#FF9800", "#0000ff"]}),
        ("moderation", "moderation", {"moderation": "low"}),
        ("scheduler", "scheduler", {"diffusion": Diffusion(scheduler="euler")}),
    ):
        request = GenerateImageRequest(**fields)
        request.MergeFrom(ask)
        await _asked_or_refused(service, model, capability, request, param)


async def test_every_style_is_taken(service: ImageClient, model: Model, ask: GenerateImageRequest) -> None:
    """A style of the catalogue is taken; another is refused with the list."""
    if not model.can("style"):
        pytest.skip("no styles")
    ask.style = model.limits["styles"][0]
    assert images_of(await service.ask(ask))
    ask.style = "no-such-style"
    with pytest.raises(errors.Unsupported, match=model.limits["styles"][0]) as refused:
        await service.ask(ask)
    assert refused.value.param == "style"


async def test_previews(service: ImageClient, model: Model, ask: GenerateImageRequest) -> None:
    """Where the provider sends pictures that are not finished, they come as progress before the image."""
    if not model.can("preview"):
        pytest.skip("no previews")
    ask.stream = True
    ask.preview_every = 5
    kinds = [event.WhichOneof("event") for event in await service.ask(ask)]
    assert kinds == ["progress", "progress", "progress", "image", "finished"]


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
    """Every call of the request is hung up within 200 ms."""
    scripts = [ImageScript(hold_at=0) for _ in range(2)]
    upstream.scripts.extend(scripts)
    ask.count = 2
    call = service.call(ask)
    reading = asyncio.ensure_future(call.read())
    await asyncio.wait_for(scripts[0].held.wait(), 5)
    call.cancel()
    await asyncio.wait_for(scripts[0].left.wait(), 0.2)
    if scripts[1].held.is_set():
        await asyncio.wait_for(scripts[1].left.wait(), 0.2)
    with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
        await reading


async def test_a_silent_provider_is_a_timeout(
    impatient: ImageClient, upstream: Emulator, ask: GenerateImageRequest
) -> None:
    """A provider that does not answer in time is a timeout, and its socket is closed."""
    script = ImageScript(hold_at=0)
    upstream.scripts.append(script)
    with pytest.raises(errors.UpstreamTimeout):
        await impatient.ask(ask)
    await asyncio.wait_for(script.left.wait(), 0.2)


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
    count = model.limits.get("count", 1)
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


async def test_bad_input_images_are_refused(service: ImageClient, model: Model, ask: GenerateImageRequest) -> None:
    """What is no image never leaves."""
    if not model.can("edit"):
        pytest.skip("no edits")
    ask.images.append(given(b"\x89PNG but not really"))
    with pytest.raises(errors.UnsupportedMedia):
        await service.ask(ask)


async def test_an_empty_prompt_is_refused(service: ImageClient, ask: GenerateImageRequest) -> None:
    """A generation needs a prompt."""
    ask.prompt = "  "
    with pytest.raises(errors.InvalidField) as refused:
        await service.ask(ask)
    assert refused.value.param == "prompt"


async def test_large_images(service: ImageClient, upstream: Emulator, ask: GenerateImageRequest) -> None:
    """Twenty megabytes come through whole."""
    large = PICTURE + b"\0" * (20 * 2**20)
    upstream.scripts.append(ImageScript(image=large))
    assert images_of(await service.ask(ask)) == [large]
