"""Rows say what is the operator's; the kept facts tell the rest, and what a row says wins."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.catalogue import Book, Catalogue, CatalogueError, Model, Price, checked
from tests import shipped

OLD = {"since": "2026-01-01", "input": 1_000_000_000, "output": 2_000_000_000}
FACTS: dict[str, Any] = {
    "told": {
        "makes": "text",
        "context_tokens": 1000,
        "max_output_tokens": 100,
        "capabilities": ["vision", "search"],
        "lacks": ["tools"],
        "prices": [OLD, {"since": "2027-01-01", "input": 3_000_000_000}],
        "retires": "2027-02-01",
        "successor": "upstream-new",
    },
    "upstream-new": {"makes": "text", "retires": "2028-01-01", "successor": "told"},
    "pro": {"makes": "text", "method": "responses", "prices": [OLD]},
    "picture": {"makes": "image", "max_output_tokens": 5, "prices": [{"since": "2026-01-01", "image_output": 7}]},
}
BOOK = Book(msgspec.json.encode({"format": 1, "taken": "2026-11-29", "families": {"openai": FACTS}}))
PROVIDERS = """
providers:
  - {id: cloud, adapter: openai, makes: text, facts: openai, capabilities: [vision, tools, json]}
  - {id: draws, adapter: openai, makes: image, facts: openai}
  - {id: own, adapter: openai, makes: text}
models:
"""
Read = Callable[..., dict[str, Model]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(*rows: str) -> dict[str, Model]:
        path = tmp_path / "catalogue.yaml"
        path.write_text(PROVIDERS + "\n".join(f"  - {{{row}}}" for row in rows) + "\n")
        return {model.full_id: model for model in checked(path, BOOK)[1]}

    return read


def test_a_model_is_asked_by_the_api_that_it_has(read: Read) -> None:
    """As the facts tell it, with the row's own limits kept; a wildcard's model too, and no row of others."""
    rows = read("id: pro, provider: cloud, limits: {stop: 2}", "id: pro, provider: own", 'id: "*", provider: cloud')
    limits = rows["cloud/pro"].limits
    assert (limits.method, limits.stop) == ("responses", 2)
    assert rows["own/pro"].limits.method is None
    assert shipped.catalogue().find("openai-text/o3-pro").limits.method == "responses"
    assert shipped.catalogue().find("openai-text/gpt-4o-mini").limits.method is None


def test_what_a_row_does_not_say_is_told_by_the_facts_as_far_as_its_protocol_carries_it(read: Read) -> None:
    """Context, longest answer, prices by date; of the abilities those that the provider's protocol has, and those
    that facts never tell of."""
    model = read("id: told, provider: cloud")["cloud/told"]
    assert (model.context_tokens, model.max_output_tokens) == (1000, 100)
    assert model.capabilities == {"vision", "json"}
    prices = {day: model.price(dt.date.fromisoformat(day)) for day in ("2026-12-31", "2027-01-01")}
    assert {day: price and price.input for day, price in prices.items()} == {
        "2026-12-31": 10**9,
        "2027-01-01": 3 * 10**9,
    }


def test_what_a_row_says_wins(read: Read) -> None:
    """Each field by itself, and an empty list of capabilities as well."""
    said = "context_tokens: 5, capabilities: [], prices: {input: 9}, retirement: {date: 2026-01-01, successor: other}"
    model = read(f"id: told, provider: cloud, {said}", "id: other, provider: own")["cloud/told"]
    assert (model.context_tokens, model.max_output_tokens, model.capabilities) == (5, 100, frozenset())
    assert [price.input for price in model.price_list] == [9 * 10**9]
    assert model.retirement is not None
    assert model.retirement.successor == "other"


def test_facts_are_of_the_name_that_the_provider_has(read: Read) -> None:
    """A row's upstream name first, then its id; a provider without kept facts has none, whatever its models' names."""
    rows = read("id: mine, provider: cloud, upstream: told", "id: told, provider: own", "id: told, provider: cloud")
    assert [rows[name].context_tokens for name in ("cloud/mine", "own/told", "cloud/told")] == [1000, 0, 1000]


def test_an_end_that_an_owner_named_holds_where_the_successor_is_here(read: Read) -> None:
    """By its row, whatever its id; where it is not here, or comes back to the same model, the row has no end."""
    alone = read("id: told, provider: cloud")["cloud/told"]
    assert alone.retirement is None
    rows = read("id: told, provider: cloud", "id: new, provider: cloud, upstream: upstream-new")
    first, second = rows["cloud/told"].retirement, rows["cloud/new"].retirement
    assert first is not None
    assert (first.date, first.successor) == (dt.date(2027, 2, 1), "cloud/new")
    assert second is None, "the circle is cut"


def test_bounds_of_images_are_added_to_what_is_known(read: Read) -> None:
    """A row that says nothing but what an image costs at most; an image model's context is none of its limits."""
    model = read("id: picture, provider: draws, prices: {images: [{usd: 1}]}")["draws/picture"]
    (price,) = model.price_list
    assert (price.image_output, price.dearest_image(), model.context_tokens) == (7, 10**9, 0)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("id: m, provider: cloud, known_prices: [{since: 2026-01-01}]", "known_prices is not a row's to say"),
        ("id: m, provider: cloud, prices: [{since: 2027-01-01}, {since: 2026-01-01}]", "2026-01-01 stands behind"),
        ("id: m, provider: cloud, prices: {tiers: [{above: 2}, {above: 1}]}", "do not rise"),
        ("id: m, provider: cloud, prices: {input: 1000001}", "prices.input"),
        ("id: m, provider: cloud, prices: {input: -0.1}", "prices.input"),
        ("id: m, provider: cloud, prices: {input: .nan}", "prices.input"),
    ],
)
def test_a_row_s_prices_hold_together(read: Read, row: str, fault: str) -> None:
    """Dates in order, tiers that rise, dollars within reason."""
    with pytest.raises(CatalogueError) as refused:
        read(row)
    assert fault in str(refused.value)


