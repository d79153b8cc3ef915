"""Stable Diffusion 1.x and 2.x: a UNet with one text encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inference.image.families import prompts
from inference.image.families.base import Condition, Family, Inputs


class StableDiffusion(Family):
    """`StableDiffusionPipeline`."""

    @property
    def denoiser(self) -> torch.nn.Module:
        """The UNet."""
        return self.pipeline.unet  # type: ignore[no-any-return]

    def condition(self, prompt: str, negative: str, guidance: float, width: int, height: int) -> Condition:
        """Encode the prompts; guidance above 1 takes a second lane, unless the model was distilled to be told it."""
        embedding_dim_of_guidance = self.pipeline.unet.config.time_cond_proj_dim
        guided = guidance > 1 and embedding_dim_of_guidance is None

        def encode(one: str, other: str | None) -> tuple[Any, ...]:
            return self.pipeline.encode_prompt(one, self.device, 1, guided, negative_prompt=other)  # type: ignore[no-any-return]

        shown, hidden = prompts.encoded(self.long_prompts, self.pipeline.tokenizer, prompt, negative, encode)
        texts = (hidden, shown) if guided else (shown,)
        lanes: tuple[Inputs, ...] = tuple({"encoder_hidden_states": text.to(self.dtype)} for text in texts)
        if embedding_dim_of_guidance is not None:
            strength = torch.tensor([guidance - 1.0])
            embedded = self.pipeline.get_guidance_scale_embedding(strength, embedding_dim=embedding_dim_of_guidance)
            lanes[0]["timestep_cond"] = embedded.to(self.device, self.dtype)
        return Condition(lanes)

    def forward(self, latents: Tensor, timesteps: Tensor, inputs: Inputs) -> Tensor:
        """Predict the noise (or velocity) of every lane."""
        return self.pipeline.unet(latents, timesteps, **inputs, return_dict=False)[0]  # type: ignore[no-any-return]
