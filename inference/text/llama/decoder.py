"""Decode with llama.cpp: one sequence a slot, each with a key-value buffer of its own."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inference.text.language import Logits
from inference.text.llama.library import FLASH_ATTENTION_ON
from services.common import logs
from services.common.errors import Internal, Unavailable

_log = logs.get("llama")

CHUNK = 64
"""Tokens of a prompt that one call computes; a longer one is not faster, for quantised products go row by row."""


class LlamaDecoder:
    """A decoder over a llama.cpp model.

    Sequences do not share a buffer, because then what a slot computes depends on nothing but its own tokens and how
    they were parted in chunks (measured on SmolLM2, Q4_1: the same bits alone, in any slot and in a crowd; in a shared
    buffer they depend on where in it the tokens lie). For weights whose products depend on the number of rows, which
    `_proven` finds out, each row is a call of its own. Attention is fused: a tenth faster than not, on one core.

    Args:
        library: llama.cpp.
        model: The model's handle, which must outlive the decoder.
        rows: Slots.
        limit: Tokens that a slot may ever hold.
        size: Tokens of the vocabulary.
        threads: Threads of one call.
        on_gpu: Whether the cache lies on the GPU, with the layers that are there.
    """

    chunk = CHUNK

    def __init__(
        self, library: Any, model: int, *, rows: int, limit: int, size: int, threads: int, on_gpu: bool = False
    ) -> None:
        self._library = library
        self._size = size
        self.rows = rows
        params = library.llama_context_default_params()
        params.n_ctx = rows * limit
        params.n_batch = params.n_ubatch = CHUNK
        params.n_seq_max = rows
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = FLASH_ATTENTION_ON
        params.kv_unified = False
        params.offload_kqv = params.op_offload = on_gpu
        self._context = library.llama_init_from_model(model, params)
        if not self._context:
            raise Unavailable("llama.cpp has no memory for the model's key-value cache, or cannot run the model")
        self._memory = library.llama_get_memory(self._context)
        self._batch = library.llama_batch_init(max(CHUNK, rows), 0, 1)
        self._lengths = [0] * rows
        self._together = rows > 1 and self._proven()

    def read(self, slot: int, tokens: Sequence[int], start: int) -> Logits:
        """Put a chunk of a prompt into a slot's cache; return the logits after it."""
        last = len(tokens) - 1
        self._call([(token, start + at, slot, at == last) for at, token in enumerate(tokens)])
        self._lengths[slot] = start + len(tokens)
        return self._logits(last)

    def decode(self, tokens: Mapping[int, int]) -> Mapping[int, Logits]:
        """Put one token into each named slot; return the logits by slot."""
        out: dict[int, Logits] = {}
        # Neighbouring slots are computed in one product, so the order is theirs.
        entries = [(token, self._lengths[slot], slot, True) for slot, token in sorted(tokens.items())]
        for group in [entries] if self._together else [[entry] for entry in entries]:
            self._call(group)
            for at, (_, place, slot, _) in enumerate(group):
                out[slot] = self._logits(at)
                self._lengths[slot] = place + 1
        return out

    def keep(self, slot: int, tokens: int) -> None:
        """Forget what a slot holds after its first `tokens` tokens."""
        self._library.llama_memory_seq_rm(self._memory, slot, tokens, -1)
        self._lengths[slot] = tokens

    def copy(self, source: int, slot: int, tokens: int) -> None:
        """Make a slot hold the first `tokens` tokens of another; between buffers llama.cpp copies whole ones."""
        self._library.llama_memory_seq_rm(self._memory, slot, -1, -1)
        self._library.llama_memory_seq_cp(self._memory, source, slot, -1, -1)
        self.keep(slot, tokens)

    def close(self) -> None:
        """Free the cache."""
        if self._context:
            self._library.llama_batch_free(self._batch)
            self._library.llama_free(self._context)
            self._context = None

    def _call(self, entries: Sequence[tuple[int, int, int, bool]]) -> None:
        """Compute (token, place, slot, whether its logits are wanted)."""
        batch = self._batch
        batch.n_tokens = len(entries)
        for at, (token, place, slot, wanted) in enumerate(entries):
            batch.token[at] = token
            batch.pos[at] = place
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = slot
            batch.logits[at] = wanted
        code = self._library.llama_decode(self._context, batch)
        if code != 0:
            raise Internal(f"llama.cpp failed to decode (code {code})")

    def _logits(self, at: int) -> Logits:
        found = self._library.llama_get_logits_ith(self._context, at)
        if not found:
            raise Internal("llama.cpp gave no logits")
        return np.ctypeslib.as_array(ctypes.cast(found, ctypes.POINTER(ctypes.c_float)), (self._size,)).copy()

    def _proven(self) -> bool:
        """Return whether a row has the same bits alone and beside others, by trying."""
        together = True
        crowds = sorted({2, min(3, self.rows), self.rows})
        tokens = [7 + 13 * at % max(1, self._size - 8) for at in range(max(crowds))]
        try:
            for slot in range(max(crowds)):
                self.read(slot, [tokens[slot], *tokens[:8]], 0)
            length = self._lengths[0]
            alone = self._alone(tokens[0], length)
            for crowd in crowds:
                self._call([(tokens[slot], length, slot, True) for slot in range(crowd)])
                together = together and bool(np.array_equal(self._logits(0), alone))
                for slot in range(crowd):
                    self.keep(slot, length)
        finally:
            for slot in range(max(crowds)):
                self.keep(slot, 0)
        if not together:
            _log.warning("llama.rows_are_single", why="this model's products depend on how many rows there are")
        return together

    def _alone(self, token: int, place: int) -> Logits:
        self._call([(token, place, 0, True)])
        logits = self._logits(0)
        self.keep(0, place)
        return logits
