"""Anthropic's bodies, typed. Source: platform.claude.com/docs/en/api/messages/create, and .../count_tokens.

Every documented parameter is here. Those that only Anthropic knows (`HINTS`), and whatever is not here, pass to
providers of its API as they came; others ignore them by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from moa.text.v1.text_pb2 import Sampling
from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest
from services.common.limits import meta
from services.router.dialects.sampling import Sampled

HINTS = (
    "service_tier",
    "container",
    "context_management",
    "cache_control",
    "inference_geo",
    "speed",
    "diagnostics",
)
"""Documented by Anthropic, and of no meaning to another vendor: its own tiers, caches and machines."""


class Block(Struct, forbid_unknown_fields=True, kw_only=True):
    """A part of a turn. `type` says which fields it has; one of a kind that is not known here is Anthropic's own."""

    type: str
    text: str | None = None
    citations: Any = None
    media: Any = field(name="source", default=None)
    title: str | None = None
    context: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None
    tool_use_id: str | None = None
    content: Any = None
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    cache_control: Any = None


class Message(Struct, forbid_unknown_fields=True, kw_only=True):
    """One turn."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(Struct, forbid_unknown_fields=True, kw_only=True):
    """A tool that the model may call; one of another type than `custom` is Anthropic's own."""

    name: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: Any = None


class ToolChoice(Struct, kw_only=True):
    """Which tools must be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct, forbid_unknown_fields=True, kw_only=True):
    """How the model should reason, and whether that is shown."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Meta(ge=1, le=2**32 - 1)] | None = None
    display: str | None = None


class OutputFormat(Struct, forbid_unknown_fields=True, kw_only=True):
    """The schema that the answer follows."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Struct, forbid_unknown_fields=True, kw_only=True):
    """The form of the answer, and how much is spent on it."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class Metadata(Struct, forbid_unknown_fields=True, kw_only=True):
    """Of the request."""

    user_id: str | None = None


Name = Annotated[str, Meta(min_length=1)]


class CountBody(Struct, kw_only=True):
    """`POST /v1/messages/count_tokens`. What is not here changes no count that is made here."""

    model: Name
    messages: Annotated[list[Message], meta(CountTokensRequest, "messages")]
    system: str | list[Block] | None = None
    tools: list[Tool] | None = None


class MessageBody(Sampled, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/messages`. Beyond Anthropic's: every number of the contract's sampling, and no need of `max_tokens`."""

    model: Name
    messages: Annotated[list[Message], meta(GenerateTextRequest, "messages")]
    system: str | list[Block] | None = None
    tools: list[Tool] | None = None
    max_tokens: Annotated[int, meta(GenerateTextRequest, "max_tokens")] | None = None
    top_k: Annotated[int, meta(Sampling, "top_k", at_least=-1)] | None = None
    """0 is off, as at Anthropic."""
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    metadata: Metadata | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    """What `output_config.format` was called before."""
    mcp_servers: list[dict[str, Any]] | None = None
    # `HINTS`.
    service_tier: Any = None
    container: Any = None
    context_management: Any = None
    cache_control: Any = None
    inference_geo: Any = None
    speed: Any = None
    diagnostics: Any = None
