"""Guess token counts, for answers whose provider reports none. Marked as estimates wherever they go."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from moa.common.v1.usage_pb2 import Usage
from moa.text.v1.text_pb2 import Message

_PER_MESSAGE = 4
"""Tokens that a chat template adds to a message, about."""
_PER_IMAGE = 800
"""Tokens that a vision model sees in a 1024 px image, about."""


def tokens_of(text: str) -> int:
    """Guess how many tokens a text has: four ASCII characters or one and a third others make one."""
    ascii_count = len(text) if text.isascii() else sum(1 for c in text if c < "\x80")
    return ceil(ascii_count / 4 + (len(text) - ascii_count) * 0.75)


def prompt_tokens(messages: Iterable[Message]) -> int:
    """Guess how many tokens a conversation has."""
    total = 0
    for message in messages:
        total += _PER_MESSAGE
        for part in message.parts:
            kind = part.WhichOneof("part")
            if kind == "text":
                total += tokens_of(part.text)
            elif kind == "image":
                total += _PER_IMAGE
            elif kind == "tool_call":
                total += tokens_of(part.tool_call.name) + tokens_of(part.tool_call.arguments_json)
            elif kind == "tool_result":
                total += tokens_of(part.tool_result.content)
            elif kind == "reasoning":
                total += tokens_of(part.reasoning.text)
    return total


class Meter:
    """Guesses an answer's usage from what went by, until the provider's own count arrives."""

    __slots__ = ("_messages", "_pieces", "_reasoning_pieces", "exact")

    def __init__(self, messages: Iterable[Message]) -> None:
        self._messages = messages
        self._pieces = 0
        self._reasoning_pieces = 0
        self.exact: Usage | None = None
        """The provider's latest count; it is the truth once it is there."""

    def saw(self, text: str, *, reasoning: bool = False) -> None:
        """Count a piece of the answer. A streamed piece is mostly one token."""
        count = 1 if len(text) < 8 else tokens_of(text)
        self._pieces += count
        if reasoning:
            self._reasoning_pieces += count

    def usage(self) -> Usage:
        """Give the provider's count, or the estimate, marked as such."""
        if self.exact is not None:
            return self.exact
        return Usage(
            prompt_tokens=prompt_tokens(self._messages),
            completion_tokens=self._pieces,
            reasoning_tokens=self._reasoning_pieces,
        )