def test_the_catalogue_that_ships_types_no_price_that_is_kept() -> None:
    """Rows whose models the kept facts price say no more of it than what an image costs at most."""
    catalogue: Catalogue = shipped.catalogue()
    typed = {model.full_id for model in catalogue.models if model.prices is not None and model.known_prices}
    assert typed <= {"gemini-image/gemini-2.5-flash-image", "aws-bedrock-image/amazon.nova-canvas-v1:0"}


def test_the_flagships_are_there_with_facts_from_kept_data() -> None:
    """Of each owner the newest large models, priced and bounded."""
    catalogue: Catalogue = shipped.catalogue()
    for name in (
        *(
            "openai-text/gpt-6-astra",
            "openai-text/gpt-6.1-sol",
            "gemini-text/gemini-4-argon",
            "openai-image/gpt-image-2.6-flare",
        ),
        "anthropic-text/claude-opus-5-5",
        *("aws-bedrock-text/anthropic.claude-opus-5-5", "aws-bedrock-text/amazon.nova-2-lite-v1:0"),
    ):
        model = catalogue.find(name)
        assert model.retirement is None
        assert model.known_prices, name
        assert isinstance(model.price(), Price)


def test_an_end_may_lead_to_what_a_wildcard_row_covers_but_no_vectors_to_another_model_s(tmp_path: Path) -> None:
    """An embedding model that has ended is refused: another one's vectors would be found near nothing of its own."""
    path = tmp_path / "catalogue.yaml"
    rows = "  - {id: told, provider: vectors}\n  - {id: '*', provider: vectors}\n"
    providers = "providers:\n  - {id: vectors, adapter: openai, makes: embedding, facts: openai}\nmodels:\n"
    path.write_text(providers + rows)
    retirement = checked(path, BOOK)[1][0].retirement
    assert retirement is not None
    assert (retirement.successor, retirement.policy) == ("vectors/upstream-new", "gone")
