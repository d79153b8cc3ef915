"""What models' owners ask, and what a consumption comes to: in integers, and rounded up once a request.

A price is kept as its owner publishes it, in US dollars; sums are made in pico-dollars, in which prices of up to six
decimals a million tokens are whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from moa.common.v1 import usage_pb2
from moa.image.v1 import image_pb2, image_service_pb2

Usd = Annotated[float, Meta(ge=0)]

_PICO_A_TOKEN: Final = 1_000_000
"""Pico-dollars a token, where a million tokens are a dollar."""
_PICO: Final = 10**12
PICO_A_NANO: Final = 1000
_QUALITIES: Final = {
    image_pb2.QUALITY_LOW: "low",
    image_pb2.QUALITY_MEDIUM: "medium",
    image_pb2.QUALITY_HIGH: "high",
}


class ImagePrice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one image costs at most, of some size and quality."""

    usd: Usd
    """US dollars."""
    quality: Literal["low", "medium", "high"] | None = None
    """None: any."""
    size: Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$")] | None = None
    """Width and height in pixels; None: any."""

    def fits(self, size: str, quality: str) -> bool:
        """Return whether an image may be one of these; what is not asked for (empty) may be anything."""
        return (not quality or self.quality in (None, quality)) and (not size or self.size in (None, size))


class Prices(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model's owner asks, in US dollars."""

    input: Usd = 0.0
    """A million tokens of prompt."""
    cached: Usd | None = None
    """A million tokens of prompt that came from the provider's cache; none: as `input`."""
    cache_write: Usd | None = None
    """A million tokens of prompt that the provider wrote to its cache; none: as `input`."""
    image_input: Usd | None = None
    """A million tokens of prompt that were images, where the provider tells them apart; none: as `input`."""
    output: Usd = 0.0
    """A million tokens of completion, reasoning included."""
    reasoning: Usd | None = None
    """A million tokens of reasoning; none: as `output`."""
    image: Usd = 0.0
    """One image."""
    images: tuple[ImagePrice, ...] = ()
    """One image by size and quality; of those that fit, the dearest. Where tokens have a price too, it is the bound by
    which images are reserved, and they cost what their tokens do."""

    def nano_usd(self, usage: usage_pb2.Usage, image: float | None = None) -> int:
        """Return what a consumption costs, in nano-dollars; `image`: what one image costs, for its size and quality.

        Counts are providers' own: parts that are more than their whole are as much as that.
        """
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        written = min(usage.cache_write_tokens, usage.prompt_tokens - cached)
        pictures = min(usage.prompt_image_tokens, usage.prompt_tokens - cached - written)
        reasoning = min(usage.reasoning_tokens, usage.completion_tokens)
        pico = (
            (usage.prompt_tokens - cached - written - pictures) * _a_token(self.input)
            + pictures * _a_token(self.input if self.image_input is None else self.image_input)
            + cached * _a_token(self.input if self.cached is None else self.cached)
            + written * _a_token(self.input if self.cache_write is None else self.cache_write)
            + (usage.completion_tokens - reasoning) * _a_token(self.output)
            + reasoning * _a_token(self.output if self.reasoning is None else self.reasoning)
        )
        if usage.images and not (pico and self.images):
            one = (self.image or max((known.usd for known in self.images), default=0.0)) if image is None else image
            pico += usage.images * round(one * _PICO)
        return -(-pico // PICO_A_NANO)

    def most(self) -> tuple[int, int]:
        """Return the pico-dollars that a token of prompt and one of completion cost at most, whatever becomes of it."""
        prompt = max(self.input, self.cached or 0.0, self.cache_write or 0.0, self.image_input or 0.0)
        return _a_token(prompt), _a_token(max(self.output, self.reasoning or 0.0))

    def image_usd(self, request: image_service_pb2.GenerateImageRequest) -> float:
        """Return what one image of a request costs at most, in US dollars."""
        size = f"{request.width}x{request.height}" if request.width and request.height else ""
        fitting = [one.usd for one in self.images if one.fits(size, _QUALITIES.get(request.quality, ""))]
        return max(fitting or [one.usd for one in self.images] or [self.image])


def _a_token(usd: float) -> int:
    return round(usd * _PICO_A_TOKEN)


def rounded_up(pico_usd: int) -> int:
    """Return nano-dollars."""
    return -(-pico_usd // PICO_A_NANO)


Cost = Callable[[usage_pb2.Usage, str, str], int]
"""Tells what a consumption costs at a provider's model, in nano-dollars."""
