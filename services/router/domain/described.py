"""What listings tell of a model: what is known, and that the rest is not."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final, NamedTuple

from services.catalogue import ALWAYS, Catalogue, Model, Price, TokenPrices

_NANO: Final = 10**9
_LOOKS: Final = frozenset({"vision", "edit", "variation", "references"})
"""What takes images."""


class Description(NamedTuple):
    """What is known of a model; None: it is not."""

    context_tokens: int | None
    max_output_tokens: int | None
    inputs: tuple[str, ...] | None
    """What it takes: `text`, `image`, `audio`, `video`, `file`."""
    outputs: tuple[str, ...] | None
    """What it gives."""
    capabilities: list[str] | None
    prices: dict[str, Any] | None
    """In US dollars, as `dollars` has them."""
    retires: dt.date | None
    """The day on which its owner stops it."""
    successor: str | None
    """The id or full id of the model that answers then."""
    loras: tuple[str, ...]
    """The LoRAs that a request may name; none where it may name none."""


def described(catalogue: Catalogue, model: Model) -> Description:
    """Return what is known of a model."""
    facts = catalogue.facts_of(model.provider, model.name)
    price = model.price()
    retirement = model.retirement
    known, makes = model.known_capabilities, catalogue.makes(model)
    # A row without any is a plain model; of an id that no row has nothing may be known.
    can = sorted(known) if known or not model.lacks_row else None
    return Description(
        context_tokens=model.context_tokens or None,
        max_output_tokens=model.max_output_tokens or None,
        inputs=(facts.inputs if facts is not None else ()) or (_taken(known) if can is not None else None),
        outputs=(facts.outputs if facts is not None else ()) or ((makes,) if can is not None else None),
        capabilities=can,
        prices=dollars(price) if price is not None else None,
        retires=retirement.date if retirement is not None else facts.retires if facts is not None else None,
        successor=retirement.successor or None if retirement is not None else None,
        loras=tuple(sorted(model.load.options.get("loras", ()))) if model.load is not None and "lora" in known else (),
    )


def _taken(capabilities: frozenset[str]) -> tuple[str, ...]:
    """Return what a model takes by what it can do."""
    return ("text", "image") if capabilities & _LOOKS else ("text",)


def dollars(price: Price) -> dict[str, Any]:
    """Return a price in US dollars: of a million tokens by their kind, and of an image.

    `since` is the first day on which it holds, where that is known; `tiers` are what long prompts cost.
    """
    result: dict[str, Any] = {"since": price.since.isoformat()} if price.since != ALWAYS else {}
    result |= _kinds(price)
    if price.tiers:
        result["tiers"] = [{"above": tier.above, **_kinds(tier)} for tier in price.tiers]
    if price.image is not None:
        result["image"] = price.image / _NANO
    if price.images:
        result["images"] = [
            {"usd": one.nano / _NANO, **{name: value for name in ("quality", "size") if (value := getattr(one, name))}}
            for one in price.images
        ]
    return result


def _kinds(prices: TokenPrices) -> dict[str, float]:
    kinds = ((kind, getattr(prices, kind)) for kind in TokenPrices.__struct_fields__)
    return {kind: nano / _NANO for kind, nano in kinds if nano is not None}
