"""Models that no row names: what is reserved for them, who may ask for them, and what is counted by their names."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

import pytest

from services.catalogue import (
    Catalogue,
    ImagePrice,
    Listed,
    ListedModel,
    Model,
    Prices,
    PriceTier,
    Provider,
    Retirement,
)
from services.common import errors
from services.common.errors import PermissionDenied
from services.quota_client.amounts import UNLIMITED, Amount
from services.router import metrics
from services.router.dialects.google import listing as google
from services.router.dialects.openai.servicer import page_of
from services.router.domain.breaker import LIMIT
from services.router.domain.caller import Caller
from services.router.domain.described import Description, described
from services.router.domain.finding import find
from services.router.domain.listing import Listing
from services.router.operations import OPERATIONS
from tests.router.rig import said, text
from tests.router.test_growth import pieces
from tests.router.test_rescue import finished
from tests.router.world import World

PROVIDERS = [Provider(id=name, adapter="x", makes="text", base_url="x") for name in ("one", "two")]


def world_of(*rows: Model, listed: tuple[str, ...] = (), dollars: int = UNLIMITED) -> World:
    """Return a world whose provider `one` answers for any id, with what it lists and a key's limit in dollars."""
    world = World()
    rows = rows or (Model(id="*", provider="one"),)
    catalogue = Catalogue(PROVIDERS, rows, frozenset({"one", "two"}))
    lists = {"one": Listed(models={name: ListedModel(id=name) for name in listed})} if listed else {}
    world.catalogue = catalogue.with_listed(lists)
    ledger: Any = world.ledger
    ledger.free = lambda enough: Amount(ledger.left, 0, dollars)
    return world


def fail(world: World, model: str) -> None:
    """Let a model fail as often as it is asked."""
    for _ in range(8):
        world.play(model, errors.UpstreamFailed("broken"))


async def test_an_unknown_length_reserves_8192_tokens_and_grows() -> None:
    """Neither context nor longest answer is known: 8,192 tokens are set aside, more as it grows, its provider is told
    no bound of ours."""
    world = world_of()
    needs: list[Amount] = []
    lend = world.ledger.lend
    ledger: Any = world.ledger

    async def reserve(key: str, *, need: Amount, **_: Any) -> Any:
        needs.append(need)
        return lend(need.tokens)

    ledger.reserve = reserve
    world.play("new-1", *pieces(100), finished(10, 10_000))
    got, _, answer = await world.ask(model="new-1", max_tokens=None)
    assert answer.model.full_id == "one/new-1"
    assert needs[0].tokens - 26 == 8192
    assert world.asked[0].bound == 0
    assert world.ledger.extended
    assert len(got) == 100 * len(" word" * 80)
    assert world.ledger.rows == [("r1", 10, 10_000, "new-1")]


async def test_a_limit_in_dollars_needs_a_price() -> None:
    """Under one, what costs nobody knows how much is refused with what to do; its price assumed, it is answered."""
    world = world_of(dollars=10**12)
    with pytest.raises(PermissionDenied, match="use a model with a price, or have the operator set `assume_price`"):
        await world.ask(model="new-1")
    assert not world.asked
    priced = world_of(Model(id="*", provider="one", assume_price=Prices(input=1, output=2)), dollars=10**12)
    got, _, _ = await priced.ask(model="new-1")
    assert got == "I am new-1"


async def test_a_budget_in_dollars_needs_a_price_too() -> None:
    """Where a request counts on one, by the model that it names and its tags, and nowhere else."""
    world = world_of()
    ledger: Any = world.ledger
    bound = SimpleNamespace(free=lambda enough: Amount(ledger.left, 0, 10**12))
    counts = ("one", "new-1", ("x",))
    ledger.asking = lambda provider, model, tags: bound if (provider, model, tags) == counts else ledger
    tagged = Caller(key="k", request_id="rid", tags=frozenset({"x"}))
    with pytest.raises(PermissionDenied, match="this key is under a limit in dollars"):
        await world.ask(model="new-1", caller=tagged)
    assert (await world.ask(model="new-2", caller=tagged))[0] == "I am new-2"
    assert (await world.ask(model="new-1"))[0] == "I am new-1"


