"""OpenAI's chat body, typed. Source: OpenAI's API reference, "Create chat completion".

Every documented parameter is here. Those that only OpenAI's protocol knows (`HINTS`), and whatever is not here, pass to
providers of that protocol as they came; others ignore them by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from services.router.dialects.tools import FunctionTool, ToolCall

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]

HINTS = (
    "store",
    "metadata",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "verbosity",
    "prediction",
)
"""Documented by OpenAI, and of no meaning to another vendor: its own storage, tiers and caches, and hints."""


class ImageUrl(Struct, forbid_unknown_fields=True):
    """Where an image is."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class TextPart(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    """Text."""

    text: str


class ImagePart(Struct, tag_field="type", tag="image_url", forbid_unknown_fields=True):
    """An image."""

    image_url: ImageUrl


class RefusalPart(Struct, tag_field="type", tag="refusal", forbid_unknown_fields=True):
    """An earlier refusal of the model, given back."""

    refusal: str


class AudioPart(Struct, tag_field="type", tag="input_audio"):
    """Audio; refused."""

    input_audio: Any


class FilePart(Struct, tag_field="type", tag="file"):
    """A file; refused."""

    file: Any


ContentPart = TextPart | ImagePart | RefusalPart | AudioPart | FilePart


class Message(Struct, forbid_unknown_fields=True, kw_only=True):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    """As OpenRouter and its clients call it."""
    reasoning_details: Any = None
    cache_control: Any = None
    """A hint for Anthropic's prompt cache."""
    # What answers of OpenAI's protocol carry, for clients that send an answer back as it came.
    annotations: Any = None
    audio: Any = None
    function_call: Any = None


class NamedFunction(Struct):
    """A function's name."""

    name: str


class NamedChoice(Struct):
    """The tool that must be called."""

    function: NamedFunction
    type: Literal["function"] = "function"


class JsonSchema(Struct, forbid_unknown_fields=True, kw_only=True):
    """The schema that the answer follows."""

    name: str
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct, forbid_unknown_fields=True, kw_only=True):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Struct, kw_only=True):
    """What the stream carries beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Count | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[Annotated[int, Meta(ge=0, le=2**31 - 1)], Annotated[float, Meta(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    user: str | None = None
    # Refused, with the reason.
    functions: Any | UnsetType = UNSET
    function_call: Any | UnsetType = UNSET
    modalities: list[str] | None = None
    audio: Any | UnsetType = UNSET
    web_search_options: Any | UnsetType = UNSET
    # `HINTS`.
    store: Any = None
    metadata: Any = None
    service_tier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    safety_identifier: Any = None
    verbosity: Any = None
    prediction: Any = None
