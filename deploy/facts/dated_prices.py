"""Prices with their dates, out of genai-prices' data."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from typing import Any, Final

import msgspec

from deploy.facts.literals import KIND, Node, value_of
from services.catalogue import ALWAYS, Price, Tier

FAMILIES: Final = {
    "openai": "openai",
    "azure": "azure",
    "google": "gemini",
    "aws": "bedrock",
    "anthropic": "anthropic",
}
"""Its providers whose models are ours, each with the family's name."""

_KINDS: Final = {
    "input_mtok": "input",
    "cache_read_mtok": "cached",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_image_mtok": "image_input",
    "input_audio_mtok": "audio_input",
    "output_mtok": "output",
    "output_image_mtok": "image_output",
    "output_audio_mtok": "audio_output",
}
"""Its kinds of tokens, each with ours."""
_NANO: Final = 10**9


class Dated:
    """One provider's prices.

    Args:
        provider: Its entry.
        others: Those whose models it offers too, whose prices are its own where it has none.
    """

    def __init__(self, provider: Node, others: tuple[Node, ...] = ()) -> None:
        self._models: list[Node] = provider["models"]
        self._all: list[Node] = [model for one in (provider, *others) for model in one["models"]]

    def ids(self) -> list[str]:
        """Return the ids by which it names models."""
        return [model["id"] for model in self._models]

    def model(self, model_id: str) -> Node | None:
        """Return the entry that a provider's model has, as the package itself matches them: the first that fits."""
        return next((model for model in self._all if _fits(model["match"], model_id)), None)

    @staticmethod
    def prices(model: Node) -> tuple[Price, ...]:
        """Return an entry's prices, the oldest first. What holds at some hours of a day only is left out."""
        found = model.get("prices") or []
        conditional = found if isinstance(found, list) else [{"prices": found}]
        dated = {}
        for one in conditional:
            constraint = one.get("constraint")
            if constraint is None or constraint[KIND] == "StartDateConstraint":
                since = constraint["start_date"] if constraint else ALWAYS
                dated[since] = _price(one["prices"], since)
        return tuple(dated[since] for since in sorted(dated) if dated[since] is not None)  # type: ignore[misc]


def read(module: str) -> dict[str, Dated]:
    """Return what the package's data module says of our families."""
    providers = {provider["id"]: provider for provider in value_of(module, "providers")}
    found = {}
    for name, family in FAMILIES.items():
        others = providers[name].get("fallback_model_providers") or ()
        found[family] = Dated(providers[name], tuple(providers[other] for other in others))
    return found


def _price(prices: Node, since: dt.date) -> Price | None:
    """Return a price; None where none of its kinds of tokens is ours."""
    base: dict[str, int] = {}
    steps: dict[int, dict[str, int]] = {}
    for theirs, ours in _KINDS.items():
        value = prices.get(theirs)
        if isinstance(value, Decimal):
            base[ours] = _nano(value)
        elif value is not None:
            base[ours] = _nano(value["base"])
            for tier in value["tiers"]:
                steps.setdefault(tier["start"], {})[ours] = _nano(tier["price"])
    if not base:
        return None
    tiers = []
    so_far: dict[str, int] = {}
    for start in sorted(steps):
        so_far = so_far | steps[start]
        tiers.append(Tier(above=start, **so_far))
    return msgspec.structs.replace(Price(since=since, tiers=tuple(tiers)), **base)


def _nano(dollars: Decimal) -> int:
    nano = dollars * _NANO
    if nano != int(nano):
        raise ValueError(f"{dollars} US dollars are no whole number of nano-dollars")
    return int(nano)


def _fits(clause: Any, text: str) -> bool:
    kind = clause[KIND]
    if kind in ("ClauseOr", "ClauseAnd"):
        inner = (_fits(one, text) for one in clause["or_" if kind == "ClauseOr" else "and_"])
        return any(inner) if kind == "ClauseOr" else all(inner)
    text = text.lower()
    match kind:
        case "ClauseEquals":
            return bool(text == clause["equals"].lower())
        case "ClauseStartsWith":
            return text.startswith(clause["starts_with"].lower())
        case "ClauseEndsWith":
            return text.endswith(clause["ends_with"].lower())
        case "ClauseContains":
            return clause["contains"].lower() in text
        case "ClauseRegex":
            return re.search(clause["regex"], text) is not None
    raise ValueError(f"nobody knows the clause {kind}")
