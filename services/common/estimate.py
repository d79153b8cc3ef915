"""Guess token counts, for answers whose provider reports none. Marked as estimates wherever they go.

Whoever charges for a stream that was cut guesses by this: the router, and the backend when the router died.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Final

from moa.common.v1.usage_pb2 import Usage
from moa.text.v1.text_pb2 import Part
from moa.text.v1.text_service_pb2 import GenerateTextRequest

MOST: Final = 2**32 - 1
"""Largest count that the contract holds; no answer comes near it."""
_PER_MESSAGE = 4
"""Tokens that a chat template adds to a message, or a tool's description, about."""
_PER_IMAGE = 800
"""Tokens that a vision model sees in a 1024 px image, about."""
_FILE_BYTES = 64
"""Bytes of a document or a sound that make one token, about."""
_PIECE_CHARS = 8
"""Shorter pieces of a stream are mostly one token."""


def tokens_of(text: str) -> int:
    """Guess how many tokens a text has: four ASCII characters or one and a third others make one."""
    ascii_count = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return ceil(ascii_count / 4 + (len(text) - ascii_count) * 0.75)


def prompt_tokens(request: GenerateTextRequest) -> int:
    """Guess how many tokens a prompt has."""
    total = tokens_of(request.response_format.schema_json)
    for message in request.messages:
        total += _PER_MESSAGE + sum(map(_part_tokens, message.parts))
    for tool in request.tools:
        total += _PER_MESSAGE + sum(map(tokens_of, (tool.name, tool.description, tool.parameters_json)))
    return total


def _part_tokens(part: Part) -> int:
    kind = part.WhichOneof("part")
    if kind == "text":
        return tokens_of(part.text)
    if kind == "image":
        return _PER_IMAGE
    if kind == "file":
        return len(part.file.data) // _FILE_BYTES
    if kind == "tool_call":
        return tokens_of(part.tool_call.name) + tokens_of(part.tool_call.arguments_json)
    if kind == "tool_result":
        return tokens_of(part.tool_result.content)
    return tokens_of(part.reasoning.text)


@dataclass(frozen=True, slots=True)
class ReportedUsage:
    """What a provider reported of an answer's usage."""

    prompt: int | None
    """Tokens of the prompt; None where that cannot be read."""
    completion: int | None
    cached: int
    reasoning: int
    faults: frozenset[str]
    """What was wrong with it, by kind; empty where nothing was."""
    cache_write: int = 0
    """The part of the prompt, beside `cached`, that was written to the provider's cache."""

    def usage(self, prompt: int = 0, completion: int = 0) -> Usage:
        """Return it, with estimates in the place of what cannot be read."""
        found_prompt = min(prompt, MOST) if self.prompt is None else self.prompt
        found_completion = min(completion, MOST) if self.completion is None else self.completion
        return Usage(
            prompt_tokens=found_prompt,
            completion_tokens=found_completion,
            cached_tokens=min(self.cached, found_prompt),
            cache_write_tokens=min(self.cache_write, found_prompt),
            reasoning_tokens=min(self.reasoning, found_completion),
            exact=not self.faults,
        )


class Meter:
    """Guesses an answer's usage from what went by, until the provider's own count arrives.

    Args:
        prompt: The prompt's tokens, as `prompt_tokens` guesses them; or what guesses them where they are needed, which
            for a long one takes a while.
    """

    __slots__ = ("_pieces", "_prompt", "_reasoning_pieces", "reported")

    def __init__(self, prompt: int | Callable[[], int]) -> None:
        self._prompt = prompt
        self._pieces = 0
        self._reasoning_pieces = 0
        self.reported: ReportedUsage | None = None
        """The provider's latest count; it is the truth once it is there, as far as it can be read."""

    def saw(self, text: str, *, reasoning: bool = False) -> None:
        """Count a piece of the answer."""
        count = 1 if len(text) < _PIECE_CHARS else tokens_of(text)
        self._pieces += count
        if reasoning:
            self._reasoning_pieces += count

    def usage(self) -> Usage:
        """Return the provider's count, or the estimate, marked as such."""
        reported = self.reported
        # Nothing at all is no count of an answer with words: some servers send zeros before they count.
        if reported is not None and not (self._pieces and reported.prompt == reported.completion == 0):
            return reported.usage(0 if reported.prompt is not None else self._guess(), self._pieces)
        return Usage(
            prompt_tokens=self._guess(), completion_tokens=self._pieces, reasoning_tokens=self._reasoning_pieces
        )

    def _guess(self) -> int:
        if not isinstance(self._prompt, int):
            self._prompt = self._prompt()
        return self._prompt
