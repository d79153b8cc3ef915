"""The chooser of virtual models' targets: laws over many requests, of chance and of any measurements."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.catalogue import Catalogue, Model, Provider, Route, RouteTarget, When
from services.router.domain.choice import Chosen, choose

NAMES = "abcdefgh"
MODELS = {name: Model(id=name, provider="p") for name in NAMES}


@dataclass
class Facts:
    """A request."""

    prompt_tokens: int = 10
    modalities: frozenset[str] = frozenset({"text"})
    needs: frozenset[str] = frozenset({"text"})
    tags: frozenset[str] = frozenset()
    sticky_key: str = ""
    prices: Mapping[str, int | None] = field(default_factory=dict)

    def price(self, model: Model) -> int | None:
        return self.prices.get(model.id)


@dataclass
class View:
    """Measurements."""

    running: Mapping[str, int] = field(default_factory=dict)
    first: Mapping[str, float] = field(default_factory=dict)
    tokens: Mapping[str, float] = field(default_factory=dict)
    room: Mapping[str, float] = field(default_factory=dict)

    def outstanding(self, model: Model) -> int:
        return self.running.get(model.id, 0)

    def first_token_s(self, model: Model) -> float | None:
        return self.first.get(model.id)

    def per_token_s(self, model: Model) -> float | None:
        return self.tokens.get(model.id)

    def left(self, model: Model, tokens: int) -> float:
        return self.room.get(model.id, 1.0)


def catalogue(*routes: Route) -> Catalogue:
    provider = Provider(id="p", adapter="x", makes="text", base_url="x")
    return Catalogue([provider], MODELS.values(), frozenset({"p"}), routes)


def route(*targets: RouteTarget | str, name: str = "r", **more: Any) -> Route:
    rows = tuple(one if isinstance(one, RouteTarget) else RouteTarget(model=one) for one in targets)
    return Route(id=name, targets=rows, **more)


class Chooser:
    """Chooses for one virtual model, by a chance of its own."""

    def __init__(self, *routes: Route, able: Callable[[str], bool] = lambda name: True) -> None:
        self._catalogue = catalogue(*routes)
        self._virtual = self._catalogue.find(routes[0].id)
        self._random = random.Random(7)
        self.able = able

    def chosen(self, facts: Facts | None = None, view: View | None = None) -> Chosen:
        return choose(
            self._virtual,
            facts or Facts(),
            view or View(),
            behind=self._catalogue.route,
            leaf=lambda model: model if self.able(model.id) else None,
            chance=self._random.random,
        )

    def order(self, facts: Facts | None = None, view: View | None = None) -> str:
        return "".join(model.id for model in self.chosen(facts, view).order)


def within_statistics(count: int, total: int, share: float) -> bool:
    """Return whether a count is where 5 standard deviations around its share are."""
    return abs(count - total * share) <= 5 * math.sqrt(total * share * (1 - share)) + 1


@settings(max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), st.booleans())
def test_weights_hold_within_statistics(weights: Sequence[int], sticky: bool) -> None:
    """Each target is first for its part of the weight, drawn anew or by the conversation; weight 0 is last."""
    rows = [RouteTarget(model=name, weight=weight) for name, weight in zip(NAMES, weights, strict=False)]
    chooser = Chooser(route(*rows, strategy="weighted", sticky=sticky))
    total = 400
    orders = [chooser.order(Facts(sticky_key=str(number) if sticky else "")) for number in range(total)]
    firsts = Counter(order[0] for order in orders)
    for row in rows:
        assert within_statistics(firsts[row.model], total, row.weight / sum(weights))
    assert {"".join(sorted(order)) for order in orders} == {"".join(row.model for row in rows)}


@settings(max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=8), st.data())
def test_the_loss_of_a_target_moves_its_conversations_alone(weights: Sequence[int], data: st.DataObject) -> None:
    """All others stay, whoever is lost and comes back: more than the 95% that providers' caches are worth."""
    rows = [RouteTarget(model=name, weight=weight) for name, weight in zip(NAMES, weights, strict=False)]
    chooser = Chooser(route(*rows, sticky=True, strategy="weighted"))
    lost = data.draw(st.sampled_from([row.model for row in rows]))
    before = {key: chooser.order(Facts(sticky_key=key)) for key in map(str, range(60))}
    chooser.able = lambda name: name != lost
    for key, order in before.items():
        assert chooser.order(Facts(sticky_key=key)) == order.replace(lost, "")
    chooser.able = lambda name: True
    assert {key: chooser.order(Facts(sticky_key=key)) for key in before} == before


