"""How a model reads images, by its own `preprocessor_config.json`: size, crop and normalisation, done with Pillow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from services.common.errors import ModelMisconfigured

_GRAY = (128, 128, 128)
"""What OWLv2 pads with."""


@dataclass(frozen=True, slots=True)
class Reading:
    """SharedThread an image into a network's input."""

    width: int
    height: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: Image.Resampling
    crop: bool = False
    """Whether the shorter side is fitted and the middle taken; else the image is stretched."""
    square: bool = False
    """Whether the image is first made square by gray to the right and below."""

    @classmethod
    def of(cls, folder: Path, *, square: bool = False) -> Reading:
        """Read a model's folder. Raises ModelMisconfigured when it does not say."""
        configured = _configured(folder)
        crop = bool(configured.get("do_center_crop", False))
        size = configured.get("crop_size" if crop else "size")
        if isinstance(size, int):
            size = {"height": size, "width": size}
        if not isinstance(size, dict) or not {"height", "width"} <= size.keys():
            raise ModelMisconfigured("the model does not say how large its images are")
        return cls(
            width=int(size["width"]),
            height=int(size["height"]),
            mean=tuple(configured.get("image_mean", (0.5, 0.5, 0.5))),
            std=tuple(configured.get("image_std", (0.5, 0.5, 0.5))),
            resample=Image.Resampling(int(configured.get("resample", Image.Resampling.BICUBIC))),
            crop=crop,
            square=square,
        )

    def __call__(self, image: Image.Image) -> Tensor:
        """Return (1, 3, height, width)."""
        if self.square:
            side = max(image.size)
            padded = Image.new("RGB", (side, side), _GRAY)
            padded.paste(image)
            image = padded
        box = None
        if self.crop:
            part = min(image.width / self.width, image.height / self.height)
            left, top = (image.width - part * self.width) / 2, (image.height - part * self.height) / 2
            box = (left, top, left + part * self.width, top + part * self.height)
        read = np.asarray(image.resize((self.width, self.height), self.resample, box=box), np.float32) / 255
        normal = (read - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return torch.from_numpy(normal).permute(2, 0, 1).unsqueeze(0)

    def stretch(self, image: Image.Image) -> tuple[float, float]:
        """Return the factors from parts of what was read to parts of the image's width and height."""
        if not self.square:
            return 1.0, 1.0
        side = max(image.size)
        return side / image.width, side / image.height


def _configured(folder: Path) -> dict[str, Any]:
    """Return what a folder says of its images: a file of their own, or a part of the processor's."""
    for name, part in (("preprocessor_config.json", ""), ("processor_config.json", "image_processor")):
        if (folder / name).is_file():
            configured = json.loads((folder / name).read_text())
            configured = configured.get(part, {}) if part else configured
            if configured:
                return dict(configured)
    raise ModelMisconfigured("the model does not say how it reads images")
