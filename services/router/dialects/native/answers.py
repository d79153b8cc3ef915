"""The shapes of the native API's answers, as OpenAPI tells them; `tests/openapi` holds real answers against them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from services.router.dialects.shapes import UsageMetadata


class NativeText(Struct, rename={"usage_metadata": "usageMetadata"}):
    """What the model said: with `include_reasoning` also `reasoning`, with tools `tool_calls`, refused `refusal`."""

    response: str
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    model_id: str
    provider: str
    usage_metadata: UsageMetadata


class NativeImages(Struct):
    """The images, base64. A model that looks at an image gives none, and `response`."""

    status: Literal["success"]
    images: list[str]
    prompt: str
    model_id: str
    provider: str
