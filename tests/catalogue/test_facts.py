"""The document of facts: read whole or not at all, looked up by family and id, never guessed."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest

from services.catalogue import (
    MOST_FACTS_BYTES,
    Book,
    CatalogueError,
    Facts,
    Price,
    checked_document,
    price_at,
    shipped_facts,
)

TODAY = dt.date(2026, 11, 29)


def document(models: dict[str, Any], **others: Any) -> bytes:
    return msgspec.json.encode({"format": 1, "taken": "2026-11-29", "families": {"openai": models}, **others})


def test_what_no_source_tells_is_unknown() -> None:
    """A model of which only the context is known has no capabilities, prices or end; one that is not there is None."""
    book = Book(document({"m": {"context_tokens": 1000}}))
    assert book.facts_of("openai", "m") == Facts(context_tokens=1000)
    assert book.facts_of("openai", "other") is None
    assert book.facts_of("gemini", "m") is None


@pytest.mark.parametrize("name", ["m-2026-10-26", "m-20261026", "m@20261026"])
def test_a_snapshot_has_the_facts_of_its_model_unless_it_has_its_own(name: str) -> None:
    """The date at a name's end is no other model."""
    assert Book(document({"m": {"context_tokens": 1}})).facts_of("openai", name) == Facts(context_tokens=1)
    both = document({"m": {"context_tokens": 1}, name: {"context_tokens": 2}})
    assert Book(both).facts_of("openai", name) == Facts(context_tokens=2)


def test_the_later_document_stands_before_the_earlier_a_model_at_a_time() -> None:
    """What an operator's document says of a model is all that is known of it; other models stay as they were."""
    book = Book(
        document({"a": {"context_tokens": 1}, "b": {"context_tokens": 1}}), document({"a": {"retires": "2027-01-01"}})
    )
    assert book.facts_of("openai", "a") == Facts(retires=dt.date(2027, 1, 1))
    assert book.facts_of("openai", "b") == Facts(context_tokens=1)


PRICE = {"since": "2026-01-01", "input": 1}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"{", "truncated"),
        (document({}, format=2), "format"),
        (document({"m": {"context_tokens": -1}}), "openai model m: context_tokens: "),
        (document({"m": {"context_tokens": 1e300}}), "openai model m: context_tokens: "),
        (document({"m": {"prices": [{**PRICE, "input": -1}]}}), "openai model m: prices.input: "),
        (document({"m": {"prices": [{**PRICE, "input": 10**16}]}}), "openai model m: prices.input: "),
        (document({"m": {"prices": [{**PRICE, "input": 0.5}]}}), "openai model m: prices.input: "),
        (document({"m": {"prices": [{**PRICE, "input": 1}]}}).replace(b'"input":1', b'"input":NaN'), "malformed"),
        (
            document({"m": {"prices": [{**PRICE, "input": 1}]}}).replace(b'"input":1', b'"input":1e300'),
            "prices.input: ",
        ),
        (document({"m": {"prices": [{"input": 1}]}}), "since"),
        (document({"m": {"prices": [PRICE, PRICE]}}), "2026-01-01 stands behind"),
        (document({"m": {"prices": [{**PRICE, "tiers": [{"above": 5}, {"above": 5}]}]}}), "do not rise"),
        (document({"m": {"capabilities": ["vison"]}}), "did you mean 'vision'?"),
        (document({"m": {"contex_tokens": 1}}), "did you mean 'context_tokens'?"),
        (document({"m": {"capabilities": ["tools"], "lacks": ["tools"]}}), "'tools' is among its capabilities too"),
        (document({"model-one": {}, "m": {"successor": "model-on"}}), "did you mean 'model-one'?"),
        (document({"m" * 201: {}}), "families"),
        (b'{"format": 1, "taken": "2026-11-29", "families": {"opanai": {}}}', "did you mean 'openai'?"),
        (b"[" * 100_000, ""),
        (b" " * (MOST_FACTS_BYTES + 1), "bytes are more than"),
        (document({f"m{number}": {} for number in range(20_001)}), "more than 20000 models"),
    ],
)
def test_a_document_with_any_fault_is_refused_whole_and_the_place_is_named(text: bytes, fault: str) -> None:
    """Hostile numbers, unknown words, nesting and sizes; words have their nearest beside them."""
    with pytest.raises(CatalogueError) as refused:
        checked_document(text, "facts")
    assert fault in str(refused.value)
    assert len(str(refused.value)) < 2000


def test_what_ships_is_right_and_knows_the_flagships_of_its_day() -> None:
    """Each has a context and a price of today, and where its owner told it, a longest answer."""
    text = shipped_facts()
    checked_document(text, "facts")
    book = Book(text)
    flagships = {
        "openai": ("gpt-6-astra", "gpt-6.1-sol"),
        "azure": ("gpt-4o-mini",),
        "gemini": ("gemini-4-argon", "gemini-3.8-flash"),
        "anthropic": ("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"),
        "bedrock": ("global.anthropic.claude-opus-5-5", "amazon.nova-2-lite-v1:0"),
    }
    for family, ids in flagships.items():
        for model_id in ids:
            facts = book.facts_of(family, model_id)
            assert facts is not None, model_id
            assert facts.context_tokens, model_id
            assert facts.max_output_tokens or model_id == "gemini-4-argon", model_id
            assert facts.prices, model_id


def test_an_introductory_price_ends_on_its_day() -> None:
    """As its owner announced it: the double from 2027 on."""
    facts = Book(shipped_facts()).facts_of("gemini", "gemini-3.8-flash")
    assert facts is not None
    first, second = facts.prices
    assert (second.since, second.input) == (dt.date(2027, 1, 1), 2 * (first.input or 0))


def test_a_price_is_found_by_its_day() -> None:
    """The last that began; before the first date, the first."""
    old, new = Price(since=dt.date(2026, 1, 1), input=1), Price(since=dt.date(2026, 6, 1), input=2)
    days = {dt.date(2025, 1, 1): old, dt.date(2026, 5, 31): old, dt.date(2026, 6, 1): new, TODAY: new}
    assert {day: price_at((old, new), day) for day in days} == days
    assert price_at((), TODAY) is None
