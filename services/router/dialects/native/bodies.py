"""The native API's JSON bodies, typed. A field that is not here is refused by name, so no typo is lost in silence."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from services.router.dialects.tools import FunctionTool, ToolCall

Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Side = Annotated[int, Meta(ge=1, le=4096)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Message(Struct, forbid_unknown_fields=True, kw_only=True):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "model", "tool"]
    content: str | None = None
    tool_calls: list[ToolCall] | None = None
    """Calls that the model made, given back (assistant)."""
    tool_call_id: str | None = None
    """The call that this answers (tool)."""


class TextBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /generate/text`."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    model_id: Annotated[str, Meta(min_length=1)]
    provider: str = ""
    stream: bool = False
    include_reasoning: bool = False
    image_data: str | None = None
    max_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    stop: str | list[str] | None = None
    seed: Seed | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | None = None


class ImageBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /create/image`, and with `image_data` `POST /generate/image`."""

    prompt: str
    model_id: Annotated[str, Meta(min_length=1)]
    provider: str = ""
    image_data: str | None = None
    n: Annotated[int, Meta(ge=1, le=10)] = 1
    size: Annotated[str, Meta(pattern=r"^\d{1,5}x\d{1,5}$")] | None = None
    width: Side | None = None
    height: Side | None = None
    negative_prompt: str = ""
    guidance_scale: Annotated[float, Meta(ge=0, le=50)] | None = None
    num_inference_steps: Annotated[int, Meta(ge=1, le=150)] | None = None
    strength: Annotated[float, Meta(ge=0, le=1)] | None = None
    colors: Annotated[list[str], Meta(max_length=10)] = []
    seed: Seed | None = None
    stream: bool = False
    preview_every: Annotated[int, Meta(ge=0, le=150)] = 0
