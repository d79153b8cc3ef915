"""The colours and shapes that pictures are made of, with their names."""

from __future__ import annotations

from random import Random
from typing import Final

RGB = tuple[int, int, int]

COLOURS: Final[dict[str, RGB]] = {
    "red": (220, 40, 40),
    "blue": (45, 85, 220),
    "green": (40, 160, 70),
    "yellow": (245, 210, 40),
    "orange": (245, 130, 30),
    "purple": (140, 60, 190),
    "pink": (245, 130, 185),
    "black": (25, 25, 28),
    "white": (248, 248, 248),
    "gray": (135, 135, 140),
    "cyan": (40, 200, 215),
    "brown": (130, 80, 40),
}
KOREAN: Final = {
    "red": "빨간", "blue": "파란", "green": "초록", "yellow": "노란", "orange": "주황", "purple": "보라",
    "pink": "분홍", "black": "검은", "white": "하얀", "gray": "회색", "cyan": "하늘색", "brown": "갈색",
}  # fmt: skip
SHAPES: Final = {
    "circle": "원", "square": "사각형", "triangle": "삼각형", "star": "별", "heart": "하트", "diamond": "마름모",
    "ring": "고리", "cross": "십자가",
}  # fmt: skip
PLURALS: Final = {shape: "crosses" if shape == "cross" else f"{shape}s" for shape in SHAPES}
FOREGROUND: Final = tuple(colour for colour in COLOURS if colour != "white")
BACKGROUNDS: Final = ("white", "white", "white", "black", *COLOURS)

HELD_OUT: Final = frozenset(
    {
        ("red", "star"), ("blue", "heart"), ("green", "circle"), ("yellow", "square"), ("orange", "triangle"),
        ("purple", "diamond"), ("pink", "cross"), ("black", "ring"),
    }
)  # fmt: skip
"""Pairs of colour and shape that training never draws: a prompt with one of them asks for what was never seen."""


def jittered(rgb: RGB, rng: Random, by: int = 10) -> RGB:
    """Give a colour near the one given."""
    r, g, b = (max(0, min(255, value + rng.randint(-by, by))) for value in rgb)
    return r, g, b


def paint(name: str, rng: Random) -> RGB:
    """Give a named colour, as it varies from picture to picture."""
    return jittered(COLOURS[name], rng, 8)


def pair(rng: Random, *, held_out: bool = False) -> tuple[str, str]:
    """Give a colour and a shape: a pair that training draws, or one that it never does."""
    while True:
        chosen = rng.choice(FOREGROUND), rng.choice(list(SHAPES))
        if (chosen in HELD_OUT) == held_out:
            return chosen


def background(rng: Random, *on_it: str) -> str:
    """Give a background on which the colours can be told apart."""
    while True:
        chosen = rng.choice(BACKGROUNDS)
        if chosen not in on_it and not {chosen, *on_it} >= {"white", "gray"}:
            return chosen


def article(words: str) -> str:
    """Put a or an before the words."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
