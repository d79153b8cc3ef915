"""The shapes of the Responses API's answers, as OpenAPI tells them; `tests/openapi` holds real answers against them."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from services.router.dialects.shapes import Whole


class ResponseUsage(Struct):
    """Tokens, as the Responses API counts them."""

    input_tokens: Whole
    input_tokens_details: dict[str, Any]
    output_tokens: Whole
    output_tokens_details: dict[str, Any]
    total_tokens: Whole


class ResponseObject(Struct):
    """One answer. What it says of its request is not told here."""

    id: str
    object: Literal["response"]
    created_at: Whole
    status: Literal["completed", "incomplete", "failed", "in_progress"]
    model: str
    output: list[dict[str, Any]]
    usage: ResponseUsage | None
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None


class DeletedResponse(Struct):
    """What is left of a deleted response."""

    id: str
    object: Literal["response"]
    deleted: bool


class ConversationObject(Struct):
    """A conversation."""

    id: str
    object: Literal["conversation"]
    created_at: Whole
    metadata: dict[str, str]


class DeletedConversation(Struct):
    """What is left of a deleted conversation."""

    id: str
    object: Literal["conversation.deleted"]
    deleted: bool


class ItemList(Struct):
    """A page of items."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class InputTokens(Struct):
    """The prompt's tokens."""

    object: Literal["response.input_tokens"]
    input_tokens: Whole
