"""How often each kind of picture is drawn."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from inference.training.pictures import plain, scenes, textures
from inference.training.pictures.canvas import Drawing

# Several shapes and relations are the slowest to learn, scenes the fastest: the shares follow that.
_MIXTURE: Final[tuple[tuple[float, Callable[[Random], Drawing]], ...]] = (
    (0.30, plain.single),
    (0.22, plain.count),
    (0.22, plain.relation),
    (0.21, scenes.scene),
    (0.05, textures.texture),
)
_SHARES: Final = [share for share, _ in _MIXTURE]


def draw(rng: Random) -> Drawing:
    """Draw a picture of the training distribution."""
    return rng.choices(_MIXTURE, _SHARES)[0][1](rng)
