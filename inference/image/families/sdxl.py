"""Stable Diffusion XL: a UNet with two text encoders that is also told the picture's size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inference.image.families import prompts
from inference.image.families.base import Condition, Family, Inputs


class StableDiffusionXL(Family):
    """`StableDiffusionXLPipeline`."""

    @property
    def denoiser(self) -> torch.nn.Module:
        """The UNet."""
        return self.pipeline.unet  # type: ignore[no-any-return]

    def condition(self, prompt: str, negative: str, guidance: float, width: int, height: int) -> Condition:
        """Encode the prompts and the size; guidance above 1 takes a second lane."""
        guided = guidance > 1

        def encode(one: str, other: str | None) -> tuple[Any, ...]:
            return self.pipeline.encode_prompt(one, None, self.device, 1, guided, negative_prompt=other)  # type: ignore[no-any-return]

        tokenizer = self.pipeline.tokenizer or self.pipeline.tokenizer_2
        shown, hidden, shown_pooled, hidden_pooled = prompts.encoded(
            self.long_prompts, tokenizer, prompt, negative, encode
        )
        size = (height, width)
        times = self.pipeline._get_add_time_ids(
            size, (0, 0), size, dtype=shown.dtype, text_encoder_projection_dim=int(shown_pooled.shape[-1])
        )

        def lane(text: Tensor, pooled: Tensor) -> Inputs:
            given = {"encoder_hidden_states": text, "text_embeds": pooled, "time_ids": times}
            return {name: value.to(self.device, self.dtype) for name, value in given.items()}

        if not guided:
            return Condition((lane(shown, shown_pooled),))
        return Condition((lane(hidden, hidden_pooled), lane(shown, shown_pooled)))

    def forward(self, latents: Tensor, timesteps: Tensor, inputs: Inputs) -> Tensor:
        """Predict the noise (or velocity) of every lane."""
        added = {"text_embeds": inputs["text_embeds"], "time_ids": inputs["time_ids"]}
        return self.pipeline.unet(  # type: ignore[no-any-return]
            latents,
            timesteps,
            encoder_hidden_states=inputs["encoder_hidden_states"],
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
