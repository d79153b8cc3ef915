"""Images from the model that ships, through a real server."""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from inference.image import codec
from moa.common.v1 import media_pb2
from moa.image.v1 import image_pb2
from services.common import errors
from tests.inference.harness import IMAGE, Client, InBand, Running, given, small, until


def drawn(kind: str = "PNG", size: tuple[int, int] = (64, 64)) -> bytes:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).ellipse([16, 16, 48, 48], fill=(220, 40, 40))
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def half_mask() -> bytes:
    image = Image.new("L", (64, 64), 0)
    ImageDraw.Draw(image).rectangle([32, 0, 64, 64], fill=255)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "clear"])
def test_a_mask_says_the_same_in_every_form(mode: str) -> None:
    """White on black, with or without an alpha channel that is opaque all over, or transparent where it is changed."""
    image: Image.Image = Image.open(io.BytesIO(half_mask()))
    if mode == "clear":
        image = Image.merge("RGBA", [Image.new("L", image.size, 0)] * 3 + [ImageOps.invert(image)])
    out = io.BytesIO()
    image.convert(image.mode if mode == "clear" else mode).save(out, "PNG")
    read = np.asarray(codec.mask(out.getvalue(), 64, 64))
    assert (read == np.asarray(codec.mask(half_mask(), 64, 64))).all()
    assert read[:, :32].max() == 0
    assert read[:, 32:].min() == 255


def settings(**fields: Any) -> image_pb2.Diffusion:
    fields.setdefault("steps", 4)
    return image_pb2.Diffusion(**fields)


async def test_a_picture_follows_its_prompt(client: Client) -> None:
    """At the catalogue's defaults, a red circle on white is red in the middle and white in the corners."""
    out = await client.image(prompt="a big red circle on a white background", seed=1)
    pixels = np.asarray(Image.open(io.BytesIO(out.data)).convert("RGB")).astype(int)
    assert pixels.shape == (128, 128, 3)
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners > 200).all()
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 120) & (pixels[..., 2] < 120)
    assert red.mean() > 0.03


async def test_events_tell_the_way(client: Client) -> None:
    """A stream shows every step with its number, then the picture with its receipt, then the usage, then nothing."""
    out = await client.image(**small(preview_every=2))
    steps = [e.progress.step for e in out.events if e.HasField("progress")]
    assert steps == [1, 2, 3, 4]
    previews = [e.progress.preview for e in out.events if e.HasField("progress") and e.progress.HasField("preview")]
    assert len(previews) == 1
    assert Image.open(io.BytesIO(previews[0].data)).size == (32, 32)
    assert out.kinds()[-2:] == ["image", "finished"]
    assert out.events[-1].finished.usage.images == 1
    receipt = out.images[0].receipt
    assert receipt.sha256 == hashlib.sha256(out.data).hexdigest()
    assert (receipt.seed, receipt.steps, receipt.scheduler, receipt.model) == (7, 4, "ddim", IMAGE)
    assert receipt.revision.startswith("sha256:")


async def test_without_stream_only_the_picture_comes(client: Client) -> None:
    """Without `stream` nothing but the pictures and the end is sent."""
    out = await client.image(**small(stream=False))
    assert out.kinds() == ["image", "finished"]


async def test_an_absent_seed_is_drawn_and_told(client: Client) -> None:
    """Without a seed two pictures differ, and the receipt's seed makes the same bytes again."""
    fields = small()
    del fields["seed"]
    one, two = [await client.image(**fields) for _ in range(2)]
    assert one.data != two.data
    again = await client.image(**small(seed=one.images[0].receipt.seed))
    assert again.data == one.data


@pytest.mark.parametrize("seed", [-(2**63), -1, 2**63 - 1])
async def test_every_seed_is_one(client: Client, seed: int) -> None:
    """The least, a negative and the largest seed all work, and the one after the largest makes its own image again."""
    out = await client.image(**small(seed=seed, count=2, diffusion=settings(steps=1)))
    second = out.images[1].receipt.seed
    again = await client.image(**small(seed=second, diffusion=settings(steps=1)))
    assert again.data == out.images[1].image.data


async def test_several_images_have_following_seeds(client: Client) -> None:
    """The i-th of several images is what its own seed gives alone."""
    out = await client.image(**small(count=3))
    assert sorted(out.images) == [0, 1, 2]
    assert out.events[-1].finished.usage.images == 3
    third = await client.image(**small(seed=9))
    assert out.images[2].receipt.seed == 9
    assert out.images[2].image.data == third.data


