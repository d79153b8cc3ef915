"""What moa-tiny-vision learns from: pictures as a camera might take them, with what is where in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from inference.training.pictures import Found, draw, scenes
from inference.training.pictures.desk import desk

SIDE: Final = 128
GRID: Final = 8
"""The picture is seen as 8×8 cells."""
NAMES: Final[dict[str, tuple[str, ...]]] = {
    "monitor": ("monitor", "screen", "computer monitor"),
    "keyboard": ("keyboard", "computer keyboard"),
    "mouse": ("mouse", "computer mouse"),
    "lamp": ("lamp", "desk lamp"),
    "cup": ("cup", "mug", "coffee mug"),
    "plant": ("plant", "potted plant"),
    "desk": ("desk", "office desk"),
    **{
        name: (name,)
        for name in (
            "sunset", "night sky", "moon", "mountains", "sea", "beach", "boat", "sun", "forest", "tree", "house", "car",
            "flower", "face", "cat", "circle", "square", "triangle", "star", "heart", "diamond", "ring", "cross",
        )
    },
}  # fmt: skip
"""What can be in a picture, and how callers may word it."""
SCENES: Final = {
    "desk": "a desk", "sunset": "a sunset", "night sky": "a night sky", "mountains": "mountains", "sea": "the sea",
    "beach": "a beach", "forest": "a forest",
}  # fmt: skip
"""What a whole picture can be of, as captions word it."""
ABSENT: Final = (
    "mouse pad", "laptop", "speaker", "headphones", "microphone", "webcam", "clock", "book", "pen holder",
    "picture frame", "monitor stand", "laptop stand", "office chair", "desk organizer", "chair", "person", "dog",
    "bottle", "phone", "printer", "tablet", "sofa", "bed", "bicycle", "train", "banana", "pizza", "horse", "shoe",
    "umbrella", "window", "door", "guitar", "kitchen", "street", "bathroom", "bird", "fish", "hat", "camera",
)  # fmt: skip
"""What is in none of the pictures."""
_WORDINGS: Final = ("{}", "{}", "a {}", "a photo of a {}", "an image of a {}", "a picture of a {}")


@dataclass(frozen=True, slots=True)
class Sight:
    """A picture and what is in it."""

    image: Image.Image
    """128×128 RGB."""
    found: tuple[Found, ...]

    def shows(self, name: str) -> bool:
        """Tell whether a thing is in it."""
        return any(each.name == name for each in self.found)


def things() -> dict[str, str]:
    """Give the other names, as captions word them."""
    return {name: "the sun" if name == "sun" else f"a {name}" for name in NAMES if name not in SCENES}


def worded(rng: Random, phrase: str) -> str:
    """Word a phrase as callers do."""
    wording = rng.choice(_WORDINGS)
    if phrase[0] in "aeiou" and rng.random() < 0.5:  # callers that fill in a wording write "a office desk"
        wording = wording.replace("a {}", "an {}")
    return wording.format(phrase)


def sight(rng: Random, *, rough: bool = True) -> Sight:
    """Draw a picture, half of them desks; `rough` moves, blurs and dims it as cameras do."""
    kind = rng.random()
    if kind < 0.03:
        noise = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (rng.choice((4, 16, 128)),) * 2 + (3,))
        return Sight(Image.fromarray(noise.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BILINEAR), ())
    drawn = desk(rng) if kind < 0.5 else scenes.scene(rng) if kind < 0.8 else draw(rng)
    if not rough:
        return Sight(drawn.image, drawn.found)
    image, found = _moved(rng, drawn.image, drawn.found)
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2.0)))
    pixels = np.asarray(image, np.float32) * rng.uniform(0.8, 1.15) + rng.uniform(-12, 12)
    if rng.random() < 0.4:
        dice = np.random.default_rng(rng.randrange(2**32))
        pixels = pixels + dice.normal(0, rng.uniform(2, 12), pixels.shape)
    return Sight(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), found)


def _moved(rng: Random, image: Image.Image, found: tuple[Found, ...]) -> tuple[Image.Image, tuple[Found, ...]]:
    """Zoom and shift, and mirror every second picture; what leaves the frame by three quarters is no longer found."""
    zoom = rng.uniform(0.8, 1.25)
    side = SIDE / zoom
    left, top = (rng.uniform(0.0, 1.0) * (SIDE - side) for _ in range(2))
    if zoom < 1:
        edge = SIDE // 4
        padded = np.pad(np.asarray(image), ((edge, edge), (edge, edge), (0, 0)), mode="edge")
        crop = (left + edge, top + edge, left + side + edge, top + side + edge)
        image = Image.fromarray(padded).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=crop)
    else:
        image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    mirror = rng.random() < 0.5
    if mirror:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    moved = []
    for each in found:
        xs = [(x * SIDE - left) / side for x in (each.left, each.right)]
        ys = [(y * SIDE - top) / side for y in (each.top, each.bottom)]
        if mirror:
            xs = [1 - xs[1], 1 - xs[0]]
        whole = (xs[1] - xs[0]) * (ys[1] - ys[0])
        x0, x1, y0, y1 = (min(1.0, max(0.0, v)) for v in (*xs, *ys))
        if (x1 - x0) * (y1 - y0) > 0.25 * whole:
            moved.append(Found(each.name, x0, y0, x1, y1))
    return image, tuple(moved)


def pixels(sights: Sequence[Sight]) -> Tensor:
    """Give (sights, 3, 128, 128) in −1..1."""
    stacked = np.stack([np.asarray(each.image) for each in sights])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 127.5 - 1


@dataclass(frozen=True, slots=True)
class Targets:
    """What each of the 64 cells of each picture should say."""

    named: Tensor
    """(pictures, 64, names): 1 where the cell tells of the thing, 0 where not, −1 where either will do."""
    boxes: Tensor
    """(pictures, 64, 4): centre and size of the thing that the cell tells of."""
    telling: Tensor
    """(pictures, 64): which cells tell of one."""


def targets(sights: Sequence[Sight]) -> Targets:
    """Give each thing to the cells about its middle; a smaller thing goes before a larger one."""
    order = list(NAMES)
    named = np.zeros((len(sights), GRID * GRID, len(order)), np.float32)
    boxes = np.zeros((len(sights), GRID * GRID, 4), np.float32)
    telling = np.zeros((len(sights), GRID * GRID), bool)
    for i, each in enumerate(sights):
        for one in sorted(each.found, key=lambda f: (f.right - f.left) * (f.bottom - f.top)):
            at = order.index(one.name)
            cells = _middle(one) & ~telling[i]
            named[i, _around(one) & (named[i, :, at] == 0), at] = -1
            named[i, cells, at] = 1
            boxes[i, cells] = (
                (one.left + one.right) / 2,
                (one.top + one.bottom) / 2,
                one.right - one.left,
                one.bottom - one.top,
            )
            telling[i] |= cells
    return Targets(torch.from_numpy(named), torch.from_numpy(boxes), torch.from_numpy(telling))


_AT: Final = (np.arange(GRID * GRID) % GRID + 0.5) / GRID, (np.arange(GRID * GRID) // GRID + 0.5) / GRID


def _around(one: Found) -> NDArray[np.bool_]:
    reach = 0.5 / GRID
    x, y = _AT
    inside: NDArray[np.bool_] = (
        (x > one.left - reach) & (x < one.right + reach) & (y > one.top - reach) & (y < one.bottom + reach)
    )
    return inside


def _middle(one: Found) -> NDArray[np.bool_]:
    x, y = _AT
    dx, dy = np.abs(x - (one.left + one.right) / 2), np.abs(y - (one.top + one.bottom) / 2)
    cells: NDArray[np.bool_] = (dx < (one.right - one.left) * 0.3) & (dy < (one.bottom - one.top) * 0.3)
    cells[np.argmin(dx + dy)] = True
    return cells
