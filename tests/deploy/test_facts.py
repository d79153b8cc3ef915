"""The document of facts is distilled from packages that are read, never run, and leaves the past as it was."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.build.licences import PERMITTED
from deploy.facts import changes, document, packages
from deploy.facts.__main__ import main
from deploy.facts.abilities import models
from deploy.facts.dated_prices import Dated, read
from deploy.facts.literals import Unreadable, value_of
from services.catalogue import (
    ALWAYS,
    SHIPPED_FACTS,
    Book,
    Catalogue,
    Facts,
    Model,
    Price,
    Provider,
    Retirement,
    Tier,
    checked_document,
    ordered,
    price_at,
    shipped_facts,
)

MODULE = """
from .types import *
providers: list[Provider] = [
    Provider(id='openai', models=[
        ModelInfo(
            id='big', match=ClauseOr(or_=[ClauseEquals(equals='Big'), ClauseRegex(regex=r'^big-\\d{4}$')]),
            context_window=1050,
            prices=[
                ConditionalPrice(prices=ModelPrice(
                    input_mtok=TieredPrices(base=Decimal('0.00875'), tiers=[Tier(start=272, price=Decimal('2'))]),
                    output_mtok=Decimal('5'), web_searches_kcount=Decimal('10'))),
                ConditionalPrice(constraint=StartDateConstraint(start_date=datetime.date(2027, 1, 1)),
                    prices=ModelPrice(input_mtok=Decimal('3'))),
                ConditionalPrice(constraint=TimeOfDateConstraint(start_time=datetime.time(1, 0, tzinfo=datetime.UTC)),
                    prices=ModelPrice(input_mtok=Decimal('9'))),
            ]),
        ModelInfo(id='free', match=ClauseEquals(equals='free'), prices=ModelPrice()),
    ]),
    Provider(id='azure', fallback_model_providers=['openai'], models=[]),
    Provider(id='google', models=[]), Provider(id='aws', models=[]),
    Provider(id='anthropic', models=[]),
]
"""
NEW_YEAR = dt.date(2027, 1, 1)
TABLE: dict[str, dict[str, Any]] = {
    "big": {
        "litellm_provider": "openai",
        "mode": "chat",
        "max_input_tokens": 922,
        "max_output_tokens": 128,
        "input_cost_per_token": 7e-06,
        "supported_modalities": ["text", "image"],
        "supports_pdf_input": True,
        "supports_vision": True,
        "supports_function_calling": False,
        "deprecation_date": "2027-03-01",
        "successor_model": "openai/other",
    },
    "other": {
        "litellm_provider": "openai",
        "mode": "responses",
        "input_cost_per_token": 1e-06,
        "input_cost_per_token_above_200k_tokens": 2e-06,
        "input_cost_per_token_flex": 5e-07,
        "successor_model": "nobody",
    },
    "filled": {"litellm_provider": "openai", "mode": "chat", "max_input_tokens": 64, "max_output_tokens": 64},
    "azure/big": {"litellm_provider": "azure", "mode": "chat"},
    "azure/eu/big": {"litellm_provider": "azure", "mode": "chat"},
    "gemini/voice": {"litellm_provider": "gemini", "mode": "audio_speech"},
    "picture": {"litellm_provider": "openai", "mode": "image_generation"},
    "low/64-x-64/picture": {"litellm_provider": "openai", "mode": "image_generation", "input_cost_per_image": 0.01},
}


def made(before: Any = None, taken: dt.date = dt.date(2026, 11, 29)) -> Any:
    return document.joined(read(MODULE), TABLE, (), taken, before)


def test_prices_are_of_the_package_that_dates_them_and_abilities_of_the_other() -> None:
    """In whole nano-dollars; what holds at some hours, costs of other things and of other tiers of service are left."""
    openai = made().families["openai"]
    big = openai["big"]
    assert big.prices == (
        Price(since=ALWAYS, input=8_750_000, output=5 * 10**9, tiers=(Tier(above=272, input=2 * 10**9),)),
        Price(since=NEW_YEAR, input=3 * 10**9),
    )
    assert (big.context_tokens, big.max_output_tokens) == (1050, 128)
    assert (big.inputs, big.capabilities, big.lacks) == (("text", "image", "file"), ("vision",), ("tools",))
    assert (big.retires, big.successor) == (dt.date(2027, 3, 1), "other")
    assert openai["other"].prices == (Price(since=ALWAYS, input=10**9, tiers=(Tier(above=200_000, input=2 * 10**9),)),)
    assert not openai["other"].successor, "nobody knows it"
    assert (openai["other"].method, big.method) == ("responses", None)
    assert openai["free"] == Facts()


def test_a_cloud_that_offers_another_ones_models_has_its_prices_where_it_names_none() -> None:
    """Azure has OpenAI's; a deployment's region is no model."""
    assert {name: len(facts.prices) for name, facts in made().families["azure"].items()} == {"big": 2}


def test_a_longest_answer_that_fills_the_context_is_unknown() -> None:
    """Tables repeat the context where nobody told them the answer's length, and providers refuse to be asked for it."""
    assert made().families["openai"]["filled"] == Facts(makes="text", context_tokens=64)
    families = checked_document(shipped_facts(), "facts").families.values()
    shipped = [facts for known in families for facts in known.values() if facts.context_tokens]
    assert shipped
    assert not any(facts.max_output_tokens == facts.context_tokens for facts in shipped)


