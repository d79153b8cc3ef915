"""A desk with up to six things on it, each in its place."""

from __future__ import annotations

from random import Random
from typing import Final

from inference.training.pictures.canvas import SIDE, Canvas, Drawing
from inference.training.pictures.palette import jittered

THINGS: Final = {
    "monitor": "모니터", "keyboard": "키보드", "mouse": "마우스", "lamp": "램프", "cup": "컵", "plant": "화분",
}  # fmt: skip
BOXES: Final = {
    "monitor": (82, 52, 174, 160), "keyboard": (72, 190, 170, 224), "mouse": (186, 188, 214, 228),
    "lamp": (20, 60, 64, 166), "cup": (20, 184, 66, 222), "plant": (169, 82, 247, 164),
}  # fmt: skip
"""Where each thing is drawn."""
_WALLS: Final = ((225, 220, 210), (200, 215, 225), (235, 225, 200))


def desk(rng: Random) -> Drawing:
    """Draw a desk with one to four things, in the order in which the caption names them."""
    canvas = Canvas(jittered(rng.choice(_WALLS), rng))
    canvas.pen.rectangle([0, 160, SIDE, SIDE], fill=jittered((165, 110, 65), rng))
    canvas.pen.rectangle([0, 160, SIDE, 166], fill=jittered((120, 78, 45), rng))
    named = rng.sample(list(THINGS), rng.choice((1, 2, 2, 3, 3, 4)))
    canvas.mark("desk", top=160)
    for thing in named:
        canvas.mark(thing, *BOXES[thing])
        _DRAW[thing](canvas, rng)
    if rng.random() < 0.6:
        listed = _listed(named)
        return canvas.finish(rng.choice((f"a desk with {listed}", f"{listed} on a desk")))
    return canvas.finish("책상 위의 " + ", ".join(THINGS[thing] for thing in named))


def _listed(named: list[str]) -> str:
    first = ", ".join(f"a {thing}" for thing in named[:-1])
    return f"{first} and a {named[-1]}" if first else f"a {named[-1]}"


def _monitor(canvas: Canvas, rng: Random) -> None:
    canvas.pen.rectangle([82, 52, 174, 124], fill=(35, 35, 40))
    canvas.pen.rectangle([89, 59, 167, 116], fill=jittered((80, 150, 225), rng))
    canvas.pen.rectangle([122, 124, 134, 152], fill=(60, 60, 65))
    canvas.pen.rectangle([102, 150, 154, 160], fill=(60, 60, 65))


def _keyboard(canvas: Canvas, _: Random) -> None:
    canvas.pen.rounded_rectangle([72, 190, 170, 224], 5, fill=(230, 230, 232))
    for row in range(3):
        for column in range(8):
            x, y = 78 + column * 11, 195 + row * 9
            canvas.pen.rectangle([x, y, x + 7, y + 5], fill=(120, 120, 125))


def _mouse(canvas: Canvas, _: Random) -> None:
    canvas.pen.ellipse([186, 188, 214, 228], fill=(50, 50, 55))
    canvas.pen.line([(200, 190), (200, 204)], fill=(170, 170, 170), width=3)


def _lamp(canvas: Canvas, rng: Random) -> None:
    canvas.pen.rectangle([22, 156, 62, 166], fill=(60, 60, 60))
    canvas.pen.rectangle([39, 92, 45, 158], fill=(80, 80, 80))
    canvas.pen.polygon([(20, 96), (64, 96), (54, 60), (30, 60)], fill=jittered((250, 200, 70), rng))


def _cup(canvas: Canvas, rng: Random) -> None:
    canvas.pen.rectangle([20, 184, 50, 222], fill=jittered((215, 70, 60), rng))
    canvas.pen.arc([42, 190, 66, 214], 270, 90, fill=(215, 70, 60), width=6)


def _plant(canvas: Canvas, rng: Random) -> None:
    canvas.pen.polygon([(198, 132), (238, 132), (232, 164), (204, 164)], fill=(190, 100, 60))
    for shift in (-18, 0, 18):
        leaf = [218 + shift - 11, 82 + abs(shift) // 2, 218 + shift + 11, 136]
        canvas.pen.ellipse(leaf, fill=jittered((55, 150, 70), rng))


_DRAW: Final = {
    "monitor": _monitor,
    "keyboard": _keyboard,
    "mouse": _mouse,
    "lamp": _lamp,
    "cup": _cup,
    "plant": _plant,
}