@pytest.mark.parametrize("sticky", [False, True])
def test_canaries_have_their_share_and_shadows_theirs(sticky: bool) -> None:
    """A canary is first for its share and gets nothing of the rest; a shadow is beside the order, whoever is in it."""
    rows = (
        *("a", RouteTarget(model="b", canary=0.1), RouteTarget(model="c", canary=0.2)),
        RouteTarget(model="d", shadow=0.25),
    )
    chooser = Chooser(route(*rows, sticky=sticky))
    total = 4000
    all_chosen = [chooser.chosen(Facts(sticky_key=str(number))) for number in range(total)]
    orders = Counter("".join(model.id for model in chosen.order) for chosen in all_chosen)
    assert set(orders) == {"a", "ba", "ca"}
    assert within_statistics(orders["ba"], total, 0.1)
    assert within_statistics(orders["ca"], total, 0.2)
    shadowed = sum([model.id for model in chosen.shadows] == ["d"] for chosen in all_chosen)
    assert within_statistics(shadowed, total, 0.25)


def test_shadows_of_a_virtual_model_that_is_named_are_of_its_own_requests() -> None:
    """One behind a small canary shadows what the canary is asked, not all requests of the outer one."""
    inner = route("b", RouteTarget(model="d", shadow=1.0), name="inner")
    outer = route("a", RouteTarget(model="inner", canary=0.1), RouteTarget(model="c", shadow=1.0), name="r")
    chooser = Chooser(outer, inner)
    for _ in range(200):
        chosen = chooser.chosen()
        assert [model.id for model in chosen.shadows] == (["c", "d"] if chosen.order[0].id == "b" else ["c"])


def test_a_conversation_stays_with_its_canary() -> None:
    """It is the conversation that is drawn, not each of its turns."""
    chooser = Chooser(route("a", RouteTarget(model="b", canary=0.5), sticky=True))
    for key in map(str, range(20)):
        assert len({chooser.order(Facts(sticky_key=key)) for _ in range(5)}) == 1


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 50), min_size=4))
def test_least_outstanding_is_by_weight(running: Mapping[str, int]) -> None:
    """A target of twice the weight may have twice as many calls."""
    rows = [RouteTarget(model=name, weight=2 if name == "a" else 1) for name in "abcd"]
    order = Chooser(route(*rows, strategy="least_outstanding")).order(view=View(running=running))
    loads = [(running[name] + 1) / (2 if name == "a" else 1) for name in order]
    assert loads == sorted(loads)


@given(st.dictionaries(st.sampled_from("abcd"), st.none() | st.integers(0, 9), min_size=4))
def test_the_lowest_price_is_first_and_an_unknown_one_last(prices: Mapping[str, int | None]) -> None:
    """Of equal ones the first declared: what is not known is never taken for cheap."""
    order = Chooser(route(*"abcd", strategy="lowest_price")).order(Facts(prices=prices))
    known = [math.inf if prices[name] is None else float(prices[name] or 0) for name in order]
    assert known == sorted(known)
    ranked = list(zip(known, order, strict=True))
    assert ranked == sorted(ranked)


@pytest.mark.parametrize("strategy", ["first_token", "per_token"])
def test_the_quickest_is_first_and_the_loads_of_alike_ones_are_evened(strategy: str) -> None:
    """Within a fifth of the quickest the least loaded is asked; slower ones come by their latency."""
    chooser = Chooser(route(*"abcd", strategy=strategy))
    latencies = {"a": 3.0, "b": 1.1, "c": 1.0, "d": 2.0}
    view = View(first=latencies, tokens=latencies, running={"c": 4, "b": 1})
    assert chooser.order(view=view) == "bcda"


