"""What a model's owner asks, in integers, from a date on; and what a consumption comes to, rounded up once a request.

A price of tokens is in nano-dollars a million of them, in which every published price is a whole number. Sums are made
in femto-dollars, a millionth of that a token.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from moa.common.v1 import usage_pb2
from moa.image.v1 import image_pb2, image_service_pb2

Nano = Annotated[int, Meta(ge=0, le=10**15)]
"""Nano-dollars; a million dollars at most."""
Pixels = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$")]
ALWAYS: Final = dt.date(1970, 1, 1)
"""The date of a price of which no source tells since when it holds."""
FEMTO_A_NANO: Final = 1_000_000
_QUALITIES: Final = {
    image_pb2.QUALITY_LOW: "low",
    image_pb2.QUALITY_MEDIUM: "medium",
    image_pb2.QUALITY_HIGH: "high",
}


class TokenPrices(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a million tokens of each kind cost, in nano-dollars. What is not set costs what is named with it."""

    input: Nano | None = None
    """Of prompt; none: nothing."""
    cached: Nano | None = None
    """Of prompt, from the provider's cache; none: as `input`."""
    cache_write: Nano | None = None
    """Of prompt, written to the provider's cache; none: as `input`."""
    cache_write_1h: Nano | None = None
    """Likewise, to be kept for an hour; none: as `cache_write`."""
    image_input: Nano | None = None
    """Of prompt, images; none: as `input`."""
    audio_input: Nano | None = None
    """Of prompt, sound; none: as `input`."""
    output: Nano | None = None
    """Of completion; none: nothing."""
    reasoning: Nano | None = None
    """Of completion, reasoning; none: as `output`."""
    image_output: Nano | None = None
    """Of completion, images; none: as `output`."""
    audio_output: Nano | None = None
    """Of completion, sound; none: as `output`."""


