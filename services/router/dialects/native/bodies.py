"""The native API's JSON bodies, typed. A field that is not here is refused by name, so no typo is lost in silence."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from moa.image.v1.image_pb2 import Diffusion
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common.images import MAX_SIDE
from services.common.limits import meta
from services.router.dialects.sampling import Sampled
from services.router.dialects.tools import FunctionTool, ToolCall

Side = Annotated[int, Meta(ge=1, le=MAX_SIDE)]
Seed = Annotated[int, meta(GenerateImageRequest, "seed")]


class Message(Struct, forbid_unknown_fields=True, kw_only=True):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "model", "tool"]
    content: str | None = None
    tool_calls: list[ToolCall] | None = None
    """Calls that the model made, given back (assistant)."""
    tool_call_id: str | None = None
    """The call that this answers (tool)."""


class TextBody(Sampled, forbid_unknown_fields=True, kw_only=True):
    """`POST /generate/text`."""

    messages: Annotated[list[Message], meta(GenerateTextRequest, "messages")]
    model_id: Annotated[str, Meta(min_length=1)]
    provider: str = ""
    stream: bool = False
    include_reasoning: bool = False
    image_data: str | None = None
    max_tokens: Annotated[int, meta(GenerateTextRequest, "max_tokens")] | None = None
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
    n: Annotated[int, meta(GenerateImageRequest, "count", at_least=1)] = 1
    size: Annotated[str, Meta(pattern=r"^\d{1,5}x\d{1,5}$")] | None = None
    width: Side | None = None
    height: Side | None = None
    negative_prompt: str = ""
    guidance_scale: Annotated[float, meta(Diffusion, "guidance_scale")] | None = None
    num_inference_steps: Annotated[int, meta(Diffusion, "steps")] | None = None
    strength: Annotated[float, meta(Diffusion, "strength")] | None = None
    colors: Annotated[list[str], meta(GenerateImageRequest, "colors")] = []
    seed: Seed | None = None
    stream: bool = False
    preview_every: Annotated[int, meta(GenerateImageRequest, "preview_every")] = 0
