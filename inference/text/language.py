"""What the text engine asks of a language model, whichever library computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from inference.text.tools import Tool
from inference.text.turns import Turn

if TYPE_CHECKING:  # llguidance takes a while to import, and few requests need it
    from inference.text.constraint import Grammars

Logits = NDArray[np.float32]
"""(vocabulary,), float32."""


class Decoder(Protocol):
    """The weights at work, with a key-value cache of a fixed number of slots.

    What a slot computes depends on its own tokens alone, to the bit, and not on the other slots. A prompt is read in
    chunks of `chunk` tokens from its beginning on, so that whole ones are the same in every prompt that begins so.
    """

    @property
    def chunk(self) -> int:
        """Tokens of a prompt that are read in one call; the last chunk has what is left."""
        ...

    def read(self, slot: int, tokens: Sequence[int], start: int) -> Logits:
        """Put a chunk of a prompt into a slot's cache, from place `start` on; return the logits after it."""
        ...

    def decode(self, tokens: Mapping[int, int]) -> Mapping[int, Logits]:
        """Put one token into each named slot, after what it holds; return the logits by slot."""
        ...

    def keep(self, slot: int, tokens: int) -> None:
        """Forget what a slot holds after its first `tokens` tokens."""
        ...

    def copy(self, source: int, slot: int, tokens: int) -> None:
        """Make a slot hold the first `tokens` tokens of another."""
        ...

    def close(self) -> None:
        """Release the cache's memory; nothing is called afterwards."""
        ...


class LanguageModel(Protocol):
    """A model in memory, with its tokenizer and chat template."""

    @property
    def context(self) -> int:
        """Longest prompt and answer together, in tokens."""
        ...

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        ...

    @property
    def takes_tools(self) -> bool:
        """Whether its chat template tells of tools, as one does that was taught to call them."""
        ...

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights."""
        ...

    def fewest_tokens(self, text: str) -> int:
        """Return how many tokens a text has at least, without tokenizing."""
        ...

    def write(
        self, turns: Sequence[Turn], tools: Sequence[Tool] = (), *, think: bool, goes_on: bool = False
    ) -> tuple[str, bool]:
        """Return the prompt by the chat template, and whether it already opened the reasoning.

        Args:
            turns: The conversation.
            tools: What it may call: told by the template, or in words where the template has none for them.
            think: Whether a model that can choose should reason.
            goes_on: Whether the last turn is the beginning of the answer.

        Raises InvalidField when the template refuses.
        """
        ...

    def tokens(self, text: str) -> list[int]:
        """Return a text's tokens, special ones by their names."""
        ...

    def decode(self, tokens: list[int]) -> str:
        """Return the text of tokens; special ones are left out, broken bytes become U+FFFD."""
        ...

    def token_text(self, token: int) -> tuple[str, bytes]:
        """Return one token's text and bytes."""
        ...

    def grammars(self) -> Grammars:
        """Return a compiler of schemas for the model's tokens; making it takes a while."""
        ...

    def decoder(self, rows: int) -> Decoder:
        """Return a decoder of `rows` slots."""
        ...
