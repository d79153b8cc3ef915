"""OpenAI's image bodies, typed. Source: OpenAI's API reference, "Create image", "… edit", "… variation".

The rule for parameters is that of `bodies`: unknown ones and `HINTS` pass to providers of this API; others name them.
`image`, `aspect_ratio`, `negative_prompt`, `seed` and `colors` are this gateway's additions for generations.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.common.limits import meta

DEFAULT_MODEL = "gemini-2.5-flash-image"

HINTS = ("input_fidelity",)
"""What steers OpenAI's own models, and others know nothing of."""

REFUSED = ("complexity", "frame_count", "frame_duration_ms", "svg", "markup", "file")
"""Parameters of OpenAI's that no model here has."""


class ImageRef(Struct, forbid_unknown_fields=True, kw_only=True):
    """An image of a JSON edit."""

    image_url: str | None = None
    file_id: str | None = None


class ImageBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/images/generations`; with images `/edits`, with one and no prompt `/variations`."""

    model: Annotated[str, Meta(min_length=1)] | None = None
    prompt: str | None = None
    n: Annotated[int, meta(GenerateImageRequest, "count", at_least=1)] | None = None
    size: Annotated[str, Meta(pattern=r"^(auto|\d{1,5}x\d{1,5})$")] | None = None
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None = None
    background: Literal["auto", "transparent", "opaque"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[int, Meta(ge=0, le=100)] | None = None
    response_format: Literal["url", "b64_json"] | None = None
    moderation: Literal["auto", "low"] | None = None
    style: Annotated[str, Meta(max_length=64)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Meta(ge=0, le=3)] | None = None
    input_fidelity: Literal["high", "low"] | None = None
    # Beyond OpenAI's.
    image: str | list[str] | None = None
    images: list[ImageRef | str] | None = None
    mask: str | ImageRef | None = None
    aspect_ratio: Annotated[str, Meta(pattern=r"^\d{1,2}:\d{1,2}$")] | None = None
    negative_prompt: str | None = None
    seed: Annotated[int, meta(GenerateImageRequest, "seed")] | None = None
    colors: Annotated[list[str], meta(GenerateImageRequest, "colors")] | None = None
    # Refused, with the reason.
    complexity: Any = None
    frame_count: Any = None
    frame_duration_ms: Any = None
    svg: Any = None
    markup: Any = None
    file: Any = None