def mixed() -> list[dict[str, Any]]:
    """Return requests that differ in everything that may differ within one denoiser call, and in size."""
    source = [given(drawn())]
    return [
        small(),
        small(prompt="파란 네모", seed=2, diffusion=settings(steps=7, guidance_scale=7.5)),
        small(negative_prompt="blue", seed=3, diffusion=settings(steps=3, guidance_scale=1.0)),
        small(seed=4, diffusion=settings(scheduler="euler")),
        small(seed=5, diffusion=settings(steps=6, scheduler="euler-a")),
        small(seed=6, diffusion=settings(steps=5, scheduler="dpm++")),
        small(seed=7, diffusion=settings(steps=5, scheduler="unipc")),
        small(seed=8, diffusion=settings(scheduler="lcm")),
        small(seed=9, operation=image_pb2.OPERATION_EDIT, images=source, diffusion=settings(steps=6)),
        small(seed=10, images=source, mask=given(half_mask()), diffusion=settings(strength=1.0)),
        small(seed=11, images=source, mask=given(half_mask()), diffusion=settings(steps=6, strength=0.7)),
        small(seed=12, width=96),
        small(seed=13, count=2),
    ]


async def test_a_picture_has_the_same_bytes_in_any_crowd(client: Client, running: Running) -> None:
    """Thirteen unlike requests, sent in two random orders, give byte for byte what each gives alone."""
    alone = [await client.image(**fields) for fields in mixed()]
    engine = running.engine(IMAGE)
    rng = random.Random(5)
    for _ in range(2):
        order = list(range(len(alone)))
        rng.shuffle(order)
        before = engine.ticks
        with running.held(IMAGE):
            crowding = asyncio.gather(*(client.image(**mixed()[i]) for i in order))
            await until(lambda: len(engine.jobs()) == len(alone))
        crowd = await crowding
        ticks = engine.ticks - before
        for i, out in zip(order, crowd, strict=True):
            assert {k: v.image.data for k, v in out.images.items()} == {
                k: v.image.data for k, v in alone[i].images.items()
            }
        steps = sum(e.HasField("progress") for out in crowd for e in out.events)
        assert ticks < steps / 1.5, "steps of several requests share a call"
    assert all(engine.lanes.proven().values())


async def test_a_crowd_with_leavers_changes_no_bytes(client: Client) -> None:
    """Requests that leave in the middle change nothing for those that stay."""
    alone = await client.image(**small(diffusion=settings(steps=6)))

    async def leaving(after: int) -> None:
        call = client.image_call(**small(seed=50 + after, diffusion=settings(steps=50)))
        for _ in range(after):
            await call.read()
        call.cancel()

    async def staying() -> bytes:
        return (await client.image(**small(diffusion=settings(steps=6)))).data

    one, two, *_ = await asyncio.gather(staying(), staying(), leaving(1), leaving(2), leaving(3))
    assert one == two == alone.data


async def test_a_mask_keeps_what_is_outside(client: Client) -> None:
    """Inpainting changes the white side of the mask and keeps the rest, but for the VAE's own loss."""
    out = await client.image(
        prompt="a night sky with stars",
        seed=3,
        width=64,
        height=64,
        images=[given(drawn())],
        mask=given(half_mask()),
        diffusion=settings(steps=8, strength=1.0),
    )
    now = np.asarray(Image.open(io.BytesIO(out.data))).astype(int)
    was = np.asarray(Image.open(io.BytesIO(drawn()))).astype(int)
    assert abs(now[:, :24] - was[:, :24]).mean() < 12
    assert abs(now[:, 40:] - was[:, 40:]).mean() > 25


async def test_an_edit_keeps_the_sources_ratio(client: Client) -> None:
    """Without a size, an edit has the input image's ratio and about the model's usual area."""
    out = await client.image(
        prompt="a cat", images=[given(drawn("JPEG", (300, 150)))], diffusion=settings(steps=2, strength=0.5)
    )
    assert (out.images[0].image.width, out.images[0].image.height) == (176, 96)


