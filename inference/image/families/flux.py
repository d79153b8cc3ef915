"""FLUX.1: a transformer over 2x2 patches of latents, told its guidance instead of being run twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inference.image.families.base import Condition, Inputs
from inference.image.families.flow import FlowMatching, even_sigmas
from services.common.errors import Unsupported


class Flux(FlowMatching):
    """`FluxPipeline`."""

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        """Return the shape of one picture's spatial latents; sides are even, for the patches."""
        side = 2 * self.scale
        channels = int(self.pipeline.transformer.config.in_channels) // 4
        return (1, channels, 2 * (height // side), 2 * (width // side))

    def condition(self, prompt: str, negative: str, guidance: float, width: int, height: int) -> Condition:
        """Encode the prompt, the places of the patches, and the guidance where the model is told it."""
        if negative:
            raise Unsupported("this model takes no negative prompt", param="negative_prompt")
        self.check_length(self.pipeline.tokenizer_2, prompt, negative)
        text, pooled, places = self.pipeline.encode_prompt(
            prompt, None, self.device, 1, max_sequence_length=self.sequence
        )
        _, _, down, across = self.latent_shape(width, height)
        patches = self.pipeline._prepare_latent_image_ids(1, down // 2, across // 2, self.device, self.dtype)
        lane: Inputs = {
            "encoder_hidden_states": text.to(self.dtype),
            "pooled_projections": pooled.to(self.dtype),
            "txt_ids": places[None],
            "img_ids": patches[None],
        }
        if self.pipeline.transformer.config.guidance_embeds:
            lane["guidance"] = torch.tensor([guidance], dtype=torch.float32, device=self.device)
        return Condition((lane,))

    def sigmas(self, steps: int) -> Any:
        """Return evenly spaced noise levels, as the pipeline does."""
        return None if self.pipeline.scheduler.config.get("use_flow_sigmas") else even_sigmas(steps)

    def packed(self, latents: Tensor) -> Tensor:
        """Put 2x2 latent pixels into one token: (1, tokens, 4 * channels)."""
        count, channels, down, across = latents.shape
        return self.pipeline._pack_latents(latents, count, channels, down, across)  # type: ignore[no-any-return]

    def unpacked(self, latents: Tensor, width: int, height: int) -> Tensor:
        """Undo `packed`."""
        return self.pipeline._unpack_latents(latents, height, width, self.scale)  # type: ignore[no-any-return]

    def forward(self, latents: Tensor, timesteps: Tensor, inputs: Inputs) -> Tensor:
        """Predict the velocity of every lane. Places are the same in every lane of a bucket."""
        lanes = dict(inputs)
        places = {name: lanes.pop(name)[0] for name in ("txt_ids", "img_ids")}
        return self.pipeline.transformer(  # type: ignore[no-any-return]
            hidden_states=latents, timestep=timesteps.to(latents.dtype) / 1000, **lanes, **places, return_dict=False
        )[0]
