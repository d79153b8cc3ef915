"""What every image adapter must do, shown on each of them through the real service and a strict emulator."""

from __future__ import annotations

import hashlib
import io
from typing import Literal

import pytest
from PIL import Image

from moa.common.v1.vendor_pb2 import VendorFields
from moa.image.v1.image_pb2 import (
    BACKGROUND_TRANSPARENT,
    OPERATION_EDIT,
    OPERATION_OUTPAINT,
    OPERATION_REMOVE_BACKGROUND,
    OPERATION_VARIATION,
    OUTPUT_FORMAT_JPEG,
    OUTPUT_FORMAT_WEBP,
    QUALITY_HIGH,
    QUALITY_MEDIUM,
    Diffusion,
    Operation,
)
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model
from services.common import errors
from tests.emulators.base import Emulator
from tests.emulators.pictures import ImageScript, png
from tests.image.harness import ImageClient, given, images_of
from tests.image.subjects import Subject

PICTURE = png(64, 48, "orange")
MASK = png(64, 48, "white")


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
        ask.width, ask.height = (1024, 1024) if model.limits.sizes else (768, 640)
    await _asked_or_refused(service, model, capability, ask, "operation")


async def test_references(service: ImageClient, upstream: Emulator, model: Model, ask: GenerateImageRequest) -> None:
    """Two reference images go along where the model takes them."""
    if model.limits.images < 2 or not model.can("edit"):
        pytest.skip("one image at most")
    ask.operation = OPERATION_VARIATION if model.can("variation") else OPERATION_EDIT
    ask.images.extend([given(PICTURE), given(png(32, 32, "red"))])
    assert len(images_of(await service.ask(ask))) == 1


async def test_aspect_ratio(service: ImageClient, model: Model, ask: GenerateImageRequest) -> None:
    """A ratio that the model makes is asked for in its own words."""
    ratios = model.limits.ratios or {"1:1": ""}
    for ratio in ratios:
        ask.aspect_ratio = ratio
        await _asked_or_refused(service, model, "aspect_ratio", ask, "aspect_ratio")


async def test_sizes(service: ImageClient, model: Model, ask: GenerateImageRequest) -> None:
    """Every size that the catalogue names is one that the provider takes."""
    ratios = model.limits.ratios
    sizes = [*(model.limits.sizes or ()), *(ratios.values() if isinstance(ratios, dict) else [])]
    for size in sizes or ["1024x1024"]:
        if model.limits.size and not sizes:
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
    if model.limits.count in (None, 1):
        upstream.seen.clear()
        ask.count = 3
        await service.ask(ask)
        assert sorted(subject.seed_of(seen.body) for seen in upstream.seen) == [4000, 4001, 4002]


async def test_words_of_quality_and_style(service: ImageClient, model: Model, ask: GenerateImageRequest) -> None:
    """Quality, background and negative prompt are sent in the provider's words or refused by name."""
    for capability, param, fields in (
        ("quality", "quality", {"quality": QUALITY_HIGH}),
        ("quality", "quality", {"quality": QUALITY_MEDIUM}),
        ("background", "background", {"background": BACKGROUND_TRANSPARENT}),
        ("negative_prompt", "negative_prompt", {"negative_prompt": "fog"}),
        ("guidance_scale", "guidance_scale", {"diffusion": Diffusion(guidance_scale=7.5)}),
        ("colors", "colors", {"colors": ["#FF9800", "#0000ff"]}),
        ("moderation", "moderation", {"moderation": "low"}),
        ("scheduler", "scheduler", {"diffusion": Diffusion(scheduler="euler")}),
    ):
        request = GenerateImageRequest(**fields)
        request.MergeFrom(ask)
        await _asked_or_refused(service, model, capability, request, param)


@pytest.mark.parametrize("wanted", ["JPEG", "WEBP"])
async def test_every_format_is_made(
    service: ImageClient, model: Model, ask: GenerateImageRequest, wanted: Literal["JPEG", "WEBP"]
) -> None:
    """The provider is asked for a format that it makes; the images of any other model are converted."""
    ask.output_format = OUTPUT_FORMAT_JPEG if wanted == "JPEG" else OUTPUT_FORMAT_WEBP
    (event,) = [event for event in await service.ask(ask) if event.HasField("image")]
    image = event.image.image
    with Image.open(io.BytesIO(image.data)) as opened:
        assert (opened.format, opened.size) == (wanted, (image.width, image.height))
    assert image.mime_type == f"image/{wanted.lower()}"
    expected = hashlib.sha256(image.data).hexdigest() if event.image.HasField("receipt") else ""
    assert event.image.receipt.sha256 == expected


async def test_every_style_is_taken(service: ImageClient, model: Model, ask: GenerateImageRequest) -> None:
    """A style of the catalogue is taken; another is refused with the list."""
    if not model.can("style"):
        pytest.skip("no styles")
    for style in model.limits.styles or ():
        ask.style = style
        assert images_of(await service.ask(ask))
    ask.style = "no-such-style"
    with pytest.raises(errors.Unsupported, match=next(iter(model.limits.styles or ()))) as refused:
        await service.ask(ask)
    assert refused.value.param == "style"


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


async def test_usage(service: ImageClient, subject: Subject, ask: GenerateImageRequest) -> None:
    """Where the provider counts tokens, its own counts are told, and how many of them were of images."""
    if subject.counts is None:
        pytest.skip("the provider counts no tokens")
    usage = (await service.ask(ask))[-1].finished.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == subject.counts
    assert (usage.prompt_image_tokens, usage.completion_image_tokens) == (7, 90)


async def test_what_only_a_vendor_knows_is_named_where_it_does_not_pass(
    service: ImageClient, upstream: Emulator, subject: Subject, ask: GenerateImageRequest
) -> None:
    """Gemini is sent it; all others say first that they ignored it, and refuse it where the caller is strict."""
    settings = b'{"generationConfig":{"temperature":0.5}}'
    ask.vendor.CopyFrom(VendorFields(vendor="google", json=settings, names=["generationConfig.temperature"]))
    events = await service.ask(ask)
    passes = subject.name == "gemini"
    assert list(events[0].started.ignored) == ([] if passes else ["generationConfig.temperature"])
    assert len(images_of(events)) == 1
    assert ("0.5" in str(upstream.seen[-1].body)) is passes
    if not passes:
        ask.strict = True
        with pytest.raises(errors.Unsupported) as refused:
            await service.ask(ask)
        assert refused.value.param == "generationConfig.temperature"
