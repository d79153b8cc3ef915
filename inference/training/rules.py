"""Pixel rules: read colours, shapes, counts and positions off a picture. No learned parts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from inference.training.pictures.canvas import Facts, draw_shape
from inference.training.pictures.palette import COLOURS, SHAPES

Array = NDArray[np.float64]

_SIDE: Final = 128
_EDGE: Final = 4  # pixels of the border that tell the background
_DIFFERENT: Final = 45.0  # RGB distance from the background at which a pixel belongs to an object
_SMALLEST: Final = 120  # pixels of the smallest object
_APART: Final = 15.0  # pixels between centres from which one object is beside the other
_MOST: Final = 0.6  # share of a group's shapes that must be right
_STRETCH: Final = 0.3  # how much a wrong aspect ratio counts against a template


@dataclass(frozen=True, slots=True)
class Found:
    """An object in a picture."""

    colour: str
    shape: str
    x: float
    y: float
    pixels: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which of its facts a picture shows."""

    background: bool
    count: bool
    colour: bool
    shape: bool
    relation: bool
    """True where the caption asks for none."""

    @property
    def all(self) -> bool:
        """Whether everything is right."""
        return all(getattr(self, field.name) for field in fields(self))


def judge(image: Image.Image, facts: Facts) -> Verdict:
    """Hold a picture against what its caption asks for."""
    ground, found = look(image)
    if facts.kind == "relation":
        first = [o for o in found if o.colour == facts.colour]
        second = [o for o in found if o.colour == facts.colour2]
        both = bool(first and second)
        return Verdict(
            background=ground == facts.background,
            count=len(found) == facts.count,
            colour=both,
            shape=both and (first[0].shape, second[0].shape) == (facts.shape, facts.shape2),
            relation=both and _lies(first[0], second[0], facts.relation),
        )
    right = [o.shape == facts.shape for o in found]
    return Verdict(
        background=ground == facts.background,
        count=len(found) == facts.count,
        colour=bool(found) and all(o.colour == facts.colour for o in found),
        shape=bool(found) and (sum(right) >= _MOST * len(right) if facts.kind == "count" else right[0]),
        relation=True,
    )


def _lies(first: Found, second: Found, relation: str) -> bool:
    dx, dy = first.x - second.x, first.y - second.y
    return {"left of": dx < -_APART, "right of": dx > _APART, "above": dy < -_APART, "below": dy > _APART}[relation]


def look(image: Image.Image) -> tuple[str, list[Found]]:
    """Give the background's colour and the objects on it, largest first."""
    pixels: Array = np.asarray(image.convert("RGB").resize((_SIDE, _SIDE)), dtype=np.float64)
    border = [pixels[:_EDGE], pixels[-_EDGE:], pixels[:, :_EDGE], pixels[:, -_EDGE:]]
    ground: Array = np.median(np.concatenate([part.reshape(-1, 3) for part in border]), axis=0)
    mask = np.sqrt(((pixels - ground) ** 2).sum(axis=-1)) > _DIFFERENT
    found = []
    for part in sorted(_components(mask), key=len, reverse=True):
        if len(part) <= _SMALLEST:
            continue
        y, x = part.mean(axis=0)
        colour = nearest(np.median(pixels[part[:, 0], part[:, 1]], axis=0))
        found.append(Found(colour, _shape_of(part), float(x), float(y), len(part)))
    return nearest(ground), found


def nearest(rgb: Array) -> str:
    """Name the nearest colour of the palette."""
    return min(COLOURS, key=lambda name: float(((np.asarray(COLOURS[name], dtype=np.float64) - rgb) ** 2).sum()))


def _components(mask: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Give the 8-connected parts of a mask as (row, column) lists."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    parts = []
    while left:
        stack = [left.pop()]
        part = []
        while stack:
            y, x = stack.pop()
            part.append((y, x))
            for near in ((y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
                if near in left:
                    left.remove(near)
                    stack.append(near)
        parts.append(np.array(part, dtype=np.intp))
    return parts


def _normal(part: NDArray[np.intp]) -> tuple[Array, float]:
    """Give a part scaled to 32×32 and its height over its width."""
    y0, x0 = part.min(axis=0)
    y1, x1 = part.max(axis=0)
    mask = np.zeros((y1 - y0 + 1, x1 - x0 + 1), dtype=np.uint8)
    mask[part[:, 0] - y0, part[:, 1] - x0] = 255
    scaled = Image.fromarray(mask).resize((32, 32), Image.Resampling.BILINEAR)
    return np.asarray(scaled, dtype=np.float64) / 255, float((y1 - y0 + 1) / (x1 - x0 + 1))


@cache
def _templates() -> dict[str, tuple[Array, float]]:
    templates = {}
    for shape in SHAPES:
        image = Image.new("L", (256, 256))
        draw_shape(ImageDraw.Draw(image), shape, 128, 128, 80, 255)
        templates[shape] = _normal(np.argwhere(np.asarray(image) > 128))
    return templates


def _shape_of(part: NDArray[np.intp]) -> str:
    mask, ratio = _normal(part)

    def likeness(shape: str) -> float:
        template, wanted = _templates()[shape]
        overlap = np.minimum(mask, template).sum() / np.maximum(mask, template).sum()
        return float(overlap - _STRETCH * abs(np.log(ratio / wanted)))

    return max(_templates(), key=likeness)
