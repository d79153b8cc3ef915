"""OpenAI's chat body, typed. Source: OpenAI's API reference, "Create chat completion".

Every documented parameter is here. Those that only OpenAI's protocol knows (`HINTS`), and whatever is not here, pass to
providers of that protocol as they came; others ignore them by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from moa.text.v1.text_pb2 import Sampling
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common.limits import meta
from services.router.dialects.sampling import Sampled
from services.router.dialects.tools import CustomTool, FunctionTool, ToolCall

Token = Annotated[int, Meta(ge=0, le=2**31 - 1)]
MaxTokens = Annotated[int, meta(GenerateTextRequest, "max_tokens", at_least=-1)]
"""LM Studio's clients and llama.cpp's write -1 for an answer as long as it may be."""

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


class Audio(Struct):
    """A sound, base64."""

    data: str
    format: str


class AudioPart(Struct, tag_field="type", tag="input_audio"):
    """A sound."""

    input_audio: Audio


class File(Struct):
    """A file, base64 or a `data:` URI. One by its id is stored in somebody's account, and refused."""

    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None


class FilePart(Struct, tag_field="type", tag="file"):
    """A file."""

    file: File


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


class NamedTool(Struct):
    """A tool's name."""

    name: str


class AllowedTool(Struct):
    """One of the tools that may be called: a function, or a custom tool."""

    function: NamedTool | None = None
    custom: NamedTool | None = None


class AllowedTools(Struct):
    """The tools that may be called, or of which one must be."""

    mode: Literal["auto", "required"]
    tools: list[AllowedTool]


class ToolChoice(Struct):
    """The tool that must be called, or some of the request's tools."""

    function: NamedTool | None = None
    custom: NamedTool | None = None
    allowed_tools: AllowedTools | None = None
    type: Literal["function", "custom", "allowed_tools"] = "function"


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


class ChatBody(Sampled, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/chat/completions`. Beyond OpenAI's: every number of the contract's sampling."""

    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[Message], meta(GenerateTextRequest, "messages")]
    top_k: Annotated[int, meta(Sampling, "top_k", at_least=-1)] | None = None
    """Servers of this protocol write that it is off as 0 or -1."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[Token, Annotated[float, meta(Sampling, "logit_bias")]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, meta(Sampling, "top_logprobs")] | None = None
    tools: list[FunctionTool | CustomTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
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
