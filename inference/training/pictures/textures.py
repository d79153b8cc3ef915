"""Textures: stripes, checkerboards, dots and gradients of two colours."""

from __future__ import annotations

from random import Random

from inference.training.pictures.canvas import SIDE, Canvas, Drawing
from inference.training.pictures.palette import COLOURS, KOREAN, paint


def texture(rng: Random) -> Drawing:
    """Draw any of the textures."""
    first = rng.choice(list(COLOURS))
    second = rng.choice([name for name in COLOURS if name != first])
    return rng.choice((_stripes, _stripes, _checkerboard, _dots, _gradient))(rng, first, second)


def _stripes(rng: Random, first: str, second: str) -> Drawing:
    canvas, fill = Canvas(paint(first, rng)), paint(second, rng)
    level = rng.random() < 0.5
    width = rng.choice((28, 32))
    for at in range(0, SIDE, width * 2):
        box = [0, at, SIDE, at + width - 1] if level else [at, 0, at + width - 1, SIDE]
        canvas.pen.rectangle(box, fill=fill)
    way, way_ko = ("horizontal", "가로") if level else ("vertical", "세로")
    captions = [
        f"{way} {first} and {second} stripes",
        f"{first} and {second} {way} stripes",
        f"{KOREAN[first]} {KOREAN[second]} {way_ko} 줄무늬",
    ]
    return canvas.finish(rng.choice(captions))


def _checkerboard(rng: Random, first: str, second: str) -> Drawing:
    canvas, fill = Canvas(paint(first, rng)), paint(second, rng)
    width = rng.choice((28, 32))
    for row, y in enumerate(range(0, SIDE, width)):
        for column, x in enumerate(range(0, SIDE, width)):
            if (row + column) % 2:
                canvas.pen.rectangle([x, y, x + width - 1, y + width - 1], fill=fill)
    captions = (f"a {first} and {second} checkerboard", f"{KOREAN[first]} {KOREAN[second]} 체크무늬")
    return canvas.finish(rng.choice(captions))


def _dots(rng: Random, first: str, second: str) -> Drawing:
    canvas, fill = Canvas(paint(first, rng)), paint(second, rng)
    for y in range(16, SIDE, 40):
        for x in range(16, SIDE, 40):
            canvas.disc(x, y, 11, fill)
    captions = (f"{second} dots on a {first} background", f"{KOREAN[first]} 배경에 {KOREAN[second]} 점무늬")
    return canvas.finish(rng.choice(captions))


def _gradient(rng: Random, first: str, second: str) -> Drawing:
    canvas = Canvas()
    canvas.gradient([(0, paint(first, rng)), (1, paint(second, rng))])
    captions = (f"a gradient from {first} to {second}", f"{KOREAN[first]}색에서 {KOREAN[second]}색 그라데이션")
    return canvas.finish(rng.choice(captions))
