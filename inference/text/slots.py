"""The key-value cache of all running answers: a fixed number of slots, one answer each.

Decoding always runs every slot, busy or not, and reads a width that grows in fixed strides. A row's values therefore
depend on nothing but the row (measured: matrix products with few rows change with the number of rows).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

STRIDE = 64
"""The width that is read grows by so many tokens."""


class _Layer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped here
    """One layer's keys and values, (slots, heads, tokens, size)."""

    is_sliding = False

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self._slots = slots
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate for the first keys that are seen."""
        rows, room = self._slots.rows, self._slots.room
        self.keys = key_states.new_zeros(rows, key_states.shape[1], room, key_states.shape[3])
        self.values = value_states.new_zeros(rows, value_states.shape[1], room, value_states.shape[3])
        self.is_initialized = True

    def grow(self) -> None:
        """Make room for as many tokens as the slots now have."""
        if self.keys is None or self.values is None:
            return
        more = self._slots.room - self.keys.shape[2]
        self.keys = torch.nn.functional.pad(self.keys, (0, 0, 0, more))
        self.values = torch.nn.functional.pad(self.values, (0, 0, 0, more))

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write where the plan says and give what attention may see."""
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        slots = self._slots
        if slots.prefilling is not None:
            slot, start, end = slots.prefilling
            self.keys[slot, :, start:end] = key_states[0]
            self.values[slot, :, start:end] = value_states[0]
            return self.keys[slot : slot + 1, :, :end], self.values[slot : slot + 1, :, :end]
        self.keys[slots.every, :, slots.lengths] = key_states[:, :, 0]
        self.values[slots.every, :, slots.lengths] = value_states[:, :, 0]
        return self.keys[:, :, : slots.width], self.values[:, :, : slots.width]

    def copy(self, source: int, slot: int, tokens: int) -> None:
        """Copy the first tokens of a slot to another."""
        if self.keys is not None and self.values is not None:
            self.keys[slot, :, :tokens] = self.keys[source, :, :tokens]
            self.values[slot, :, :tokens] = self.values[source, :, :tokens]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Unused: masks are given ready made."""
        return self._slots.width, 0

    def get_seq_length(self) -> int:
        """Unused: positions are given."""
        return 0

    def get_max_length(self) -> int:
        """The room of a slot."""
        return self._slots.room


class Slots:
    """Which slot holds what, and how the next forward pass reads and writes.

    Args:
        layers: Layers of the model.
        rows: Slots.
        limit: Tokens that a slot may ever hold.
        device: Where the cache lives.
    """

    def __init__(self, *, layers: int, rows: int, limit: int, device: str) -> None:
        self.rows = rows
        self.room = min(4 * STRIDE, limit)
        self.width = STRIDE
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.every = torch.arange(rows, device=device)
        self.prefilling: tuple[int, int, int] | None = None
        self._limit = limit
        self._device = device
        self.cache = Cache(layers=[_Layer(self) for _ in range(layers)])

    def reserve(self, tokens: int) -> None:
        """Make room for `tokens` in every slot."""
        if tokens <= self.room:
            return
        while self.room < tokens:
            self.room *= 2
        self.room = min(self.room, self._limit)
        for layer in self.cache.layers:
            layer.grow()

    def plan_prefill(self, slot: int, start: int, end: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Plan to write tokens `start` to `end` of one slot; give (mask, positions)."""
        self.prefilling = (slot, start, end)
        places = torch.arange(start, end, device=self._device)
        seen = torch.arange(end, device=self._device)[None, :] <= places[:, None]
        return _additive(seen, dtype)[None, None], places[None]

    def copy(self, source: int, slot: int, tokens: int) -> None:
        """Make a slot hold the first tokens of another."""
        for layer in self.cache.layers:
            layer.copy(source, slot, tokens)
        self.lengths[slot] = tokens

    def plan_decode(self, dtype: torch.dtype, busy: list[int]) -> tuple[Tensor, Tensor]:
        """Plan to write one token to every slot after what it holds; give (mask, positions).

        As many tokens are read as the longest of the `busy` slots has. The others hold what may be asked for again;
        their token is written behind it and means nothing.
        """
        self.prefilling = None
        self.lengths.clamp_(max=self.room - 1)
        longest = int(self.lengths[busy].max()) + 1
        self.width = min(-(-longest // STRIDE) * STRIDE, self.room)
        seen = torch.arange(self.width, device=self._device)[None, :] <= self.lengths[:, None]
        return _additive(seen, dtype)[:, None, None], self.lengths[:, None].clone()


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 where a token is seen and the least number where it is not."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)
