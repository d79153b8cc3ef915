"""Prices as a row writes them, in US dollars."""

from __future__ import annotations

import datetime as dt
from functools import lru_cache
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from services.catalogue._price import ALWAYS, ImageAt, Pixels, Price, Tier, TokenPrices

Usd = Annotated[float, Meta(ge=0, le=1e6)]

_NANO: Final = 10**9
_KINDS: Final = TokenPrices.__struct_fields__


class ImagePrice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one image costs at most, of some size and quality."""

    usd: Usd
    """US dollars."""
    quality: Literal["low", "medium", "high"] | None = None
    """None: any."""
    size: Pixels | None = None
    """Width and height in pixels; None: any."""


class WrittenTokens(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a million tokens of each kind cost, in US dollars. What is not set costs what `TokenPrices` says."""

    input: Usd | None = None
    cached: Usd | None = None
    cache_write: Usd | None = None
    cache_write_1h: Usd | None = None
    image_input: Usd | None = None
    audio_input: Usd | None = None
    output: Usd | None = None
    reasoning: Usd | None = None
    image_output: Usd | None = None
    audio_output: Usd | None = None


class PriceTier(WrittenTokens, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all tokens of a request cost whose prompt is long."""

    above: Annotated[int, Meta(ge=1, le=1_000_000_000)]
    """Prompts of more tokens than this."""


class Prices(WrittenTokens, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model's owner asks, in US dollars."""

    since: dt.date | None = None
    """The first day (UTC) on which it holds; none: always."""
    tiers: tuple[PriceTier, ...] = ()
    """What long prompts cost, the shortest first."""
    image: Usd | None = None
    """One image."""
    images: tuple[ImagePrice, ...] = ()
    """One image by size and quality; of those that fit, the dearest. Where tokens have a price too, it is the bound by
    which images are reserved, and they cost what their tokens do. Prices of nothing but `images` are that bound for the
    tokens' prices that the kept facts tell."""

    @property
    def bounds_alone(self) -> bool:
        """Whether it prices nothing but images by size and quality."""
        return bool(self.images) and self.image is None and not _tokens(self) and not self.tiers


@lru_cache(maxsize=4096)
def in_integers(prices: Prices) -> Price:
    """Return a written price in nano-dollars."""
    return Price(
        since=prices.since or ALWAYS,
        **_tokens(prices),
        tiers=tuple(Tier(above=tier.above, **_tokens(tier)) for tier in prices.tiers),
        image=None if prices.image is None else round(prices.image * _NANO),
        images=_images(prices),
    )


def price_list(written: Prices | tuple[Prices, ...] | None, known: tuple[Price, ...] = ()) -> tuple[Price, ...]:
    """Return a model's prices by date: what its row writes, else what is known of it."""
    if written is None:
        return known
    if isinstance(written, Prices):
        if known and written.bounds_alone:
            return tuple(msgspec.structs.replace(price, images=_images(written)) for price in known)
        return (in_integers(written),)
    return tuple(in_integers(prices) for prices in written)


def _images(prices: Prices) -> tuple[ImageAt, ...]:
    return tuple(ImageAt(nano=round(one.usd * _NANO), quality=one.quality, size=one.size) for one in prices.images)


def _tokens(prices: WrittenTokens) -> dict[str, int]:
    found = ((kind, getattr(prices, kind)) for kind in _KINDS)
    return {kind: round(usd * _NANO) for kind, usd in found if usd is not None}
