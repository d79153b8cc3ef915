"""Guess token counts, for answers whose provider reports none. Marked as estimates wherever they go.

`services.common.metering` says which of an answer's tokens are guessed, and which are known.
"""

from __future__ import annotations

from math import ceil
from typing import Final, NamedTuple

from moa.common.v1.usage_pb2 import Usage
from moa.text.v1.text_pb2 import Part, Tool
from moa.text.v1.text_service_pb2 import GenerateTextRequest

MOST: Final = 2**32 - 1
"""Largest count that the contract holds; no answer comes near it."""
_PER_MESSAGE = 4
"""Tokens that a chat template adds to a message, or a tool's description, about."""
_PER_IMAGE = 800
"""Tokens that a vision model sees in a 1024 px image, about."""
_FILE_BYTES = 64
"""Bytes of a document or a sound that make one token, about."""


def tokens_of(text: str) -> int:
    """Guess how many tokens a text has: four ASCII characters or one and a third others make one."""
    ascii_count = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return ceil(ascii_count / 4 + (len(text) - ascii_count) * 0.75)


def prompt_tokens(request: GenerateTextRequest) -> int:
    """Guess how many tokens a prompt has."""
    form = request.response_format
    total = tokens_of(form.schema_json) + sum(map(tokens_of, form.choices))
    for message in request.messages:
        total += _PER_MESSAGE + sum(map(_part_tokens, message.parts))
    for tool in request.tools:
        total += _PER_MESSAGE + sum(map(tokens_of, words_of_tool(tool)))
    return total


def words_of_tool(tool: Tool) -> tuple[str, ...]:
    """Return what a tool says in words."""
    return (tool.name, tool.description, tool.parameters_json, tool.custom.grammar.definition)


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


class ReportedUsage(NamedTuple):
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
    prompt_images: int = 0
    """The part of the prompt that was images."""
    completion_images: int = 0
    prompt_audio: int = 0
    """The part of the prompt that was sound."""

    def usage(self, prompt: int = 0, completion: int = 0) -> Usage:
        """Return it, with estimates in the place of what cannot be read."""
        found_prompt = min(prompt, MOST) if self.prompt is None else self.prompt
        found_completion = min(completion, MOST) if self.completion is None else self.completion
        usage = Usage()
        usage.prompt_tokens = found_prompt
        usage.completion_tokens = found_completion
        usage.exact = not self.faults
        # What there is none of takes as long to say.
        if self.cached:
            usage.cached_tokens = min(self.cached, found_prompt)
        if self.cache_write:
            usage.cache_write_tokens = min(self.cache_write, found_prompt)
        if self.reasoning:
            usage.reasoning_tokens = min(self.reasoning, found_completion)
        if self.prompt_images:
            usage.prompt_image_tokens = min(self.prompt_images, found_prompt)
        if self.completion_images:
            usage.completion_image_tokens = min(self.completion_images, found_completion)
        if self.prompt_audio:
            usage.prompt_audio_tokens = min(self.prompt_audio, found_prompt)
        return usage
