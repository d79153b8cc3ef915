"""Captioned pictures, drawn by a program, that teach moa-tiny-image all it knows. Captions are English or Korean."""

from __future__ import annotations

from inference.training.pictures.canvas import Drawing, Facts, Found
from inference.training.pictures.mixture import draw

__all__ = ["Drawing", "Facts", "Found", "draw"]
