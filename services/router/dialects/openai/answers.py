"""The shapes of OpenAI's answers, as OpenAPI tells them; `tests/openapi` holds real answers against them."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from services.router.dialects.shapes import Whole


class ChatUsage(Struct):
    """Tokens, as OpenAI counts them."""

    prompt_tokens: Whole
    completion_tokens: Whole
    total_tokens: Whole


class ChatChoice(Struct):
    """One candidate."""

    index: Whole
    message: dict[str, Any]
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class ChatCompletion(Struct):
    """One answer."""

    id: str
    object: Literal["chat.completion"]
    created: Whole
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage


class ImageDatum(Struct, omit_defaults=True):
    """One image: a link, or base64."""

    url: str | None = None
    b64_json: str | None = None
    revised_prompt: str | None = None


class Images(Struct):
    """The images."""

    created: Whole
    data: list[ImageDatum]
    usage: dict[str, Any]


class OpenAIModel(Struct):
    """A model. `status`, with `percent` or `detail`, stands with the gateway's own models only.

    What is not known of it is null. `prices` are US dollars, of a million tokens by their kind and of an image.
    `loras` are those that a request may name; absent where it may name none.
    """

    id: str
    object: Literal["model"]
    created: Whole
    owned_by: str
    context_tokens: Whole | None = None
    max_output_tokens: Whole | None = None
    input_modalities: list[str] | None = None
    output_modalities: list[str] | None = None
    capabilities: list[str] | None = None
    prices: dict[str, Any] | None = None
    retires: str | None = None
    successor: str | None = None
    loras: list[str] = []
    status: Literal["ready", "loading", "absent"] = "ready"
    percent: Whole = 0
    detail: str = ""


class OpenAIModels(Struct):
    """The models."""

    object: Literal["list"]
    data: list[OpenAIModel]


class OpenAIEmbedding(Struct):
    """A vector; in base64 little-endian floats of 32 bits."""

    object: Literal["embedding"]
    index: Whole
    embedding: list[float] | str


class PromptUsage(Struct):
    """What was read."""

    prompt_tokens: Whole
    total_tokens: Whole


class OpenAIEmbeddings(Struct):
    """The vectors, in the order of the input."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: PromptUsage
