"""Vision models by family: which module reads which kind of model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from inference.vision.families import clip, florence2, owl
from inference.vision.families.base import Family, Files, Finding, Report

LOADERS: Final[dict[str, Callable[[Files], Family]]] = {
    "clip": clip.load,
    "siglip": clip.load,
    "owlvit": owl.load,
    "owlv2": owl.load,
    "florence2": florence2.load,
}
"""By the `model_type` of the model's configuration."""

__all__ = ["LOADERS", "Family", "Files", "Finding", "Report"]