async def test_without_a_limit_in_dollars_an_unknown_price_is_no_matter() -> None:
    """Nor is it for a caller who pays the provider: both are answered."""
    world = world_of()
    assert (await world.ask(model="new-1"))[0] == "I am new-1"


async def test_a_fallback_without_a_price_is_passed_over_under_a_limit_in_dollars() -> None:
    """Where a limit is in dollars, a priced model does not fall back to one whose price nobody knows."""
    rows = (
        Model(id="a", provider="two", fallback=("one/new-1",), prices=Prices(input=1)),
        Model(id="*", provider="one"),
    )
    free = world_of(*rows)
    fail(free, "a")
    assert (await free.ask(model="a"))[0] == "I am new-1"
    limited = world_of(*rows, dollars=10**12)
    fail(limited, "a")
    with pytest.raises(errors.UpstreamFailed):
        await limited.ask(model="a")
    assert set(limited.order) == {"a"}


async def test_a_key_is_held_to_its_models() -> None:
    """What a key may not use it may not use by any id that a row covers."""
    world = world_of(Model(id="*", provider="one"), Model(id="a", provider="two", fallback=("one/new-1",)))
    world.ledger.forbidden = {"new-1"}
    fail(world, "a")
    with pytest.raises(errors.UpstreamFailed):
        await world.ask(model="a")
    assert "new-1" not in world.order


async def test_callers_names_make_no_new_labels() -> None:
    """A caller that asks for ever new ids leaves one label and one breaker; what the provider lists has its own."""
    world = world_of(listed=("listed-1",))
    for number in range(LIMIT):
        fail(world, f"hostile-{number}")
        with pytest.raises(errors.UpstreamFailed):
            await world.ask(model=f"one/hostile-{number}", caller=Caller(key="k", request_id="r", fallback=False))
    world.play("listed-1", text(said("yes")), finished(1, 1))
    await world.ask(model="listed-1")
    assert len(world.breakers) == 1
    model = world.catalogue.find("one/hostile-0")
    assert world.breakers.is_open(model)
    labels = {labels["model"] for labels in _labels() if labels["provider"] == "one"}
    assert "*" in labels
    assert not any(label.startswith("hostile") for label in labels)


def _labels() -> list[dict[str, str]]:
    return [sample.labels for metric in metrics.ATTEMPTS_FAILED.collect() for sample in metric.samples]


def _described(*rows: Model, name: str, listed: tuple[str, ...] = ()) -> Description:
    world = world_of(*rows, listed=listed)
    return described(world.catalogue, world.catalogue.find(name))


def test_what_is_not_known_is_told_as_such() -> None:
    """Of an id that is only listed nothing is known; of a row what it says; a price in dollars with its tiers."""
    nothing = Description(None, None, None, None, None, None, None, None, ())
    assert _described(name="new-1", listed=("new-1",)) == nothing
    tier = PriceTier(above=100, input=4.5)
    images = (ImagePrice(usd=0.02, quality="low"),)
    row = Model(
        id="a",
        provider="one",
        context_tokens=10,
        capabilities=frozenset({"vision"}),
        prices=Prices(since=dt.date(2026, 1, 2), input=1.5, output=0, tiers=(tier,), images=images),
        retirement=Retirement(date=dt.date(2090, 1, 1), successor="b"),
    )
    found = _described(row, Model(id="b", provider="one"), name="a")
    assert found == Description(
        context_tokens=10,
        max_output_tokens=None,
        inputs=("text", "image"),
        outputs=("text",),
        capabilities=["vision"],
        prices={
            "since": "2026-01-02",
            "input": 1.5,
            "output": 0.0,
            "tiers": [{"above": 100, "input": 4.5}],
            "images": [{"usd": 0.02, "quality": "low"}],
        },
        retires=dt.date(2090, 1, 1),
        successor="b",
        loras=(),
    )


