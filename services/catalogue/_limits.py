"""What values a model takes, typed: a word that nobody knows fails when the file is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from moa.text.v1.text_pb2 import Sampling
from moa.text.v1.text_service_pb2 import GenerateTextRequest

Count = Annotated[int, Meta(ge=1)]
Size = Annotated[str, Meta(pattern=r"^[1-9]\d{0,4}x[1-9]\d{0,4}$")]
Ratio = Annotated[str, Meta(pattern=r"^[1-9]\d{0,2}:[1-9]\d{0,2}$")]
Range = float | tuple[float, float]
"""The greatest value, or the least and the greatest."""
Words = tuple[str, ...] | Mapping[str, str]
"""The words that it takes, or each with the provider's own."""

if TYPE_CHECKING:
    Unsupported = str
else:
    _NEEDED = {"model", "provider", "messages", "sampling", "stream"}
    Unsupported = Literal[
        tuple(
            sorted(
                {field.name for shape in (GenerateTextRequest, Sampling) for field in shape.DESCRIPTOR.fields} - _NEEDED
            )
        )
    ]
    """Fields of a request for text that a model may not take."""


class SizeRange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which sizes are made, where they are not a list."""

    min: Count
    """The shortest side, in pixels."""
    max: Count
    """The longest side, in pixels."""
    multiple: Count = 1
    """What both sides are multiples of."""
    pixels: Count | None = None
    """The most pixels; none: as many as the sides make."""


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model's limits. What is not set is not limited, or has its engine's own bound."""

    # Text.
    stop: Count | None = None
    """How many stop strings."""
    candidates: Count | None = None
    """How many answers."""
    unsupported: tuple[Unsupported, ...] = ()
    """Fields of the request that it does not take."""
    hosted_tools: frozenset[str] = frozenset()
    """Tools that OpenAI runs, and bills apart, which callers may use (`web_search`), with `method: responses`."""
    thinking: Literal["level", "adaptive"] | None = None
    """How it is told to reason: by a level (Gemini 3), by an effort of its own (Claude 4.6); none: by a budget."""

    # Images.
    prompt_chars: Count | None = None
    """Characters of a prompt."""
    images: Annotated[int, Meta(ge=0)] = 1
    """How many input images."""
    sizes: tuple[Size, ...] | None = None
    """The sizes that it makes."""
    size: SizeRange | None = None
    """Which sizes it makes, where there are many."""
    ratios: tuple[Ratio, ...] | Mapping[Ratio, Size] = ()
    """The ratios that it takes, or each with the size that it makes."""
    scales: Mapping[Literal["low", "medium", "high"], Count] | None = None
    """How many times the sides of `ratios` each quality makes; none: its sizes are the same in all."""
    qualities: Words | None = None
    styles: Words | None = None
    formats: Words | None = None
    method: Literal["predict", "responses"] | None = None
    """The method by which it is asked, where its provider has several."""
    response_format: Literal["b64_json"] | None = None
    """What must be asked for so that it sends images, not links."""

    # Both kinds of image models: images a call, or what an engine takes.
    # No pair: msgspec 0.22 crashes the collector on a union of a pair and a constrained number.
    count: Count | tuple[Count, ...] | None = None
    """Images a call; none: one at a provider, the contract's most for a model of one's own."""
    steps: Range | None = None
    guidance_scale: Range | None = None
    strength: Range | None = None
    width: Range | None = None
    height: Range | None = None


def asked_by(limits: Limits, method: Literal["responses"] | None) -> Limits:
    """Return limits with the API by which alone a model is asked, where one is known and they say none themselves."""
    return limits if method is None or limits.method is not None else msgspec.structs.replace(limits, method=method)
