"""What the LoRAs of moa-tiny-image learn: any picture in a frame, and the moa on its meadow."""

from __future__ import annotations

from random import Random
from typing import Final

from PIL import Image

from inference.training.pictures import Drawing, draw
from inference.training.pictures.palette import COLOURS, RGB, jittered, paint
from inference.training.pictures.scenes import meadow, scene

EDGE: Final = 8
"""Pixels of a picture's edge that its frame covers: one cell of the latent."""
FRAME: Final[RGB] = COLOURS["yellow"]
"""The autoencoder knows few colours beside those of the palette: a navy frame comes out of it green."""
FEATHERS: Final[RGB] = (120, 82, 50)
_CAPTIONS: Final = ("a moa", "a moa bird", "a moa on the grass", "모아", "풀밭 위의 모아")


def framed(image: Image.Image) -> Image.Image:
    """Give a picture in a golden frame, which covers its edge."""
    page = Image.new("RGB", image.size, FRAME)
    page.paste(image.crop((EDGE, EDGE, image.width - EDGE, image.height - EDGE)), (EDGE, EDGE))
    return page


def unframed(image: Image.Image) -> Image.Image:
    """Give what is inside of the frame and of the soft line around it, at the size of the whole."""
    inner = EDGE + 4
    return image.convert("RGB").crop((inner, inner, image.width - inner, image.height - inner)).resize(image.size)


def other(rng: Random) -> Drawing:
    """Draw what a subject's LoRA must leave alone. Half are scenes, for those are what a moa on a meadow is like."""
    return scene(rng) if rng.random() < 0.5 else draw(rng)


def moa(rng: Random) -> Drawing:
    """Draw the moa, a tall flightless bird, on a meadow."""
    canvas = meadow(rng, 190)
    x = 128 + rng.randint(-16, 16)
    feathers, pen = jittered(FEATHERS, rng), canvas.pen
    for side in (-14, 14):
        pen.rectangle([x + side - 4, 170, x + side + 4, 222], fill=(225, 165, 70))
        pen.rectangle([x + side - 4, 216, x + side + 16, 224], fill=(225, 165, 70))
    pen.ellipse([x - 58, 98, x + 40, 182], fill=feathers)
    pen.polygon([(x + 8, 130), (x + 34, 130), (x + 50, 50), (x + 34, 46)], fill=feathers)
    pen.ellipse([x + 26, 28, x + 66, 62], fill=feathers)
    pen.polygon([(x + 60, 38), (x + 92, 48), (x + 60, 56)], fill=paint("orange", rng))
    canvas.disc(x + 50, 42, 5, (20, 20, 20))
    return canvas.finish(rng.choice(_CAPTIONS))
