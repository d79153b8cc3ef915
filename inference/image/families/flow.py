"""What the flow-matching families share: noise is mixed in, and the schedule may be shifted by the picture's size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.image import schedulers
from inference.image.families import prompts
from inference.image.families.base import Family


class FlowMatching(Family):
    """A transformer that predicts the velocity between picture and noise."""

    schedulers = ("euler",)

    @property
    def side_step(self) -> int:
        """Pixels that a picture's sides are multiples of: the transformer takes patches of 2x2 latent pixels."""
        return 2 * self.scale

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer."""
        return self.pipeline.transformer  # type: ignore[no-any-return]

    @property
    def sequence(self) -> int:
        """Tokens of the T5 encoder."""
        return int(self.options.get("max_sequence_length", 256))

    def check_length(self, tokenizer: Any, prompt: str, negative: str) -> None:
        """Raise InvalidField for a prompt that is longer than the T5 encoder reads, or CLIP's where there is no T5.

        CLIP's part of a longer one is cut off, as these models were trained with: T5's has all of it.
        """
        most = self.sequence
        if tokenizer is None:
            tokenizer = self.pipeline.tokenizer
            most = int(tokenizer.model_max_length)
        prompts.refuse_longer(tokenizer, prompt, most, "prompt")
        prompts.refuse_longer(tokenizer, negative, most, "negative_prompt")

    def shift(self, width: int, height: int) -> float:
        """Return the schedule's shift for a size: linear in the number of image tokens (arXiv:2403.03206, 5.3.2)."""
        config = self.pipeline.scheduler.config
        tokens = (width // (2 * self.scale)) * (height // (2 * self.scale))
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        slope = (most - least) / (high - low)
        return float(tokens * slope + least - slope * low)

    def sigmas(self, steps: int) -> Any:
        """Return the unshifted schedule, or None for the scheduler's own."""
        return None

    def scheduler(self, name: str, steps: int, width: int, height: int) -> Any:
        """Make a scheduler with its timesteps set for the size."""
        scheduler = schedulers.made(self.pipeline.scheduler, "")
        extra: dict[str, Any] = {}
        if scheduler.config.get("use_dynamic_shifting"):
            extra["mu"] = self.shift(width, height)
        sigmas = self.sigmas(steps)
        if sigmas is None:
            scheduler.set_timesteps(steps, device=self.device, **extra)
        else:
            scheduler.set_timesteps(sigmas=sigmas, device=self.device, **extra)
        return scheduler

    def skipped(self, steps: int, strength: float, scheduler: Any) -> int:
        """Return how many timesteps an image to image leaves out; these families round the other way."""
        return int(max(steps - min(steps * strength, steps), 0)) * int(scheduler.order)

    def initial(self, noise: Tensor, scheduler: Any) -> Tensor:
        """Return the latents that pure noise begins with: the noise."""
        return noise

    def noised(self, latents: Tensor, noise: Tensor, timestep: Tensor, scheduler: Any) -> Tensor:
        """Return latents as they are at a timestep (1,)."""
        return scheduler.scale_noise(latents, timestep, noise)  # type: ignore[no-any-return]

    def scaled(self, latents: Tensor, timestep: Tensor, scheduler: Any) -> Tensor:
        """Return latents as the denoiser takes them: as they are."""
        return latents


def even_sigmas(steps: int) -> Any:
    """Return evenly spaced noise levels from 1 to 1/steps."""
    return np.linspace(1.0, 1 / steps, steps)
