"""Put a batch of pictures through the denoiser in one call, each with its own timestep, prompt and adapters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from inference.image.families import Family
from inference.image.families.base import plain
from inference.image.lanes import PROOFS, Lanes, steady
from inference.image.loras import Adapters
from inference.image.memory import is_out_of_memory, release_memory
from inference.image.order import Picture
from services.common import logs
from services.common.errors import Internal, MoaError, Unavailable

_log = logs.get("image")

_ADAPTER = "adapter:"
"""Marks an adapter's scales among a denoiser's inputs."""

Lost = Callable[[Picture, MoaError], None]
"""Told of a picture that cannot go on."""


class Denoiser:
    """One model's denoiser, its layers made steady (`lanes.steady`).

    Args:
        name: The model's catalogue id, for logs.
        family: The loaded pipeline.
        adapters: Its low-rank adapters.
        most_lanes: Lanes of one call.
        fixed_lanes: Pad calls to so many lanes; 0: see `Lanes`.
    """

    def __init__(self, name: str, family: Family, adapters: Adapters, *, most_lanes: int, fixed_lanes: int) -> None:
        self._name = name
        self._family = family
        self._adapters = adapters
        self._most_lanes = most_lanes
        steady(family.denoiser, fixed=bool(fixed_lanes))
        self.lanes = Lanes(self._forward, fixed=fixed_lanes)

    @torch.inference_mode()
    def warm(self, width: int, height: int) -> None:
        """Run every number of lanes at a size, until it is compiled and proven."""
        family = self._family
        condition = family.condition("", "", 2.0, width, height).lanes[0]
        generator = torch.Generator().manual_seed(0)
        noise = family.packed(family.noise((self._most_lanes, *family.latent_shape(width, height)[1:]), generator))
        times = torch.linspace(999, 1, len(noise), device=noise.device)
        mixed = {_ADAPTER + name: torch.ones(1, 1) for name in self._adapters.names}
        sizes = self.lanes.sizes(self._most_lanes, width, height)
        for count, with_adapters in itertools.product(sizes, {False, bool(mixed)}):
            lane = condition | mixed if with_adapters else condition
            inputs = {name: torch.cat([value] * count) for name, value in lane.items()}
            for _ in range(PROOFS + 1):
                self.lanes.run(noise[:count], times[:count], inputs, self.lanes.canonical(width, height))

    def predict(self, batch: Sequence[Picture], lost: Lost) -> list[Tensor | None]:
        """Return each picture's lanes, None for a lost one: a call that fails is run again picture by picture."""
        try:
            return self.together(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                _log.exception("image.call_failed", model=self._name, pictures=len(batch))
        return [self._alone(picture, lost) for picture in batch]

    def _alone(self, picture: Picture, lost: Lost) -> Tensor | None:
        """Run one picture of a call that failed, so that only the one at fault fails."""
        release_memory()
        try:
            return self.together([picture])[0]
        except Exception as error:
            if is_out_of_memory(error):
                lost(
                    picture,
                    Unavailable("no memory is free for this image now; try again or ask for a smaller one"),
                )
            else:
                _log.exception("image.picture_failed", model=self._name)
                lost(picture, Internal("the model failed while it made this image"))
            return None

    def together(self, batch: Sequence[Picture]) -> list[Tensor | None]:
        """Return each picture's lanes from one call. Raises what the call raises."""
        latents, timesteps, lanes = [], [], []
        adapters = sorted({name for picture in batch for name, _ in picture.order.ask.loras})
        for picture in batch:
            timestep = picture.timesteps[picture.at]
            if picture.scaled is None:
                picture.scaled = self._family.scaled(picture.latents, timestep, picture.scheduler)
            scales = dict(picture.order.ask.loras)
            mixed = {_ADAPTER + name: torch.full((1, 1), scales.get(name, 0.0)) for name in adapters}
            for lane in picture.condition.lanes:
                latents.append(picture.scaled)
                timesteps.append(timestep.to(torch.float32))
                lanes.append(lane | mixed)
        inputs = {name: torch.cat([lane[name] for lane in lanes]) for name in lanes[0]}
        ask = batch[0].order.ask
        canonical = self.lanes.canonical(ask.width, ask.height)
        predicted = plain(self.lanes.run(plain(torch.cat(latents)), torch.stack(timesteps), inputs, canonical))
        return list(torch.split(predicted, [picture.lanes for picture in batch]))

    def _forward(self, latents: Tensor, timesteps: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """Run the family's denoiser with the adapters that its inputs name."""
        scales = {k.removeprefix(_ADAPTER): v.to(latents.device) for k, v in inputs.items() if k.startswith(_ADAPTER)}
        others = {k: v for k, v in inputs.items() if not k.startswith(_ADAPTER)}
        with self._adapters.applied(scales):
            return self._family.forward(latents, timesteps, others)
