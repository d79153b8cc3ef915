"""Run a denoiser on many lanes at once, so that no lane's bits depend on the others.

A kernel may round differently at another batch size. Two ways keep a lane's bits the same:

- *proven* (default): a pair of lanes is the truth. The first times that a batch size is used with a latent shape, its
  lanes are also run in pairs; equal bits prove the size, and it is used from then on, else never again.
- *fixed*: every call of a picture's size is padded to one number of lanes. For devices on which sizes differ (mostly
  GPUs). Larger pictures have fewer lanes: their calls fill the device by themselves, and padding would only cost.

Measured on CPU with torch 2.13: convolutions of one lane take another path than those of more, matrix products with
few rows (the time embedding has one row a lane) change with the number of rows, and nothing else does. Hence pairs,
and hence `steady`, which runs such products lane by lane: after that every size from 2 on is equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

FEW_ROWS = 8
"""Products with fewer rows a lane run lane by lane. (Measured on an AMD EPYC, widths 4 to 2560: with 8 rows a lane and
more, two lanes to ten have equal bits. Where that does not hold, proofs fail and calls stay pairs.)"""
SCALE = "stored_scale"
"""Buffer of a layer whose weights are stored in 8 bits: what each row was divided by."""
PAIR = 2
FULL_AREA = 512 * 512
"""Up to how many pixels a picture's calls have all of the fixed lanes."""
SIZES = (2, 3, 4, 6, 8, 10, 12, 16, 24, 32)
PROOFS = 2
"""How often a size must have given equal bits before it is trusted."""

Forward = Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]
"""(latents, timesteps, inputs), all with the lanes first, to the prediction."""

_Lanes = tuple[Tensor, Tensor, dict[str, Tensor]]


class Lanes:
    """Calls a denoiser.

    Args:
        forward: The denoiser.
        fixed: Pad calls of 512x512 pictures to so many lanes, those of larger ones to fewer in proportion; 0: prove
            sizes instead.
    """

    def __init__(self, forward: Forward, *, fixed: int = 0) -> None:
        self._forward = forward
        self._fixed = fixed
        self._proofs: dict[tuple[Any, int], int] = {}  # -1: refused
        self.calls = 0

    def sizes(self, most: int, width: int, height: int) -> list[int]:
        """List the batch sizes that calls of up to `most` lanes have."""
        return [self.canonical(width, height)] if self._fixed else [size for size in SIZES if size <= most]

    def canonical(self, width: int, height: int) -> int:
        """Return the batch size whose bits every result of a picture's size has."""
        fitting = self._fixed * FULL_AREA // (width * height)
        return max(PAIR, min(self._fixed, fitting - fitting % PAIR))

    def run(self, latents: Tensor, timesteps: Tensor, inputs: dict[str, Tensor], canonical: int = PAIR) -> Tensor:
        """Return every lane's prediction, with the bits that it would have alone: in calls of `canonical` lanes."""
        lanes = (latents, timesteps, inputs)
        count = latents.shape[0]
        if self._fixed or count <= PAIR:
            return self._in_parts(lanes, canonical)
        size = next((size for size in SIZES if size >= count), count)
        key = (tuple(latents.shape[1:]), tuple(sorted((k, tuple(v.shape[1:])) for k, v in inputs.items())))
        proofs = self._proofs.get((key, size), 0)
        if proofs >= PROOFS:
            return self._padded(lanes, size)
        together = self._padded(lanes, size) if proofs >= 0 else None
        alone = self._in_parts(lanes, PAIR)
        if together is not None:
            self._proofs[key, size] = proofs + 1 if torch.equal(together, alone) else -1
        return alone

    def proven(self) -> dict[int, bool]:
        """List the sizes that were tried with any shape, and whether all of them held."""
        sizes: dict[int, bool] = {}
        for (_, size), proofs in self._proofs.items():
            sizes[size] = sizes.get(size, True) and proofs >= 0
        return sizes

    def _in_parts(self, lanes: _Lanes, size: int) -> Tensor:
        count = lanes[0].shape[0]
        parts = [self._padded(_cut(lanes, slice(at, at + size)), size) for at in range(0, count, size)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _padded(self, lanes: _Lanes, size: int) -> Tensor:
        latents, timesteps, inputs = lanes
        count = latents.shape[0]
        if count < size:
            latents = _filled(latents, size)
            timesteps = _filled(timesteps, size)
            inputs = {name: _filled(value, size) for name, value in inputs.items()}
        return self._call(latents, timesteps, inputs)[:count]

    def _call(self, latents: Tensor, timesteps: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        self.calls += 1
        return self._forward(latents, timesteps, inputs)


def _cut(lanes: _Lanes, part: slice) -> _Lanes:
    latents, timesteps, inputs = lanes
    return latents[part], timesteps[part], {name: value[part] for name, value in inputs.items()}


def _filled(value: Tensor, size: int) -> Tensor:
    """Repeat the first lane until there are `size`."""
    return torch.cat([value, value[:1].expand(size - value.shape[0], *value.shape[1:])])


def steady(network: torch.nn.Module, *, fixed: bool) -> None:
    """Make every linear layer of `network` run its products of few rows lane by lane, unless sizes are fixed.

    Linear layers and convolutions whose weights are stored in 8 bits widen them as they run.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.Linear) and (not fixed or hasattr(module, SCALE)):
            module.forward = _steady_forward(module, fixed)  # type: ignore[assignment]
        elif isinstance(module, torch.nn.Conv2d) and hasattr(module, SCALE):
            module.forward = _widened_forward(module)  # type: ignore[assignment]


def _steady_forward(linear: torch.nn.Linear, fixed: bool) -> Callable[[Tensor], Tensor]:
    product = functional.linear if fixed else steadily

    def forward(given: Tensor) -> Tensor:
        return product(given, _widened(linear, given.dtype), linear.bias)

    return forward


def _widened_forward(convolution: torch.nn.Conv2d) -> Callable[[Tensor], Tensor]:
    def forward(given: Tensor) -> Tensor:
        return convolution._conv_forward(given, _widened(convolution, given.dtype), convolution.bias)  # type: ignore[no-any-return]

    return forward


def _widened(layer: torch.nn.Module, dtype: torch.dtype) -> Tensor:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    scale: Tensor | None = getattr(layer, SCALE, None)
    return weight if scale is None else weight.to(dtype) * scale


def steadily(given: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `functional.linear` of lanes (n, …, features), each lane by itself where it has few rows."""
    if given.numel() >= FEW_ROWS * given.shape[0] * given.shape[-1]:
        return functional.linear(given, weight, bias)
    return torch.cat([functional.linear(lane, weight, bias) for lane in torch.split(given, 1)])
