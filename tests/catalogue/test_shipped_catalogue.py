"""The catalogue that ships says of every cloud model what an operator and a caller need to know."""

from __future__ import annotations

import pytest

from services.catalogue import Catalogue, Model
from tests import shipped

CATALOGUE: Catalogue = shipped.catalogue()
CLOUD = [model for model in CATALOGUE.models if CATALOGUE.providers[model.provider].service != "inference"]


def _last(model: Model) -> Model:
    while model.retirement is not None:
        model = CATALOGUE.find(model.retirement.successor)
    return model


@pytest.mark.parametrize("model", CLOUD, ids=lambda model: model.full_id)
def test_each_model_has_its_price_and_bounds(model: Model) -> None:
    """Every one has a price; those of text a context and a longest answer, those of images a longest prompt, those
    of embeddings a longest text."""
    price = model.price()
    assert price is not None
    if CATALOGUE.makes(model) == "text":
        assert 0 < model.max_output_tokens <= model.context_tokens
        assert not model.default_max_tokens, "no cap that nobody asked for"
        assert price.image is None
    elif CATALOGUE.makes(model) == "embedding":
        assert model.context_tokens
        assert (price.image or 0, price.output or 0) == (0, 0)
    else:
        assert model.limits.prompt_chars


@pytest.mark.parametrize("model", [m for m in CLOUD if m.retirement], ids=lambda model: model.full_id)
def test_each_retired_model_has_a_living_successor(model: Model) -> None:
    """The line of successors ends with a model that makes the same, and changes images where the first one did."""
    last = _last(model)
    assert CATALOGUE.makes(last) == CATALOGUE.makes(model)
    assert last.can("edit") or not model.can("edit")
    assert last.can("vision") or not model.can("vision")
