"""Cheap previews: latents to small colours by one matrix, fitted to the model's own decoder."""

from __future__ import annotations

import torch
from torch import Tensor

from inference.image import codec
from inference.image.families import Family
from inference.image.families.base import pixels_of

_PROBES = 6
_SIDE = 16


class Previewer:
    """Shows what latents look like. Fitting decodes a few small latents once, on first use; after that a preview is a
    matrix product and a small JPEG.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self._map: Tensor | None = None

    def show(self, latents: Tensor, width: int, height: int) -> bytes:
        """Return a JPEG of half the size."""
        spatial = self._family.to_vae(latents, width, height).float()
        if self._map is None:
            self._map = self._fit(spatial.shape[1])
        colours = torch.einsum("chw,cd->dhw", _with_one(spatial[0]), self._map.to(spatial.device))
        return codec.thumbnail(pixels_of(colours), width // 2, height // 2)

    def _fit(self, channels: int) -> Tensor:
        """Least squares from latent pixels (and a constant) to the mean colour of the pixels that they decode to."""
        family = self._family
        generator = torch.Generator().manual_seed(0)
        coarse = torch.randn((_PROBES, channels, 4, 4), generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, size=(_SIDE, _SIDE), mode="bilinear")
        xs, ys = [], []
        for probe in smooth:
            decoded = family.vae.decode(probe[None].to(family.device, family.vae.dtype), return_dict=False)[0].float()
            colours = torch.nn.functional.adaptive_avg_pool2d(decoded, (_SIDE, _SIDE))[0].cpu()
            xs.append(_with_one(probe).flatten(1).T)
            ys.append(colours.flatten(1).T)
        solution: Tensor = torch.linalg.lstsq(torch.cat(xs), torch.cat(ys)).solution
        return solution


def _with_one(spatial: Tensor) -> Tensor:
    return torch.cat([spatial, torch.ones_like(spatial[:1])])
