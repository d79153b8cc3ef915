"""Stable Diffusion 3 and 3.5: a transformer with three text encoders."""

from __future__ import annotations

from torch import Tensor

from inference.image.families.base import Condition, Inputs
from inference.image.families.flow import FlowMatching


class StableDiffusion3(FlowMatching):
    """`StableDiffusion3Pipeline`."""

    def condition(self, prompt: str, negative: str, guidance: float, width: int, height: int) -> Condition:
        """Encode the prompts; guidance above 1 takes a second lane."""
        guided = guidance > 1
        self.check_length(self.pipeline.tokenizer_3, prompt, negative)
        shown, hidden, shown_pooled, hidden_pooled = self.pipeline.encode_prompt(
            prompt,
            None,
            None,
            self.device,
            1,
            guided,
            negative_prompt=negative or None,
            max_sequence_length=self.sequence,
        )

        def lane(text: Tensor, pooled: Tensor) -> Inputs:
            given = {"encoder_hidden_states": text, "pooled_projections": pooled}
            return {name: value.to(self.device, self.dtype) for name, value in given.items()}

        if not guided:
            return Condition((lane(shown, shown_pooled),))
        return Condition((lane(hidden, hidden_pooled), lane(shown, shown_pooled)))

    def forward(self, latents: Tensor, timesteps: Tensor, inputs: Inputs) -> Tensor:
        """Predict the velocity of every lane."""
        return self.pipeline.transformer(  # type: ignore[no-any-return]
            hidden_states=latents, timestep=timesteps, **inputs, return_dict=False
        )[0]
