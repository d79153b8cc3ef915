"""How many tokens of a prompt a picture is at most, by its vendor's rule: what a model's row says as `image_tokens`.

Every rule tells the tokens of a picture of a known size, and the most for any that is taken (`images.MAX_SIDE`). They
bound from above: where a vendor shrinks a picture first, or rounds, the dearest way to read its documentation counts.
"""

from __future__ import annotations

from math import ceil
from typing import Annotated, Final, Protocol

from msgspec import Meta, Struct

from services.common.images import MAX_SIDE

Count = Annotated[int, Meta(ge=0)]
Side = Annotated[int, Meta(ge=8, le=MAX_SIDE)]
Tokens = Annotated[float, Meta(gt=0)]


class Rule(Protocol):
    """A vendor's rule."""

    def of(self, width: int, height: int) -> int:
        """Return the most tokens of a picture of so many pixels."""

    def most(self) -> int:
        """Return the most tokens of any picture that is taken."""


class Tiles(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="rule", tag="tiles"):
    """OpenAI's tiles at high detail: shrunk into 2048x2048, then to a short side of 768; tiles of 512, and a base.

    https://platform.openai.com/docs/guides/images-vision
    """

    base: Count
    """Tokens of any picture."""
    each: Tokens
    """Tokens of a tile."""

    def of(self, width: int, height: int) -> int:
        """Return the most tokens of a picture of so many pixels."""
        long, short = max(width, height), min(width, height)
        if long > 2048:
            long, short = 2048, ceil(short * 2048 / long)
        if short > 768:
            long, short = ceil(long * 768 / short), 768
        return self.base + ceil(ceil(long / 512) * ceil(short / 512) * self.each)

    def most(self) -> int:
        """Return the most: 2048x768."""
        return self.of(2048, 768)


class Patches(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="rule", tag="patches"):
    """Square patches, each of which is tokens; a picture of more than `most_patches` is shrunk until it has no more.

    OpenAI's newer models (32 px, a multiplier), Anthropic's (28 px, or width x height / 750, which is more).
    """

    side: Side
    """Of a patch, in pixels."""
    most_patches: Count = 0
    """0: pictures are not shrunk."""
    each: Tokens = 1.0
    """Tokens of a patch."""

    def of(self, width: int, height: int) -> int:
        """Return the most tokens of a picture of so many pixels."""
        patches = ceil(width / self.side) * ceil(height / self.side)
        if self.most_patches:
            patches = min(patches, self.most_patches)
        return ceil(patches * self.each)

    def most(self) -> int:
        """Return the most: the largest picture."""
        return self.of(MAX_SIDE, MAX_SIDE)


class Crops(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="rule", tag="crops"):
    """Gemini's until version 2.5: one of up to 384x384, else crops of two thirds of the short side, 256 to 768 px.

    https://ai.google.dev/gemini-api/docs/tokens
    """

    each: Tokens
    """Tokens of a crop."""

    def of(self, width: int, height: int) -> int:
        """Return the most tokens of a picture of so many pixels."""
        if width <= 384 and height <= 384:
            return ceil(self.each)
        side = min(768, max(256, int(min(width, height) / 1.5)))
        return ceil(ceil(width / side) * ceil(height / side) * self.each)

    def most(self) -> int:
        """Return the most: the largest picture."""
        return self.of(MAX_SIDE, MAX_SIDE)


class Area(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="rule", tag="area"):
    """A token for so many pixels, and a base: for vendors who publish examples alone (Amazon's Nova)."""

    pixels: Count
    """Pixels of a token."""
    base: Count = 0
    """Tokens of any picture."""

    def of(self, width: int, height: int) -> int:
        """Return the most tokens of a picture of so many pixels."""
        return self.base + ceil(width * height / max(1, self.pixels))

    def most(self) -> int:
        """Return the most: the largest picture."""
        return self.of(MAX_SIDE, MAX_SIDE)


class Flat(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="rule", tag="flat"):
    """As many for every picture (Gemini 3, by its media resolution).

    https://ai.google.dev/gemini-api/docs/media-resolution
    """

    each: Tokens
    """Tokens of a picture."""

    def of(self, width: int, height: int) -> int:
        """Return the most tokens of a picture of so many pixels."""
        return self.most()

    def most(self) -> int:
        """Return the most."""
        return ceil(self.each)


ImageTokens = Tiles | Patches | Crops | Area | Flat
"""What a row may say."""

_DEAREST: Final = Tiles(base=2833, each=5667)
"""The dearest rule that any vendor has published (gpt-4o-mini)."""
_FINEST: Final = Patches(side=14)
"""A token for each of the smallest patches that image encoders in use have (ViT-L/14), and nothing is shrunk."""


class Unknown:
    """A row that says nothing: the dearer of the dearest published rule and the finest patches.

    What a server of one's own does with a picture follows from its model's encoder, and what a reseller charges from
    whose model it sells; a picture that comes to more than both is not known.
    """

    def of(self, width: int, height: int) -> int:
        """Return the most tokens of a picture of so many pixels."""
        return max(_DEAREST.of(width, height), _FINEST.of(width, height))

    def most(self) -> int:
        """Return the most tokens of any picture that is taken."""
        return max(_DEAREST.most(), _FINEST.most())


UNKNOWN: Final = Unknown()
