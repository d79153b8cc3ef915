"""Scenes: landscapes, a house, a car, a flower, faces; the desk has a module of its own."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from inference.training.pictures import things
from inference.training.pictures.canvas import SIDE, Canvas, Drawing
from inference.training.pictures.desk import desk
from inference.training.pictures.palette import jittered

_MEADOW = (90, 170, 80)


def sky(rng: Random) -> Canvas:
    """Give a canvas with the sky of a clear day."""
    canvas = Canvas()
    canvas.gradient([(0, jittered((125, 195, 245), rng)), (1, jittered((220, 238, 250), rng))])
    return canvas


def meadow(rng: Random, top: int) -> Canvas:
    """Give a clear sky over grass that begins at row `top`."""
    canvas = sky(rng)
    canvas.pen.rectangle([0, top, SIDE, SIDE], fill=jittered(_MEADOW, rng))
    return canvas


def sunset(rng: Random) -> Drawing:
    """Draw a sunset over hills or over the sea."""
    horizon = rng.randint(150, 180)
    canvas = Canvas()
    glow = [(0.0, (70, 40, 110)), (0.5, (225, 90, 70)), (1.0, (255, 195, 90))]
    canvas.gradient([(at, jittered(rgb, rng)) for at, rgb in glow], 0, horizon)
    x, radius = rng.randint(80, 176), rng.randint(26, 36)
    canvas.mark("sunset")
    canvas.disc(x, horizon - 14, radius, jittered((255, 240, 170), rng))
    if rng.random() < 0.5:
        canvas.gradient([(0, jittered((200, 90, 80), rng)), (1, jittered((50, 35, 80), rng))], horizon)
        for i in range(6):
            y, half = horizon + 8 + i * 12, radius - i * 3
            canvas.pen.rectangle([x - half, y, x + half, y + 3], fill=(255, 210, 130))
        return canvas.finish(
            rng.choice(("a sunset over the sea", "sunset over the ocean", "바다 위의 노을", "바다 노을"))
        )
    ridge = [(i * 32, horizon + rng.randint(-14, 18)) for i in range(9)]
    canvas.pen.polygon([(0, SIDE), (0, horizon + 10), *ridge, (SIDE, SIDE)], fill=jittered((40, 25, 50), rng))
    return canvas.finish(rng.choice(("a sunset", "sunset", "a beautiful sunset", "노을", "저녁 노을")))


def night(rng: Random) -> Drawing:
    """Draw a night sky with stars, often with the moon."""
    canvas = Canvas()
    canvas.gradient([(0, jittered((8, 10, 35), rng, 4)), (1, jittered((40, 45, 95), rng))])
    canvas.mark("night sky")
    for _ in range(rng.randint(18, 30)):
        canvas.disc(rng.randint(4, SIDE - 4), rng.randint(4, 190), rng.choice((2, 2, 3)), (255, 255, 230))
    if rng.random() < 0.6:
        x, y = rng.randint(60, 196), rng.randint(50, 90)
        canvas.mark("moon", x - 26, y - 26, x + 26, y + 26)
        canvas.disc(x, y, 26, (250, 245, 205))
        captions = ["a night sky with a moon", "the moon in the night sky", "night sky with the moon and stars"]
        return canvas.finish(rng.choice([*captions, "달이 뜬 밤하늘"]))
    return canvas.finish(rng.choice(("a night sky with stars", "a starry night", "별이 있는 밤하늘")))


def mountains(rng: Random) -> Drawing:
    """Draw two mountains, with or without snow."""
    canvas = Canvas()
    canvas.gradient([(0, jittered((110, 175, 235), rng)), (1, jittered((215, 235, 250), rng))])
    snow = rng.random() < 0.5
    canvas.mark("mountains", top=60, bottom=220)
    peaks = ((rng.randint(40, 90), rng.randint(70, 100), 110), (rng.randint(150, 215), rng.randint(60, 90), 120))
    for x, y, half in peaks:
        canvas.pen.polygon([(x, y), (x - half, 220), (x + half, 220)], fill=jittered((105, 110, 130), rng))
        if snow:
            edge = y + (220 - y) * 0.28
            canvas.pen.polygon([(x, y), (x - half * 0.28, edge), (x + half * 0.28, edge)], fill=(245, 248, 252))
    canvas.pen.rectangle([0, 196, SIDE, SIDE], fill=jittered((75, 150, 75), rng))
    if snow:
        return canvas.finish(rng.choice(("snowy mountains", "mountains with snow", "눈 덮인 산")))
    return canvas.finish(rng.choice(("mountains", "a mountain landscape", "산 풍경", "산")))


def sea(rng: Random) -> Drawing:
    """Draw the sea, a boat on it or a beach, sometimes under the sun."""
    canvas = Canvas()
    canvas.gradient([(0, jittered((120, 190, 245), rng)), (1, jittered((205, 232, 250), rng))], 0, 130)
    canvas.gradient([(0, jittered((40, 130, 205), rng)), (1, jittered((20, 80, 160), rng))], 128)
    kind = rng.choice(("sea", "boat", "beach"))
    canvas.mark("sea", top=130)
    if kind == "boat":
        things.boat(canvas, rng.randint(80, 176), rng.randint(140, 165), rng)
        captions = ["a boat on the sea", "a sailboat on the ocean", "바다 위의 배", "바다에 떠 있는 배"]
    elif kind == "beach":
        shore = [(0, 200), (90, rng.randint(188, 200)), (170, rng.randint(196, 210)), (SIDE, rng.randint(195, 215))]
        canvas.mark("beach", top=190)
        canvas.pen.polygon([*shore, (SIDE, SIDE), (0, SIDE)], fill=jittered((240, 215, 160), rng))
        captions = ["a beach", "a sandy beach by the sea", "해변", "모래 해변"]
    else:
        captions = ["the sea", "a blue ocean", "바다", "푸른 바다"]
    caption = rng.choice(captions)
    if rng.random() < 0.3:
        x = rng.randint(190, 215)
        canvas.mark("sun", x - 22, 22, x + 22, 66)
        canvas.disc(x, 44, 22, (255, 225, 90))
        caption += rng.choice((" with a sun", " under the sun")) if caption.isascii() else "와 태양"
    return canvas.finish(caption)


def trees(rng: Random) -> Drawing:
    """Draw one tree or a forest."""
    canvas = meadow(rng, 190)
    if rng.random() < 0.5:
        things.tree(canvas, 128 + rng.randint(-25, 25), 205, 80, jittered((45, 130, 60), rng), rng)
        return canvas.finish(rng.choice(("a tree", "a green tree on the grass", "나무", "풀밭 위의 나무")))
    canvas.mark("forest", top=70, bottom=220)
    for x in sorted(rng.sample(range(20, 240, 28), 6)):
        things.tree(canvas, x, rng.randint(195, 215), rng.randint(50, 72), jittered((40, 115, 55), rng, 15), rng)
    return canvas.finish(rng.choice(("a forest", "trees in a forest", "숲", "나무가 많은 숲")))


def house(rng: Random) -> Drawing:
    """Draw a house with a coloured roof."""
    canvas = meadow(rng, 196)
    return canvas.finish(things.house(canvas, 128 + rng.randint(-16, 16), rng))


def car(rng: Random) -> Drawing:
    """Draw a car on a road."""
    canvas = sky(rng)
    canvas.pen.rectangle([0, 170, SIDE, SIDE], fill=jittered((110, 110, 115), rng))
    return canvas.finish(things.car(canvas, 128 + rng.randint(-18, 18), rng))


def flower(rng: Random) -> Drawing:
    """Draw a flower with six petals."""
    canvas = meadow(rng, 200)
    return canvas.finish(things.flower(canvas, 128 + rng.randint(-14, 14), rng))


_SCENES: Final[tuple[Callable[[Random], Drawing], ...]] = (
    sunset, night, mountains, sea, trees, house, car, flower, things.face, things.cat, desk, desk,
)  # fmt: skip


def scene(rng: Random) -> Drawing:
    """Draw any scene; desks come twice as often, for they hold many things."""
    return rng.choice(_SCENES)(rng)
