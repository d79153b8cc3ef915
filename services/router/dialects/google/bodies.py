"""Google's bodies, typed. Source: google/ai/generativelanguage/v1beta and the Gemini API reference.

Keys come in camel case or, as proto JSON allows, in snake case (`spelling`). What only Google knows (`HINTS`, parts and
tools of its own, whatever is not here) passes to Google as it came; others ignore hints by name and refuse the rest.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from moa.text.v1.text_pb2 import Sampling
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common import limits
from services.common.limits import meta
from services.router.dialects.sampling import CamelSampled

HINTS = ("safetySettings", "labels", "serviceTier", "store")
"""Of the body: they concern Google's own filters, billing and storage."""

CONFIG_HINTS = ("mediaResolution", "enableEnhancedCivicAnswers", "audioTimestamp", "routingConfig")
"""Of `generationConfig`: hints to Google's own models."""

IGNORED_FOR_IMAGES = (
    *(word for name, word in limits.camel_settings(Sampling).items() if name != "seed"),
    "maxOutputTokens",
    "stopSequences",
    "thinkingConfig",
)
"""Of `generationConfig`, when the model makes images: they steer text."""


class _Google(Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Base: camel case on the wire."""


class Blob(_Google):
    """Bytes."""

    data: str
    mime_type: str = ""
    display_name: str = ""


class FileData(_Google):
    """A file by its URI."""

    file_uri: str
    mime_type: str = ""
    display_name: str = ""


class FunctionCall(_Google):
    """A call that the model made earlier."""

    name: str
    id: str | None = None
    args: dict[str, Any] | None = None


class ResultPart(_Google):
    """What a function's result holds beside its JSON."""

    inline_data: Blob | None = None
    file_data: FileData | None = None


class FunctionResponse(_Google):
    """What a function gave."""

    name: str
    response: dict[str, Any] | None = None
    id: str | None = None
    parts: list[ResultPart] | None = None
    will_continue: bool | None = None
    scheduling: str | None = None


class Part(_Google):
    """A part of a turn: text, inlineData, fileData, functionCall, functionResponse, or of Google's own kinds."""

    text: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    video_metadata: Any = None
    executable_code: Any = None
    code_execution_result: Any = None
    media_resolution: Any = None
    part_metadata: Any = None


class Content(_Google):
    """One turn."""

    parts: list[Part] | None = None
    role: Literal["user", "model", "function", "system", ""] | None = None


class ImageConfig(_Google):
    """How an image is made."""

    aspect_ratio: Annotated[str, Meta(pattern=r"^\d{1,2}:\d{1,2}$")] | None = None
    image_size: str | None = None


class ThinkingConfig(_Google):
    """How much the model thinks."""

    include_thoughts: bool | None = None
    thinking_budget: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    thinking_level: str | None = None


class GenerationConfig(CamelSampled, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """How the answer is made."""

    top_k: Annotated[float, meta(Sampling, "top_k")] | None = None
    candidate_count: Annotated[int, meta(GenerateTextRequest, "candidates", at_least=1)] | None = None
    max_output_tokens: Annotated[int, meta(GenerateTextRequest, "max_tokens")] | None = None
    stop_sequences: list[str] | None = None
    seed: Annotated[int, meta(Sampling, "seed")] | None = None
    response_logprobs: bool | None = None
    logprobs: Annotated[int, meta(Sampling, "top_logprobs")] | None = None
    response_mime_type: str | None = None
    response_schema: dict[str, Any] | None = None
    response_json_schema: Any = None
    response_modalities: list[str] | None = None
    image_config: ImageConfig | None = None
    thinking_config: ThinkingConfig | None = None
    speech_config: Any = None
    media_resolution: Any = None
    enable_enhanced_civic_answers: Any = None
    audio_timestamp: Any = None
    routing_config: Any = None


class FunctionDeclaration(_Google):
    """A function that the model may call."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    parameters_json_schema: Any = None
    response: Any = None
    response_json_schema: Any = None
    behavior: str | None = None


class Tool(_Google):
    """Functions, and tools that run at Google."""

    function_declarations: list[FunctionDeclaration] | None = None
    google_search: Any = None
    google_search_retrieval: Any = None
    code_execution: Any = None
    url_context: Any = None
    google_maps: Any = None
    file_search: Any = None
    computer_use: Any = None
    enterprise_web_search: Any = None
    retrieval: Any = None


OWN_TOOLS = tuple(name for name in Tool.__struct_encode_fields__ if name != "functionDeclarations")
"""Tools that run at Google."""


class FunctionCallingConfig(_Google):
    """Which functions must be called."""

    mode: Literal["MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"] | None = None
    allowed_function_names: list[str] | None = None
    stream_function_call_arguments: bool | None = None


class ToolConfig(_Google):
    """Which tools must be called."""

    function_calling_config: FunctionCallingConfig | None = None
    retrieval_config: Any = None
    include_server_side_tool_invocations: bool | None = None


class GenerateContentBody(_Google):
    """`generateContent` and `streamGenerateContent`."""

    contents: Annotated[list[Content], meta(GenerateTextRequest, "messages")]
    system_instruction: Content | None = None
    generation_config: GenerationConfig | None = None
    tools: list[Tool] | None = None
    tool_config: ToolConfig | None = None
    safety_settings: list[Any] | None = None
    cached_content: str | None = None
    labels: Any = None
    service_tier: Any = None
    store: Any = None
    model: str | None = None


class CountBody(_Google):
    """`countTokens`: contents alone, or a whole request."""

    contents: list[Content] | None = None
    generate_content_request: GenerateContentBody | None = None
    # What clients for Google's other product send beside contents.
    system_instruction: Content | None = None
    tools: list[Tool] | None = None
    generation_config: GenerationConfig | None = None
    model: str | None = None