@pytest.mark.parametrize(("wanted", "mime"), [("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("PNG", "image/png")])
async def test_the_format_is_as_asked(client: Client, wanted: str, mime: str) -> None:
    """The answer has the format that was asked for, and says so."""
    out = await client.image(**small(output_format=f"OUTPUT_FORMAT_{wanted}", diffusion=settings(steps=1)))
    assert out.images[0].image.mime_type == mime
    assert Image.open(io.BytesIO(out.data)).format == wanted


async def test_a_caller_who_leaves_stops_the_steps(client: Client, running: Running) -> None:
    """After the caller left, at most one more step is run, and nothing is decoded."""
    await client.image(**small(diffusion=settings(steps=1)))  # loaded
    engine = running.engine(IMAGE)
    assert await asyncio.to_thread(engine.wait_idle, 60)
    ticks, decodes = engine.ticks, engine.decodes
    with running.held(IMAGE, after_ticks=3):
        call = client.image_call(**small(diffusion=settings(steps=150)))
        await until(lambda: engine.ticks == ticks + 3)
        (order,) = engine.jobs()
        call.cancel()
        # It is held until it has heard, however long the news travels.
        await until(lambda: order.cancelled)
    assert await asyncio.to_thread(engine.wait_idle, 60)
    assert engine.ticks <= ticks + 4
    assert engine.decodes == decodes


async def test_a_deadline_ends_the_work(client: Client, running: Running) -> None:
    """A call whose deadline passes ends with that error, and its steps end with it."""
    await client.image(**small(diffusion=settings(steps=1)))  # loaded
    engine = running.engine(IMAGE)
    before = engine.ticks
    # However fast the machine is, the work is not done by then.
    with running.held(IMAGE, after_ticks=3), pytest.raises((errors.DeadlineExceeded, InBand)):
        await client.image(timeout_s=0.4, **small(width=128, height=128, diffusion=settings(steps=150)))
    assert await asyncio.to_thread(engine.wait_idle, 60)
    assert engine.ticks - before < 100


def header(width: int, height: int) -> bytes:
    from tests.inference.test_images import png_header

    return png_header(width, height)


BAD: list[tuple[dict[str, Any], type[errors.MoaError], str]] = [
    ({"prompt": "  "}, errors.InvalidField, "prompt"),
    ({"prompt": "x" * 10_001}, errors.InvalidField, "prompt"),
    ({"model": "moa-tiny-chat"}, errors.ModelNotFound, "model"),
    ({"model": "nobody"}, errors.ModelNotFound, "model"),
    ({"width": 63}, errors.InvalidField, "width"),
    ({"width": 100_000}, errors.InvalidField, "width"),
    ({"height": 0}, errors.InvalidField, "height"),
    ({"count": 11}, errors.InvalidField, "count"),
    ({"diffusion": settings(steps=0)}, errors.InvalidField, "steps"),
    ({"diffusion": settings(steps=151)}, errors.InvalidField, "steps"),
    ({"diffusion": settings(guidance_scale=float("nan"))}, errors.InvalidField, "guidance_scale"),
    ({"diffusion": settings(guidance_scale=-1)}, errors.InvalidField, "guidance_scale"),
    ({"diffusion": settings(scheduler="magic")}, errors.InvalidField, "scheduler"),
    ({"diffusion": settings(strength=0.1), "images": [given(drawn())]}, errors.InvalidField, "strength"),
    ({"images": [given(b"not an image")]}, errors.UnsupportedMedia, "images[0]"),
    ({"images": [given(drawn()[:200])]}, errors.UnsupportedMedia, "images[0]"),
    ({"images": [given(header(5000, 10))]}, errors.InvalidField, "images[0]"),
    ({"images": [given(header(4096, 4096))]}, errors.UnsupportedMedia, "images[0]"),
    ({"images": [given(b"")]}, errors.InvalidField, "images[0]"),
    ({"images": [media_pb2.ImageInput(url="https://example.com/a.png")]}, errors.Unsupported, "images[0]"),
    ({"images": [given(drawn())] * 2}, errors.Unsupported, "images[1]"),
    ({"images": [given(drawn())], "operation": image_pb2.OPERATION_GENERATE}, errors.Unsupported, "images"),
    ({"operation": image_pb2.OPERATION_EDIT}, errors.InvalidField, "images"),
    ({"operation": image_pb2.OPERATION_OUTPAINT, "images": [given(drawn())]}, errors.Unsupported, "operation"),
    ({"mask": given(half_mask())}, errors.InvalidField, "mask"),
    ({"style": "anime"}, errors.Unsupported, "style"),
    ({"colors": ["#ff0000"]}, errors.Unsupported, "colors"),
    ({"background": image_pb2.BACKGROUND_TRANSPARENT}, errors.Unsupported, "background"),
    ({"quality": image_pb2.QUALITY_HIGH}, errors.Unsupported, "quality"),
]


@pytest.mark.parametrize(("fields", "kind", "param"), BAD)
async def test_bad_input_is_refused_by_its_field(
    client: Client, fields: dict[str, Any], kind: type[errors.MoaError], param: str
) -> None:
    """Every bad field is refused with its reason and its name, with a status before the first event."""
    with pytest.raises(kind) as caught:
        await client.image(**small(**fields))
    assert caught.value.param == param