def test_an_unmeasured_target_is_asked_by_one_request_at_a_time() -> None:
    """So that it is measured, and the others do not wait for what may be slow."""
    chooser = Chooser(route(*"abc", strategy="first_token"))
    assert chooser.order(view=View(first={"a": 1.0, "b": 9.0}))[0] == "c"
    assert chooser.order(view=View(first={"a": 1.0, "b": 9.0}, running={"c": 1})) == "abc"


def test_what_is_left_of_upstream_limits_decides() -> None:
    """The key of which most is left is first; one that would refuse is last whatever the strategy, and not dropped."""
    room = {"a": 0.0, "b": 0.2, "c": 0.9}
    assert Chooser(route(*"abc", strategy="most_headroom")).order(view=View(room=room)) == "cba"
    assert Chooser(route(*"abc")).order(view=View(room=room)) == "bca"


@pytest.mark.parametrize(
    ("when", "facts", "why"),
    [
        (When(tags=("eu", "uk")), Facts(), "the tag eu or uk"),
        (When(tags=("eu", "uk")), Facts(tags=frozenset({"uk", "x"})), ""),
        (When(without_tags=("batch",)), Facts(tags=frozenset({"batch"})), "without the tag batch"),
        (When(min_prompt_tokens=11), Facts(), "at least 11 tokens, and this one has about 10"),
        (When(max_prompt_tokens=9), Facts(), "at most 9 tokens, and this one has about 10"),
        (When(min_prompt_tokens=10, max_prompt_tokens=10), Facts(), ""),
        (When(modalities=("text",)), Facts(modalities=frozenset({"text", "image"})), "text alone, .* holds image"),
        (When(needs=("image",)), Facts(), "that need image"),
        (When(needs=("image", "tools")), Facts(needs=frozenset({"image", "tools", "text"})), ""),
    ],
)
def test_conditions(when: When, facts: Facts, why: str) -> None:
    """A target whose condition the request does not meet is not asked, and the condition is told."""
    chosen = Chooser(route(RouteTarget(model="a", when=when), "b")).chosen(facts)
    assert [model.id for model in chosen.order] == (["b"] if why else ["a", "b"])
    if why:
        [(name, told)] = chosen.unfit
        assert name == "a"
        assert re.search(why, told)
    else:
        assert not chosen.unfit


def test_what_does_not_fit_its_context_is_asked_last() -> None:
    """By the estimate, which may be wrong: it is not dropped."""
    small = Model(id="small", provider="p", context_tokens=9)
    provider = Provider(id="p", adapter="x", makes="text", base_url="x")
    found = Catalogue([provider], [small, MODELS["a"]], frozenset({"p"}), [route("small", "a")])
    chosen = choose(
        found.find("r"),
        Facts(),
        View(),
        behind=found.route,
        leaf=lambda model: model,
        chance=lambda: 0.5,
    )
    assert [model.id for model in chosen.order] == ["a", "small"]


def test_a_virtual_model_among_targets_is_ordered_by_its_own_strategy() -> None:
    """It stands where its outer one puts it, as its best target; a model that comes twice is asked once."""
    outer = route("a", RouteTarget(model="inner"), "c", name="outer")
    inner = route("b", "c", "d", name="inner", strategy="lowest_price")
    chooser = Chooser(outer, inner)
    assert chooser.order(Facts(prices={"b": 3, "c": 2, "d": 1})) == "adcb"


@settings(max_examples=30)
@given(st.sampled_from(["ordered", "weighted", "least_outstanding", "lowest_price", "first_token"]), st.data())
def test_whoever_can_do_it_is_in_the_order_once(strategy: str, data: st.DataObject) -> None:
    """Whatever was measured: none that can is left out, none that cannot is in."""
    able = data.draw(st.sets(st.sampled_from(NAMES)))
    numbers = st.dictionaries(st.sampled_from(NAMES), st.floats(0, 10))
    view = View(first=data.draw(numbers), room=data.draw(numbers))
    key = data.draw(st.sampled_from(["", "k"]))
    chooser = Chooser(route(*NAMES, strategy=strategy, sticky=bool(key)), able=lambda name: name in able)
    order = chooser.order(Facts(sticky_key=key), view)
    assert sorted(order) == sorted(able)
