"""The canvas that pictures are drawn on, and what is known of a picture once it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from PIL import Image, ImageDraw

from inference.training.pictures.palette import RGB

SIDE: Final = 256
"""Side of the canvas in pixels; pictures are reduced to half of it, so that edges are smooth."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the pixel rules can check of a picture of plain shapes."""

    kind: str
    """`single`, `count` or `relation`."""
    background: str
    colour: str
    shape: str
    count: int = 1
    relation: str = ""
    """Where the shape lies from the second one: `left of`, `right of`, `above`, `below`."""
    colour2: str = ""
    shape2: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A thing that was drawn, and where, as parts of the picture's width and height."""

    name: str
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture with its caption."""

    image: Image.Image
    """128×128 RGB."""
    caption: str
    facts: Facts | None = None
    found: tuple[Found, ...] = ()
    """What is to be seen in it; moa-tiny-vision learns from these."""


class Canvas:
    """A square to draw on, in coordinates of 256×256."""

    def __init__(self, fill: RGB = (0, 0, 0)) -> None:
        self.image = Image.new("RGB", (SIDE, SIDE), fill)
        self.pen = ImageDraw.Draw(self.image)
        self._found: list[Found] = []

    def mark(self, name: str, left: float = 0, top: float = 0, right: float = SIDE, bottom: float = SIDE) -> None:
        """Note that a thing is in a rectangle, by default in the whole picture."""
        self._found.append(Found(name, *(min(1.0, max(0.0, side / SIDE)) for side in (left, top, right, bottom))))

    def gradient(self, stops: Sequence[tuple[float, RGB]], top: int = 0, bottom: int = SIDE) -> None:
        """Fill rows `top` to `bottom` with colours that change from stop to stop; stops lie in 0..1."""
        height = bottom - top
        for row in range(height):
            at = row / max(1, height - 1)
            (a, low), (b, high) = next((one, two) for one, two in pairwise(stops) if one[0] <= at <= two[0])
            share = (at - a) / max(1e-6, b - a)
            r, g, b_ = (int(p + (q - p) * share) for p, q in zip(low, high, strict=True))
            self.pen.line([(0, top + row), (SIDE, top + row)], fill=(r, g, b_))

    def disc(self, x: float, y: float, radius: float, fill: RGB) -> None:
        """Fill a circle."""
        self.pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)

    def shape(self, name: str, x: float, y: float, size: float, fill: RGB) -> None:
        """Fill one of the named shapes around a centre; `size` is about half of its height."""
        self.mark(name, x - size, y - size, x + size, y + size)
        draw_shape(self.pen, name, x, y, size, fill)

    def finish(self, caption: str, facts: Facts | None = None) -> Drawing:
        """Give the picture at half size."""
        return Drawing(self.image.reduce(2), caption, facts, tuple(self._found))


def draw_shape(pen: ImageDraw.ImageDraw, name: str, x: float, y: float, s: float, fill: RGB | int) -> None:
    """Fill a named shape around (x, y); `s` is about half of its height."""
    if name == "circle":
        pen.ellipse([x - s, y - s, x + s, y + s], fill=fill)
    elif name == "square":
        pen.rectangle([x - s * 0.88, y - s * 0.88, x + s * 0.88, y + s * 0.88], fill=fill)
    elif name == "ring":
        pen.ellipse([x - s, y - s, x + s, y + s], outline=fill, width=max(4, int(s * 0.36)))
    elif name == "cross":
        pen.rectangle([x - s, y - s * 0.34, x + s, y + s * 0.34], fill=fill)
        pen.rectangle([x - s * 0.34, y - s, x + s * 0.34, y + s], fill=fill)
    else:
        pen.polygon([(x + s * px, y + s * py) for px, py in OUTLINES[name]], fill=fill)


def _star() -> list[tuple[float, float]]:
    radii = (1.1, 0.45)
    return [(radii[i % 2] * math.sin(math.pi * i / 5), -radii[i % 2] * math.cos(math.pi * i / 5)) for i in range(10)]


def _heart() -> list[tuple[float, float]]:
    points = []
    for i in range(48):
        t = i * 2 * math.pi / 48
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((1.02 * math.sin(t) ** 3, -1.02 * y / 16))
    return points


OUTLINES: Final[dict[str, list[tuple[float, float]]]] = {
    "triangle": [(0, -1), (-1, 0.8), (1, 0.8)],
    "star": _star(),
    "heart": _heart(),
    "diamond": [(0, -1.1), (0.75, 0), (0, 1.1), (-0.75, 0)],
}
