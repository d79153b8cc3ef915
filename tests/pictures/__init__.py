"""Four of the pictures that the shipped models learned from were drawn like these, by a seed that training never used.

`inference/training/tests/test_pictures.py` holds them to what the training distribution draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
from PIL import Image

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Found:
    """A thing and its box, in parts of the picture's sides."""

    name: str
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Picture:
    """A picture of 128x128 and what is in it."""

    image: Image.Image
    found: tuple[Found, ...]


def picture(name: str) -> Picture:
    """Return one: a `desk` with three things, one with `five`, counting itself, a `house`, or a `scene` of a face."""
    told = msgspec.json.decode((_FOLDER / "found.json").read_bytes(), type=dict[str, tuple[Found, ...]])
    with Image.open(_FOLDER / f"{name}.png") as opened:
        return Picture(opened.convert("RGB"), told[name])
