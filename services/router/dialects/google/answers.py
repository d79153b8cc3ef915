"""The shapes of Google's answers, as OpenAPI tells them; `tests/openapi` holds real answers against them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from services.router.dialects.shapes import UsageMetadata, Whole


class Candidate(Struct, rename="camel"):
    """One candidate: parts of text, images or calls."""

    content: dict[str, Any]
    index: Whole


class GenerateContentResponse(Struct, rename="camel"):
    """One answer."""

    candidates: list[Candidate]
    usage_metadata: UsageMetadata
    model_version: str
    response_id: str


class TokenCount(Struct, rename="camel"):
    """The prompt's tokens."""

    total_tokens: Whole


class GoogleModel(Struct, rename="camel"):
    """A model."""

    name: str
    supported_generation_methods: list[str]


class GoogleModels(Struct, rename="camel"):
    """A page of models."""

    models: list[GoogleModel]


class ContentEmbedding(Struct):
    """A vector."""

    values: list[float]


class EmbedContentResponse(Struct):
    """The vector."""

    embedding: ContentEmbedding


class BatchEmbedContentsResponse(Struct):
    """The vectors, in the order of the requests."""

    embeddings: list[ContentEmbedding]
