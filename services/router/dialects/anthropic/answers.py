"""The shapes of Anthropic's answers, as OpenAPI tells them; `tests/openapi` holds real answers against them."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from services.router.dialects.shapes import Whole


class MessageUsage(Struct):
    """Tokens, as Anthropic counts them."""

    input_tokens: Whole
    cache_creation_input_tokens: Whole
    cache_read_input_tokens: Whole
    output_tokens: Whole


class Message(Struct):
    """One answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: str
    stop_sequence: str | None
    usage: MessageUsage


class MessageTokens(Struct):
    """The prompt's tokens."""

    input_tokens: Whole


class AnthropicModel(Struct):
    """A model."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: str


class AnthropicModels(Struct):
    """A page of models."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None