async def test_a_key_sees_what_it_may_use_of_what_is_listed() -> None:
    """Permissions hold for discovered ids; who brings a key of one's own sees nothing of the operator's lists."""
    world = world_of(Model(id="a", provider="one"), Model(id="*", provider="one"), listed=("seen", "hidden"))
    world.ledger.forbidden = {"hidden"}
    listing = Listing(operations=OPERATIONS, catalogue=lambda: world.catalogue, admission=world.ledger)
    seen = await listing.models(Caller(key="k", request_id="r"))
    assert [model.id for model in seen] == ["a", "seen"]
    assert await listing.models(Caller(key="k", request_id="r", own_key="AIza")) == []
    with pytest.raises(PermissionDenied):
        await listing.model(Caller(key="k", request_id="r"), "hidden")
    assert (await listing.model(Caller(key="k", request_id="r"), "seen-latest")).id == "seen"


async def test_no_two_models_are_listed_alike() -> None:
    """What two providers list is the first one's by its name alone, whichever list came first, and the other's with its
    provider's before it: each is answered by that, and pages go on behind it."""
    rows = (Model(id="*", provider="one"), Model(id="*", provider="two"))
    lists = {name: Listed(models={"same": ListedModel(id="same")}) for name in ("two", "one")}
    catalogue = Catalogue(PROVIDERS, rows, frozenset({"one", "two"})).with_listed(lists)
    world = World()
    listing = Listing(operations=OPERATIONS, catalogue=lambda: catalogue, admission=world.ledger)
    caller = Caller(key="k", request_id="r")
    models = await listing.models(caller)
    assert [(listing.name(model), model.full_id) for model in models] == [
        ("same", "one/same"),
        ("two/same", "two/same"),
    ]
    assert [(await listing.model(caller, listing.name(model))).full_id for model in models] == ["one/same", "two/same"]
    assert page_of(models, "same", 1, listing.name) == [models[1]]
    assert page_of(models, "two/same", 1, listing.name) == []
    shown = await google.page(listing, caller, 9, "")
    assert [each["name"] for each in shown["models"]] == ["models/same", "models/two/same"]


@pytest.mark.parametrize(
    ("after", "limit", "ids"),
    [("", 0, "abc"), ("", 2, "ab"), ("b", 0, "c"), ("a", 1, "b"), ("one/a", 0, "bc"), ("c", 5, "")],
)
def test_a_list_comes_in_pages_for_who_wants_them(after: str, limit: int, ids: str) -> None:
    """`after` names the model before the first, `limit` how many there are."""
    models = [Model(id=name, provider="one") for name in "abc"]
    assert [model.id for model in page_of(models, after, limit, lambda model: model.id)] == list(ids)


@pytest.mark.parametrize(("after", "limit", "param"), [("x", 0, "after"), ("", -1, "limit")])
def test_a_page_that_is_none_is_refused(after: str, limit: int, param: str) -> None:
    """A name that is not in the list, or a size below zero."""
    with pytest.raises(errors.InvalidField) as refused:
        page_of([Model(id="a", provider="one")], after, limit, lambda model: model.id)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("name", "makes", "found"),
    [
        ("gemini-99", "text", "own-text/gemini-99"),
        ("gemini-99", "", "own-text/gemini-99"),
        ("gemini-99-image", "", "own-image/gemini-99-image"),
        ("models/gemini-99", "text", "own-text/gemini-99"),
        ("kept", "text", "own-text/kept"),
        ("gpt-99", "image", ""),
    ],
)
def test_who_brings_a_key_asks_its_provider_for_any_model(name: str, makes: str, found: str) -> None:
    """Whatever the operator has configured: an id that no row has is that provider's, by its wildcard rows."""
    own = [
        Provider(id="own-text", adapter="gemini", makes="text", base_url="x", caller_keys="AIza", prefixes=("models",)),
        Provider(id="own-image", adapter="gemini", makes="image", base_url="x", caller_keys="AIza"),
    ]
    rows = [
        Model(id="kept", provider="one"),
        Model(id="kept", provider="own-text"),
        Model(id="*", provider="one"),
        Model(id="*", provider="own-text", deny=("*-image",)),
        Model(id="*-image", provider="own-image"),
    ]
    catalogue = Catalogue([*PROVIDERS, *own], rows, frozenset({"one"}))
    model = find(catalogue, name, provider="", makes=makes, own_key="AIza-1")
    assert model.full_id == (found or "one/gpt-99")
    assert find(catalogue, "kept", provider="", makes="text", own_key="").full_id == "one/kept"
