"""The bodies of the Responses API, typed. Source: OpenAI's API reference, "Create a model response".

Every documented parameter is here. Those that only OpenAI knows (`HINTS`, `OWN_HINTS`), and items, tools and fields of
other kinds, pass to OpenAI's Responses API as they came; other models ignore what only hints, by name, and refuse the
rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from moa.text.v1.text_pb2 import Sampling
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common.limits import meta
from services.router.dialects.sampling import Sampled
from services.router.dialects.tools import Grammar, Name

HINTS: Final = (
    "metadata",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
)
"""What OpenAI's chats take too."""
Included = Literal[
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
]
"""What an answer may be asked to hold besides."""
OWN_HINTS: Final = (
    "truncation",
    "max_tool_calls",
    "context_management",
    "moderation",
    "image",
    "access_programs",
    "prompt_cache_options",
)
"""What the Responses API alone takes."""


MOST_ITEMS: Final = 100
"""How many items may be added to a conversation at once."""
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
"""What a caller notes of something."""


class InputText(Struct, tag_field="type", tag="input_text", forbid_unknown_fields=True):
    """Text."""

    text: str


class OutputText(Struct, tag_field="type", tag="output_text", forbid_unknown_fields=True):
    """Text of an earlier answer, given back."""

    text: str
    annotations: Any = None
    logprobs: Any = None


class Refusal(Struct, tag_field="type", tag="refusal", forbid_unknown_fields=True):
    """An earlier refusal of the model, given back."""

    refusal: str


class InputImage(Struct, tag_field="type", tag="input_image", forbid_unknown_fields=True):
    """An image: a `data:` URI or a link. One by its id is stored in somebody's account, and refused."""

    image_url: str | None = None
    detail: Literal["auto", "low", "high", "original"] | None = None
    file_id: str | None = None


class InputFile(Struct, tag_field="type", tag="input_file", forbid_unknown_fields=True):
    """A file: base64, a `data:` URI or a link. One by its id is refused."""

    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    file_id: str | None = None
    detail: Any = None


class Audio(Struct):
    """A sound, base64."""

    data: str
    format: str


class InputAudio(Struct, tag_field="type", tag="input_audio", forbid_unknown_fields=True):
    """A sound."""

    input_audio: Audio


ContentPart = InputText | OutputText | Refusal | InputImage | InputFile | InputAudio


class MessageItem(Struct, forbid_unknown_fields=True, kw_only=True):
    """What somebody said. `type` may be left out."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart]
    type: Literal["message"] = "message"
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class FunctionCallItem(Struct, forbid_unknown_fields=True, kw_only=True):
    """An earlier call of a function."""

    type: Literal["function_call"]
    call_id: Annotated[str, Meta(min_length=1)]
    name: str
    arguments: str
    namespace: str | None = None
    id: str | None = None
    status: str | None = None


class CustomCallItem(Struct, forbid_unknown_fields=True, kw_only=True):
    """An earlier call of a custom tool."""

    type: Literal["custom_tool_call"]
    call_id: Annotated[str, Meta(min_length=1)]
    name: str
    input: str
    namespace: str | None = None
    id: str | None = None
    status: str | None = None


class OutputItem(Struct, forbid_unknown_fields=True, kw_only=True):
    """The result of a call."""

    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: Annotated[str, Meta(min_length=1)]
    output: str | list[ContentPart]
    namespace: str | None = None
    id: str | None = None
    status: str | None = None
    name: str | None = None


class ReasoningText(Struct, kw_only=True):
    """A piece of reasoning."""

    text: str
    type: Literal["summary_text", "reasoning_text", "text"] = "summary_text"


class ReasoningItem(Struct, forbid_unknown_fields=True, kw_only=True):
    """Earlier reasoning, given back. What proves it, or stands for it, is in `encrypted_content`."""

    type: Literal["reasoning"]
    summary: list[ReasoningText] | None = None
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None
    id: str | None = None
    status: str | None = None


Item = MessageItem | FunctionCallItem | CustomCallItem | OutputItem | ReasoningItem
ITEMS: Final[Mapping[str, type[Item]]] = {
    "message": MessageItem,
    "function_call": FunctionCallItem,
    "custom_tool_call": CustomCallItem,
    "function_call_output": OutputItem,
    "custom_tool_call_output": OutputItem,
    "reasoning": ReasoningItem,
}
"""By type. An item of another type is OpenAI's own."""
OWN_ITEMS: Final = frozenset(
    (
        *("additional_tools", "apply_patch_call", "apply_patch_call_output", "code_interpreter_call", "compaction"),
        *("computer_call", "computer_call_output", "configuration_update", "file_search_call"),
        *("image_generation_call", "local_shell_call", "local_shell_call_output", "mcp_approval_request"),
        *("mcp_approval_response", "mcp_call", "mcp_list_tools", "program", "program_output", "shell_call"),
        *("shell_call_output", "tool_search_call", "tool_search_output", "web_search_call"),
    )
)
"""The types of OpenAI's own that a conversation takes: one that nobody knows would spoil every later response on it."""


