"""The parts of Gemini's answers that are used, as typed records."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from services.common.http.google_errors import Failure


class FunctionCall(Struct, gc=False):
    """A function call; the arguments stay as they were written."""

    name: str = ""
    id: str | None = None
    args: msgspec.Raw = msgspec.Raw(b"{}")


class Part(Struct, gc=False, rename="camel"):
    """A part of an answer. A thought is a summary of the model's reasoning."""

    text: str | None = None
    thought: bool = False
    thought_signature: str | None = None
    function_call: FunctionCall | None = None


class Content(Struct, gc=False):
    """What a candidate says."""

    parts: list[Part] | None = None


class Candidate(Struct, gc=False, rename="camel"):
    """A candidate, or a piece of one."""

    index: int = 0
    content: Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None


class Counts(Struct, gc=False, rename="camel"):
    """`usageMetadata`, cumulative. Thoughts are not part of the candidates' tokens."""

    prompt_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0
    tool_use_prompt_token_count: int = 0
    cached_content_token_count: int = 0


class Feedback(Struct, gc=False, rename="camel"):
    """Why a prompt was refused."""

    block_reason: str | None = None
    block_reason_message: str | None = None


class Answer(Struct, gc=False, rename="camel"):
    """An answer, or a piece of one."""

    candidates: list[Candidate] | None = None
    usage_metadata: Counts | None = None
    prompt_feedback: Feedback | None = None
    response_id: str | None = None
    error: Failure | None = None


class Counted(Struct, gc=False, rename="camel"):
    """The answer of `countTokens`."""

    total_tokens: int
