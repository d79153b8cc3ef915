"""The parts of Gemini's answers that are used, as typed records."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from services.providers.google.errors import Failure

SIGNER: Final = "google"
"""Whose thought signatures are."""


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


class Logprob(Struct, gc=False, rename="camel"):
    """A token's probability."""

    token: str = ""
    log_probability: float = -9999.0


class Likeliest(Struct, gc=False):
    """The likeliest tokens at a place."""

    candidates: list[Logprob] | None = None


class Logprobs(Struct, gc=False, rename="camel"):
    """The probabilities of a piece's tokens."""

    chosen_candidates: list[Logprob] | None = None
    top_candidates: list[Likeliest] | None = None


class Candidate(Struct, gc=False, rename="camel"):
    """A candidate, or a piece of one."""

    index: int = 0
    content: Content | None = None
    logprobs_result: Logprobs | None = None
    finish_reason: str | None = None
    """Empty, or `FINISH_REASON_UNSPECIFIED`, where the server does not say why."""
    finish_message: str | None = None


class Feedback(Struct, gc=False, rename="camel"):
    """Why a prompt was refused."""

    block_reason: str | None = None
    block_reason_message: str | None = None


class GeneratedContent(Struct, gc=False, rename="camel"):
    """An answer, or a piece of one."""

    candidates: list[Candidate] | None = None
    usage_metadata: msgspec.Raw = msgspec.Raw(b"")
    prompt_feedback: Feedback | None = None
    response_id: str | None = None
    error: Failure | None = None
