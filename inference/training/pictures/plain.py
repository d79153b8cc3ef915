"""Plain shapes on a plain background: one, several alike, or two in a relation. The pixel rules score these."""

from __future__ import annotations

from random import Random
from typing import Final

from inference.training.pictures import palette
from inference.training.pictures.canvas import Canvas, Drawing, Facts
from inference.training.pictures.palette import KOREAN, PLURALS, SHAPES, article, paint

# size: (smallest, largest, in Korean, how far from the middle)
SIZES: Final = {"small": (30, 40, "작은", 50), "big": (74, 92, "큰", 18), "": (50, 62, "", 18)}
NUMBERS: Final = {2: ("two", "두"), 3: ("three", "세"), 4: ("four", "네")}
# relation: (in Korean, direction from the second shape to the first)
RELATIONS: Final = {
    "left of": ("왼쪽에", (-1, 0)),
    "right of": ("오른쪽에", (1, 0)),
    "above": ("위에", (0, -1)),
    "below": ("아래에", (0, 1)),
}
_PLACES: Final = {
    2: ((70, 128), (186, 128)),
    3: ((128, 70), (68, 182), (188, 182)),
    4: ((72, 72), (184, 72), (72, 184), (184, 184)),
}
_ENGLISH: Final = 0.6  # share of English captions


def single(rng: Random, *, held_out: bool = False) -> Drawing:
    """Draw one shape, of any size."""
    colour, shape = palette.pair(rng, held_out=held_out)
    ground = palette.background(rng, colour)
    size = rng.choice(("", "", "small", "big"))
    canvas = Canvas(paint(ground, rng))
    smallest, largest, size_ko, away = SIZES[size]
    half = rng.randint(smallest, largest)
    x, y = 128 + rng.randint(-away, away), 128 + rng.randint(-away, away)
    canvas.shape(shape, x, y, half, paint(colour, rng))
    named = ground != "white" or rng.random() < 0.5
    if rng.random() < _ENGLISH:
        caption = article(f"{size} {colour} {shape}".strip())
        if named:
            caption += rng.choice((" on a {} background", " on a {} background", ", {} background")).format(ground)
        if rng.random() < 0.1:
            caption = rng.choice(("an image of ", "draw ", "a picture of ")) + caption
    else:
        caption = f"{size_ko} {KOREAN[colour]} {SHAPES[shape]}".strip()
        if named:
            caption = f"{KOREAN[ground]} {rng.choice(('배경에', '배경의'))} {caption}"
    return canvas.finish(caption, Facts("single", ground, colour, shape))


def count(rng: Random, *, held_out: bool = False) -> Drawing:
    """Draw two to four shapes of one kind."""
    colour, shape = palette.pair(rng, held_out=held_out)
    ground = palette.background(rng, colour)
    number = rng.choice((2, 2, 3, 3, 4))
    canvas = Canvas(paint(ground, rng))
    fill = paint(colour, rng)
    for x, y in _PLACES[number]:
        canvas.shape(shape, x + rng.randint(-8, 8), y + rng.randint(-8, 8), rng.randint(36, 44), fill)
    english, korean = NUMBERS[number]
    return canvas.finish(
        _on(rng, ground, f"{english} {colour} {PLURALS[shape]}", f"{KOREAN[colour]} {SHAPES[shape]} {korean} 개"),
        Facts("count", ground, colour, shape, count=number),
    )


def relation(rng: Random, *, held_out: bool = False) -> Drawing:
    """Draw two shapes of different colours beside or above each other."""
    colour, shape = palette.pair(rng, held_out=held_out)
    colour2, shape2 = palette.pair(rng)
    while colour2 == colour:
        colour2, shape2 = palette.pair(rng)
    where = rng.choice(list(RELATIONS))
    korean, (dx, dy) = RELATIONS[where]
    ground = palette.background(rng, colour, colour2)
    canvas = Canvas(paint(ground, rng))
    for name, kind, side in ((colour, shape, 60), (colour2, shape2, -60)):
        x, y = 128 + dx * side + rng.randint(-8, 8), 128 + dy * side + rng.randint(-8, 8)
        canvas.shape(kind, x, y, rng.randint(42, 50), paint(name, rng))
    return canvas.finish(
        _on(
            rng,
            ground,
            f"{article(colour)} {shape} {where} {article(colour2)} {shape2}",
            f"{KOREAN[colour2]} {SHAPES[shape2]} {korean} {KOREAN[colour]} {SHAPES[shape]}",
        ),
        Facts("relation", ground, colour, shape, 2, where, colour2, shape2),
    )


def _on(rng: Random, ground: str, english: str, korean: str) -> str:
    named = ground != "white" or rng.random() < 0.4
    if rng.random() < _ENGLISH:
        return f"{english} on a {ground} background" if named else english
    return f"{KOREAN[ground]} 배경에 {korean}" if named else korean
