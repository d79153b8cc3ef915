"""The words that the new image is made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

STYLE: Final = (
    "a realistic image that aesthetically matches and complements the desk's tone, lighting, colours and style"
)
NEGATIVE: Final = (
    "blurry, low resolution, distorted, deformed, people, human, cartoon, anime, painting, clutter, messy background, "
    "bad lighting, duplicate, twin, cloned"
)
"""What the document wants kept out: blur, people, unreal styles, noise, repetition."""


def compose(*, caption: str, objects: Sequence[str], wish: str, style: str, trigger: str) -> str:
    """Join caption, objects, the caller's wish, style words and the adapter's trigger word into one prompt."""
    parts = [trigger, caption]
    if objects:
        parts.append("with " + ", ".join(objects))
    parts += [wish.strip(), style]
    return ", ".join(part for part in parts if part)