class FunctionTool(Struct, forbid_unknown_fields=True, kw_only=True):
    """A function that the model may call."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class AnyText(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    """Any text."""


class GrammarText(Grammar, tag_field="type", tag="grammar", forbid_unknown_fields=True):
    """Text that follows a grammar."""


class CustomTool(Struct, forbid_unknown_fields=True, kw_only=True):
    """A tool that takes free text."""

    type: Literal["custom"]
    name: Name
    description: str | None = None
    format: AnyText | GrammarText | None = None


Tool = FunctionTool | CustomTool
TOOLS: Final[Mapping[str, type[Tool]]] = {"function": FunctionTool, "custom": CustomTool}
"""By type. A tool of another type runs at OpenAI, or is known to its models."""


class ToolChoice(Struct, kw_only=True):
    """Which tool to call. One of another type is OpenAI's own, and chosen by its type."""

    type: str
    name: str | None = None
    server_label: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: list[dict[str, Any]] | None = None


class TextForm(Struct, forbid_unknown_fields=True, kw_only=True):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextOptions(Struct, forbid_unknown_fields=True, kw_only=True):
    """How the answer is written."""

    format: TextForm | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Struct, forbid_unknown_fields=True, kw_only=True):
    """How a model that reasons should do so."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed", "none"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class PromptBody(Struct, kw_only=True):
    """What a prompt is made of: the body of `POST /v1/responses/input_tokens`, whose other fields say nothing of it."""

    model: Annotated[str, Meta(min_length=1)]
    input: str | list[dict[str, Any]] = ""
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    previous_response_id: str | None = None
    conversation: Any = None


class ConversationBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/conversations`."""

    items: Annotated[list[dict[str, Any]], Meta(max_length=MOST_ITEMS)] | None = None
    metadata: Metadata | None = None


class ConversationChange(Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/conversations/{id}`."""

    metadata: Metadata | None


class ItemsBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/conversations/{id}/items`."""

    items: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MOST_ITEMS)]


class ResponseBody(Sampled, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/responses`. Beyond OpenAI's: every number of the contract's sampling, and `stop`."""

    model: Annotated[str, Meta(min_length=1)]
    input: str | list[dict[str, Any]] = ""
    instructions: str | None = None
    stream: bool | None = None
    stream_options: Any = None
    max_output_tokens: Annotated[int, meta(GenerateTextRequest, "max_tokens")] | None = None
    top_logprobs: Annotated[int, meta(Sampling, "top_logprobs")] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    include: list[Included] | None = None
    user: str | None = None
    stop: list[str] | None = None
    store: bool | None = None
    # Refused, with the next step.
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    background: bool | None = None
    # `HINTS` and `OWN_HINTS`.
    metadata: Metadata | None = None
    service_tier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    safety_identifier: Any = None
    truncation: Literal["auto", "disabled"] | None = None
    max_tool_calls: Any = None
    context_management: Any = None
    moderation: Any = None
    image: Any = None
    access_programs: Any = None
    prompt_cache_options: Any = None
