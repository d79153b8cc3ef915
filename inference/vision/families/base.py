"""What a family of vision models offers the engine. A family is one module; each does what it can."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from inference import hub
from services.common.errors import Unsupported

Report = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """A thing in an image."""

    label: str
    score: float
    """0 to 1."""
    box: tuple[float, float, float, float]
    """Left, top, right and bottom, as parts of width and height."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where a model is loaded from, and how."""

    folder: Path
    device: str
    dtype: torch.dtype
    options: Mapping[str, Any]
    """The catalogue's."""

    def network(self, kind: Any, **more: Any) -> Any:
        """Load weights, from safetensors only."""
        network = kind.from_pretrained(
            self.folder,
            dtype=self.dtype,
            use_safetensors=True,
            variant=hub.variant_in(self.folder, str(self.options.get("variant", ""))),
            attn_implementation=self.options.get("attention", "sdpa"),
            **more,
        )
        return network.eval().requires_grad_(False).to(self.device)


class Family:
    """A loaded model.

    Args:
        network: The transformers model.
        threshold: From which probability on a statement holds and a thing is found.
    """

    def __init__(self, network: Any, threshold: float) -> None:
        self.network = network
        self.threshold = threshold

    def caption(self, image: Image.Image) -> str:
        """Describe an image in one sentence. Raises Unsupported."""
        raise Unsupported("this model cannot describe images", param="model")

    def detect(self, image: Image.Image, labels: Sequence[str], least: float) -> list[Finding]:
        """Find things of at least a score, in any order. Raises Unsupported; InvalidField where labels are needed."""
        raise Unsupported("this model cannot find objects", param="model")

    def judge(self, image: Image.Image, statements: Sequence[str]) -> list[float]:
        """Return the probability of each statement. Raises Unsupported."""
        raise Unsupported("this model cannot judge statements", param="model")

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights."""
        return sum(p.numel() * p.element_size() for p in self.network.parameters())


def same(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether two boxes of one label are of one thing.

    They are from an overlap (intersection over union) of 0.3 on, or when 0.6 of one
    lies in the other: a thing is sometimes found a second time by its edge.
    """
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return False
    shared = width * height
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared >= 0.3 * (sum(areas) - shared) or shared >= 0.6 * min(areas)


def boxed(left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float] | None:
    """Return a box within the image, or None for one without area."""
    left, top, right, bottom = (min(1.0, max(0.0, side)) for side in (left, top, right, bottom))
    return (left, top, right, bottom) if right > left and bottom > top else None