def test_a_table_of_images_that_lacks_a_quality_bounds_nothing() -> None:
    """What is not in it may cost more than all that is."""
    assert made().families["openai"]["picture"] == Facts(makes="image")


def test_models_are_matched_as_the_package_matches_them() -> None:
    """By any of an entry's clauses, whatever the case."""
    dated = read(MODULE)["openai"]
    found = [dated.model(name) for name in ("BIG", "big-2026", "big-26", "bigger")]
    assert [entry["id"] if entry else None for entry in found] == ["big", "big", None, None]


OLD = (Price(since=ALWAYS, input=1),)
KNOWN_ON, TAKEN = dt.date(2026, 11, 1), dt.date(2026, 11, 29)


@pytest.mark.parametrize(
    ("new", "prices"),
    [
        ((Price(since=ALWAYS, input=1),), OLD),
        ((Price(since=ALWAYS, input=2),), (*OLD, Price(since=TAKEN, input=2))),
        ((*OLD, Price(since=dt.date(2026, 11, 10), input=2)), (*OLD, Price(since=dt.date(2026, 11, 10), input=2))),
        ((*OLD, Price(since=NEW_YEAR, input=2)), (*OLD, Price(since=NEW_YEAR, input=2))),
        (
            (Price(since=ALWAYS, input=3), Price(since=NEW_YEAR, input=4)),
            (*OLD, Price(since=TAKEN, input=3), Price(since=NEW_YEAR, input=4)),
        ),
        ((Price(since=dt.date(2026, 6, 1), input=1),), OLD),
        ((), OLD),
    ],
)
def test_an_update_never_rewrites_the_past(new: tuple[Price, ...], prices: tuple[Price, ...]) -> None:
    """What was said of the days up to the last update stays; what is new has its own date, or the update's."""
    assert document.continued(new, OLD, KNOWN_ON, TAKEN) == prices
    assert document.continued(new, prices, TAKEN, TAKEN) == prices, "once more changes nothing"


_DAYS = st.dates(dt.date(2026, 10, 1), dt.date(2026, 12, 31))
_LISTS = st.dictionaries(_DAYS, st.integers(1, 3), min_size=1, max_size=4).map(
    lambda prices: tuple(Price(since=since, input=prices[since]) for since in sorted(prices))
)


@given(_LISTS, _LISTS, _DAYS)
def test_any_update_leaves_the_past_and_says_what_holds_now(
    old: tuple[Price, ...], new: tuple[Price, ...], day: dt.date
) -> None:
    """Up to the day that was known, what was said; from the update on, what is said now; in order, and at rest."""

    def asked(prices: tuple[Price, ...]) -> int | None:
        price = price_at(prices, day)
        return price.input if price is not None else None

    result = document.continued(new, old, KNOWN_ON, TAKEN)
    assert ordered(result) == ""
    if day <= KNOWN_ON and old[0].since <= KNOWN_ON:
        assert asked(result) == asked(old)
    if day >= TAKEN:
        assert asked(result) == asked(new)
    assert document.continued(new, result, TAKEN, TAKEN) == result


def test_a_module_that_computes_is_refused_unread() -> None:
    """Only literals are taken; no code of a package runs."""
    for text in ("providers = [Provider(id=open('/etc/passwd').read())]", "providers = [x for x in y]", "1 +", "a = 1"):
        with pytest.raises(Unreadable):
            value_of(text, "providers")


