"""The parts of OpenAI's answers that are used, as typed records: the rest is not even decoded.

`PlainChunk` is one more: the form of nearly all pieces of a stream, which holds nothing but what it names.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Raw, Struct

from services.providers.openai.errors import Failure


class Function(Struct, gc=False):
    """A function call, or a piece of one."""

    name: str | None = None
    arguments: str | None = None


class Custom(Struct, gc=False):
    """A call of a custom tool, or a piece of one."""

    name: str | None = None
    input: str | None = None


class Call(Struct, gc=False):
    """A tool call, or a piece of one. Some servers leave the index out."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None
    custom: Custom | None = None

    @property
    def is_custom(self) -> bool:
        """Whether a custom tool is called, as far as this piece says."""
        return self.custom is not None or self.type == "custom"


class Delta(Struct):
    """A message, or a piece of one.

    `reasoning_content` is DeepSeek's, vLLM's and others'; `reasoning` and `images` OpenRouter's; `function_call` what
    OpenAI's calls were before tools; `content_parts` what is no text where the content is a list (`lenient`).
    """

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: Any = None
    tool_calls: list[Call] | None = None
    function_call: Function | None = None
    audio: Any = None
    images: Any = None
    content_parts: list[dict[str, Any]] | None = None


class Logprob(Struct, gc=False):
    """A token's probability."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[Logprob] | None = None


class Logprobs(Struct, gc=False):
    """The probabilities of a piece."""

    content: list[Logprob] | None = None


class Choice(Struct, gc=False):
    """A candidate, or a piece of one: `delta` when streamed, else `message`; `text` in the form before chats.

    `error` is OpenRouter's, for one candidate.
    """

    index: int = 0
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    text: str | None = None
    error: Failure | str | None = None


class Chunk(Struct, gc=False):
    """An answer, or a piece of one."""

    id: str | None = None
    choices: list[Choice] | None = None
    usage: Raw = Raw(b"")
    error: Failure | str | None = None


class PlainFunction(Struct, gc=False, forbid_unknown_fields=True):
    """A piece of a begun call's arguments."""

    arguments: str
    name: None = None


class PlainCall(Struct, gc=False, forbid_unknown_fields=True):
    """A piece of a begun call."""

    index: int
    function: PlainFunction
    id: None = None
    type: Literal["", "function"] | None = None


class PlainDelta(Struct, gc=False, forbid_unknown_fields=True):
    """A piece of text, of reasoning or of a call, and nothing beside it."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: None = None
    tool_calls: tuple[PlainCall] | None = None
    function_call: None = None


class PlainChoice(Struct, gc=False, forbid_unknown_fields=True):
    """A piece of a candidate that goes on. What servers write beside it is null, which says nothing.

    But for `content_filter_results`: Azure puts them on every piece, mostly the same.
    """

    delta: PlainDelta
    index: int = 0
    content_filter_results: Raw = Raw(b"")
    finish_reason: None = None
    logprobs: None = None
    matched_stop: None = None
    native_finish_reason: None = None
    stop_reason: None = None
    token_ids: None = None


class PlainChunk(Struct, gc=False, forbid_unknown_fields=True):
    """A piece of a streamed answer as nearly all are. What decodes so needs no second look: it holds nothing else."""

    choices: tuple[PlainChoice]
    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    provider: str | None = None
    obfuscation: str | None = None
    prompt_token_ids: None = None
    usage: None = None
    error: None = None
