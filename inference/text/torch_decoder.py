"""Decode with torch and transformers' own model code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inference.text.language import Logits
from inference.text.queue import CHUNK
from inference.text.slots import Slots


class TorchDecoder:
    """A decoder over a transformers model.

    Args:
        network: The model, in inference form.
        rows: Slots.
        limit: Tokens that a slot may ever hold.
        device: Where the model is.
    """

    chunk = CHUNK

    def __init__(self, network: Any, *, rows: int, limit: int, device: str) -> None:
        self._network = network
        self._device = device
        self._slots = Slots(layers=network.config.num_hidden_layers, rows=rows, limit=limit, device=device)

    def read(self, slot: int, tokens: Sequence[int], start: int) -> Logits:
        """Put a chunk of a prompt into a slot's cache; return the logits after it."""
        slots, end = self._slots, start + len(tokens)
        with torch.inference_mode():
            slots.reserve(end + 1)
            mask, places = slots.plan_prefill(slot, start, end, self._network.dtype)
            logits = self._forward(torch.tensor([list(tokens)]), mask, places)
            slots.lengths[slot] = end
        return logits[0]

    def decode(self, tokens: Mapping[int, int]) -> Mapping[int, Logits]:
        """Put one token into each named slot; every slot is computed, so that the product's shape is always one."""
        slots = self._slots
        with torch.inference_mode():
            slots.reserve(int(slots.lengths.max()) + 1)
            given = torch.zeros(slots.rows, 1, dtype=torch.long)
            for slot, token in tokens.items():
                given[slot] = token
            mask, places = slots.plan_decode(self._network.dtype, list(tokens))
            logits = self._forward(given, mask, places)
            for slot in tokens:
                slots.lengths[slot] += 1
        return {slot: logits[slot] for slot in tokens}

    def keep(self, slot: int, tokens: int) -> None:
        """Forget what a slot holds after its first `tokens` tokens."""
        self._slots.lengths[slot] = tokens

    def copy(self, source: int, slot: int, tokens: int) -> None:
        """Make a slot hold the first `tokens` tokens of another."""
        with torch.inference_mode():
            self._slots.copy(source, slot, tokens)

    def close(self) -> None:
        """Nothing is held but what Python frees."""

    def _forward(self, tokens: Tensor, mask: Tensor, places: Tensor) -> list[Logits]:
        output = self._network(
            input_ids=tokens.to(self._device),
            attention_mask=mask,
            position_ids=places,
            past_key_values=self._slots.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return list(output.logits[:, -1].float().cpu().numpy())
