"""What every family gives the engine."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from inference.image import schedulers
from inference.image.families import prompts

if TYPE_CHECKING:
    from inference.image.codec import Pixels

Inputs = dict[str, Tensor]
"""What a denoiser is given beside latents and timesteps, by argument; one lane each, (1, …)."""


@dataclass(frozen=True, slots=True)
class Condition:
    """How a picture is guided: its lanes in the denoiser's call, the negative one first where there are two."""

    lanes: tuple[Inputs, ...]


class Family(ABC):
    """A diffusion pipeline taken apart into what the engine's loop needs. Used from one thread.

    Latents are *spatial*, (1, channels, height, width), until `packed` gives them the form that the denoiser takes.

    Args:
        pipeline: The diffusers pipeline, whose constructor has put its scheduler's configuration right.
        options: The catalogue's options of the model.
    """

    schedulers: tuple[str, ...] = tuple(schedulers.BY_NAME)
    """The samplers that this family can use, beside the model's own."""

    def __init__(self, pipeline: Any, options: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.pipeline = pipeline
        self.options = options
        self.long_prompts = prompts.way_of(options)
        """What is done with prompts that an encoder does not read at once."""
        self.device = torch.device(pipeline.device)
        self.dtype: torch.dtype = next(self.denoiser.parameters()).dtype
        """The denoiser's number format."""
        self.uncompiled: Callable[[], AbstractContextManager[None]] = nullcontext
        """Has a body in which the denoiser runs as it was written, compiled or not."""
        self.vae = pipeline.vae
        self.scale = int(pipeline.vae_scale_factor)
        """Pixels of a latent pixel's side."""

    @property
    def side_step(self) -> int:
        """Pixels that a picture's sides are multiples of."""
        return self.scale

    @property
    @abstractmethod
    def denoiser(self) -> torch.nn.Module:
        """The network that every step runs."""

    @abstractmethod
    def condition(self, prompt: str, negative: str, guidance: float, width: int, height: int) -> Condition:
        """Encode the prompts, one text at a time, so that neighbours cannot change them."""

    @abstractmethod
    def forward(self, latents: Tensor, timesteps: Tensor, inputs: Inputs) -> Tensor:
        """Run the denoiser on a batch of lanes: latents (n, …), timesteps (n,), inputs (n, …) each."""

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        """Return the shape of one picture's spatial latents, (1, channels, height, width)."""
        return (1, int(self.vae.config.latent_channels), height // self.scale, width // self.scale)

    def scheduler(self, name: str, steps: int, width: int, height: int) -> Any:
        """Make a scheduler with its timesteps set."""
        scheduler = schedulers.made(self.pipeline.scheduler, name)
        scheduler.set_timesteps(steps, device=self.device)
        return scheduler

    def skipped(self, steps: int, strength: float, scheduler: Any) -> int:
        """Return how many timesteps an image to image leaves out."""
        return max(steps - min(int(steps * strength), steps), 0) * int(scheduler.order)

    def packed(self, latents: Tensor) -> Tensor:
        """Turn spatial latents into the form that the denoiser takes."""
        return latents

    def unpacked(self, latents: Tensor, width: int, height: int) -> Tensor:
        """Turn the denoiser's latents into spatial ones."""
        return latents

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw noise on the CPU, so that a seed means the same on every device."""
        return torch.randn(shape, generator=generator, dtype=self.dtype).to(self.device)

    def initial(self, noise: Tensor, scheduler: Any) -> Tensor:
        """Return the latents that pure noise begins with."""
        begun: Tensor = noise * scheduler.init_noise_sigma
        return begun

    def noised(self, latents: Tensor, noise: Tensor, timestep: Tensor, scheduler: Any) -> Tensor:
        """Return latents as they are at a timestep (1,)."""
        return scheduler.add_noise(latents, noise, timestep)  # type: ignore[no-any-return]

    def scaled(self, latents: Tensor, timestep: Tensor, scheduler: Any) -> Tensor:
        """Return latents as the denoiser takes them."""
        return scheduler.scale_model_input(latents, timestep)  # type: ignore[no-any-return]

    def stepped(
        self, predicted: Tensor, timestep: Tensor, latents: Tensor, scheduler: Any, generator: torch.Generator
    ) -> Tensor:
        """Take one step with a picture's own scheduler and generator."""
        extra = {"generator": generator} if _takes_generator(type(scheduler)) else {}
        return scheduler.step(predicted, timestep, latents, **extra, return_dict=False)[0]  # type: ignore[no-any-return]

    def encode(self, image: Image.Image, generator: torch.Generator) -> Tensor:
        """Return an image's spatial latents."""
        pixels = self.pipeline.image_processor.preprocess(image).to(self.device, self.vae.dtype)
        encoded = self.vae.encode(pixels)
        drawn = encoded.latent_dist.sample(generator) if hasattr(encoded, "latent_dist") else encoded.latents
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        latents: Tensor = (drawn - shift) * float(self.vae.config.scaling_factor)
        return latents.to(self.dtype)

    def to_vae(self, latents: Tensor, width: int, height: int) -> Tensor:
        """Turn the denoiser's latents into the VAE's."""
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        spatial: Tensor = self.unpacked(latents, width, height) / float(self.vae.config.scaling_factor) + shift
        return spatial

    def decode(self, latents: Tensor, width: int, height: int) -> Tensor:
        """Decode one picture's latents to (3, height, width), -1 to 1."""
        ready = self.to_vae(latents, width, height).to(self.vae.dtype)
        return self.vae.decode(ready, return_dict=False)[0][0]  # type: ignore[no-any-return]


def pixels_of(decoded: Tensor) -> Pixels:
    """Return a decoded picture, -1 to 1, as pixels."""
    shown = (decoded.float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0)
    return (shown * 255).round().to(torch.uint8).cpu().numpy()


def plain(tensor: Tensor) -> Tensor:
    """Return a tensor in plain order in memory. Kernels choose by the order, and bits may depend on the kernel."""
    return tensor.contiguous(memory_format=torch.contiguous_format)


_TAKES: dict[type, bool] = {}


def _takes_generator(kind: type) -> bool:
    if kind not in _TAKES:
        _TAKES[kind] = "generator" in inspect.signature(kind.step).parameters  # type: ignore[attr-defined]
    return _TAKES[kind]
