"""What an answer costs by the catalogue."""

from __future__ import annotations

import pytest

from services.catalogue import Prices
from tests import shipped


def test_cached_tokens_cost_their_own_price() -> None:
    """A million tokens each of prompt (a quarter cached) and completion, and two images."""
    prices = Prices(input=4.0, cached=1.0, output=10.0, image=0.5)
    cost = prices.cost(prompt=1_000_000, cached=250_000, completion=1_000_000, images=2)
    assert cost == pytest.approx(3.0 + 0.25 + 10.0 + 1.0)


def test_without_a_price_for_cached_tokens_they_cost_as_others() -> None:
    """`cached` is a discount that not every owner gives."""
    assert Prices(input=2.0).cost(prompt=500_000, cached=500_000, completion=0, images=0) == pytest.approx(1.0)


def test_the_shipped_catalogue_has_prices_for_clouds_only() -> None:
    """Models of one's own cost nobody's money."""
    catalogue = shipped.catalogue()
    priced = {m.provider for m in catalogue.models if m.prices is not None}
    assert priced
    assert not any(provider.startswith("local-") for provider in priced)