def test_what_ships_was_made_of_the_locked_packages() -> None:
    """Version and hash of each: whoever moves a pin makes the document anew (`make models UPDATE=1`)."""
    sources = checked_document(shipped_facts(), "facts").sources
    assert {one.name: (one.version, one.sha256) for one in sources} == packages.pinned()
    assert packages.lock_text(sources) == packages.LOCK.read_text()
    assert {one.licence for one in sources} <= PERMITTED


def test_written_and_read_again_a_document_is_the_same() -> None:
    """A model a line, so that a change of one is one line's."""
    text = document.written(made())
    assert checked_document(text, "facts") == made()
    assert text.count(b"\n") >= len(made().families["openai"])


def test_the_table_s_own_ids_are_taken() -> None:
    """Without the prefix that it puts before them, and of what this gateway makes alone."""
    assert [(family, name) for family, name, _ in models(TABLE)] == [
        ("openai", "big"),
        ("openai", "other"),
        ("openai", "filled"),
        ("azure", "big"),
        ("openai", "picture"),
    ]
    assert Dated({"models": []}).model("big") is None


def test_a_region_s_price_is_not_its_base_price() -> None:
    """Names are matched by their parts; where the table has the very id, and asks more, its price holds."""
    module = MODULE.replace("ClauseEquals(equals='Big')", "ClauseContains(contains='big')")
    table = {
        name: {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": price}
        for name, price in (("big", 9e-06), ("eu.big", 9e-06), ("us.big", 1e-09))
    }
    made = document.joined(read(module), table, (), dt.date(2026, 11, 29), None).families["openai"]
    assert {name: made[name].prices[0].input for name in table} == {
        "big": 8_750_000,
        "eu.big": 9 * 10**9,
        "us.big": 8_750_000,
    }


def _book(**models: Any) -> Book:
    return Book(msgspec.json.encode({"format": 1, "taken": "2026-11-29", "families": {"openai": models}}))


def test_what_an_update_would_change_is_told_a_line_each() -> None:
    """Of the rows' models every field, and prices from each date; of the others which are new or gone."""
    price = {"since": "2026-01-01", "input": 150_000_000, "output": 600_000_000}
    old = {"max_output_tokens": 5, "prices": [price]}
    new = {"max_output_tokens": 6, "prices": [{**price, "input": 10**9}, {"since": "2027-01-01", "input": 2 * 10**9}]}
    provider = Provider(id="p", adapter="openai", makes="text", facts="openai")
    retiring = Retirement(date=dt.date(2026, 12, 1), successor="other")
    rows = [Model(id="mine", provider="p", retirement=retiring), Model(id="other", provider="p")]
    catalogue = Catalogue([provider], rows, frozenset(), (), _book(mine=old, gone={}, unlisted=old))
    end = {"retires": "2027-05-01", "successor": "fresh"}
    after = _book(mine={**new, **end}, fresh={"makes": "text", "context_tokens": 9, "prices": [price]}, unlisted=new)
    assert list(changes.lines(catalogue, after, dt.date(2026, 11, 29))) == [
        "openai/mine: max_output_tokens: 5 -> 6",
        "openai/mine: retires: None (-) -> 2027-05-01 (fresh)",
        "openai/mine: price today: input $0.15 -> $1",
        "openai/mine: price from 2027-01-01: input $0.15 -> $2, output $0.6 -> -",
        "openai/fresh: new, text, context 9, input $0.15, output $0.6",
        "openai/gone: no longer in the data",
    ]
    assert list(changes.ends(catalogue, dt.date(2026, 11, 29))) == ["p/mine: ends on 2026-12-01; then other (alias)"]


def test_without_a_network_it_says_so_and_what_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written, and the exit status tells it."""

    def away(*, newest: bool) -> packages.Read:
        raise packages.Unreachable("no matching distribution")

    monkeypatch.setattr(packages, "fetched", away)
    before = SHIPPED_FACTS.read_bytes()
    assert main(["--update"]) == 1
    told = capsys.readouterr().out
    assert "cannot be had, nothing was compared: no matching distribution" in told
    assert "openai-image/dall-e-3: ended on 2026-05-12" in told
    assert SHIPPED_FACTS.read_bytes() == before