class Tier(TokenPrices, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What all tokens of a request cost whose prompt is long. What is not set is as with shorter prompts."""

    above: Annotated[int, Meta(ge=1, le=1_000_000_000)]
    """Prompts of more tokens than this."""


class ImageAt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one image costs at most, of some size and quality."""

    nano: Nano
    """Nano-dollars."""
    quality: Literal["low", "medium", "high"] | None = None
    """None: any."""
    size: Pixels | None = None
    """Width and height in pixels; None: any."""

    def fits(self, size: str, quality: str) -> bool:
        """Return whether an image may be one of these; what is not asked for (empty) may be anything."""
        return (not quality or self.quality in (None, quality)) and (not size or self.size in (None, size))


class Price(TokenPrices, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a model's owner asks from a date on."""

    since: dt.date
    """The first day (UTC) on which it holds."""
    tiers: Annotated[tuple[Tier, ...], Meta(max_length=16)] = ()
    """What long prompts cost, the shortest first."""
    image: Nano | None = None
    """One image; none: unknown, or paid by its tokens."""
    images: Annotated[tuple[ImageAt, ...], Meta(max_length=256)] = ()
    """One image by size and quality; of those that fit, the dearest. Where tokens have a price too, it is the bound by
    which images are reserved, and they cost what their tokens do."""

    def nano_usd(self, usage: usage_pb2.Usage, image: int | None = None) -> int:
        """Return what a consumption costs, in nano-dollars; `image`: what one image does, for its size and quality.

        Counts are providers' own: parts that are more than their whole are as much as that.
        """
        femto = self._tokens(usage)
        if usage.images and not (femto and self.images):
            one = self.dearest_image() if image is None else image
            femto += usage.images * one * FEMTO_A_NANO
        return rounded_up(femto)

    def _tokens(self, usage: usage_pb2.Usage) -> int:
        """Return what a consumption's tokens cost, in femto-dollars."""
        tier = self._reached(usage.prompt_tokens)
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        written = min(usage.cache_write_tokens, usage.prompt_tokens - cached)
        pictures = min(usage.prompt_image_tokens, usage.prompt_tokens - cached - written)
        sound = min(usage.prompt_audio_tokens, usage.prompt_tokens - cached - written - pictures)
        reasoning = min(usage.reasoning_tokens, usage.completion_tokens)
        drawn = min(usage.completion_image_tokens, usage.completion_tokens - reasoning)
        if usage.images and not drawn:
            drawn = usage.completion_tokens - reasoning  # the provider does not tell kinds apart
        counts = (
            ("input", usage.prompt_tokens - cached - written - pictures - sound),
            ("audio_input", sound),
            ("image_input", pictures),
            ("cached", cached),
            ("cache_write", written),
            ("output", usage.completion_tokens - reasoning - drawn),
            ("reasoning", reasoning),
            ("image_output", drawn),
        )
        # Mostly two of them are any.
        return sum([count * self._of(kind, tier) for kind, count in counts if count])

    def cached_nano(self, usage: usage_pb2.Usage) -> int:
        """Return what of a consumption's cost was read from the provider's cache, in nano-dollars, rounded down."""
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        return cached * self._of("cached", self._reached(usage.prompt_tokens)) // FEMTO_A_NANO

    def most(self, prompt: int | None = None, *, sound: bool = False) -> tuple[int, int]:
        """Return the femto-dollars that a token of prompt and one of completion cost at most, whatever becomes of it.

        `prompt` bounds the prompt's tokens, and so which tiers may hold; none: any may. `sound`: whether some may be.
        """
        return _most(self, self.tiers if prompt is None else self._reached(prompt)[::-1], sound=sound)

    def image_nano(self, request: image_service_pb2.GenerateImageRequest) -> int:
        """Return what one image of a request costs at most, in nano-dollars, its prompt aside."""
        size = f"{request.width}x{request.height}" if request.width and request.height else ""
        fitting = [one.nano for one in self.images if one.fits(size, _QUALITIES.get(request.quality, ""))]
        return max(fitting) if fitting else self.dearest_image()

    def dearest_image(self) -> int:
        """Return what one image costs at most, in nano-dollars, of any size and quality; 0: unknown."""
        return max(self.image or 0, *(one.nano for one in self.images), 0)

    def _reached(self, prompt: int) -> tuple[Tier, ...]:
        """Return the tiers that such a prompt reaches, the longest first."""
        return tuple(tier for tier in reversed(self.tiers) if prompt > tier.above) if self.tiers else ()

    def _of(self, kind: str, reached: tuple[Tier, ...]) -> int:
        """Return what a million tokens of a kind cost, as their owner asks it or what it names instead."""
        while True:
            for prices in (*reached, self):
                value: int | None = getattr(prices, kind)
                if value is not None:
                    return value
            if kind not in _INSTEAD:
                return 0
            kind = _INSTEAD[kind]


@lru_cache(maxsize=4096)
def _most(price: Price, reached: tuple[Tier, ...], *, sound: bool) -> tuple[int, int]:
    """Return what `Price.most` does, where these tiers may hold, the shortest first: asked at every request."""
    tiers = [reached[:number][::-1] for number in range(len(reached) + 1)]
    read = ("input", "cached", "cache_write", "image_input", *(("audio_input",) if sound else ()))
    return (
        max(price._of(kind, tier) for tier in tiers for kind in read),
        max(price._of(kind, tier) for tier in tiers for kind in ("output", "reasoning", "image_output")),
    )


_INSTEAD: Final = {
    "cached": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "image_input": "input",
    "audio_input": "input",
    "reasoning": "output",
    "image_output": "output",
    "audio_output": "output",
}
"""What a kind of tokens costs that has no price of its own."""


def price_at(prices: Sequence[Price], day: dt.date) -> Price | None:
    """Return the price that holds on a day; before the first date, the first; None where there is none."""
    return next((price for price in reversed(prices) if price.since <= day), prices[0] if prices else None)


def ordered(prices: Iterable[Price]) -> str:
    """Return what is wrong with the order of dated prices, or of a price's tiers; empty when nothing is."""
    last: dt.date | None = None
    for price in prices:
        if last is not None and price.since <= last:
            return f"prices: the one since {price.since} stands behind the one since {last}"
        last = price.since
        steps = [tier.above for tier in price.tiers]
        if steps != sorted(set(steps)):
            return f"prices: the tiers of the one since {price.since} do not rise"
    return ""


def today() -> dt.date:
    """Return the day (UTC), by which prices hold."""
    return dt.datetime.now(dt.UTC).date()


def rounded_up(femto_usd: int) -> int:
    """Return nano-dollars."""
    return -(-femto_usd // FEMTO_A_NANO)


def at_factor(nano_usd: int, factor: float) -> int:
    """Return a part of a price, rounded up; a factor counts to a millionth."""
    return -(-nano_usd * round(factor * 1_000_000) // 1_000_000)


Cost = Callable[[usage_pb2.Usage, str, str], int | None]
"""Tells what a consumption costs at a provider's model, in nano-dollars; None: its price is not known."""
