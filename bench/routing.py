"""Show what each strategy of a virtual model does to latency and cost: `python -m bench.routing`.

The chooser and the measurements are the router's own; providers are played on a clock that runs as fast as it can, so
that the table is the same on every machine. `_TARGETS` says where their latencies and prices are from.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from moa.common.v1 import usage_pb2
from services.catalogue import Catalogue, Model, Prices, Provider, Route, RouteTarget
from services.router.domain.choice import choose
from services.router.domain.measures import Measures, Watch

_REQUESTS: Final = 20_000
_A_SECOND: Final = 4.0
"""Requests that arrive, at random moments."""
_TURNS: Final = 6
"""Requests of a conversation."""
_TURN_TOKENS: Final = 700
"""By how much a conversation's prompt grows with each."""
_CACHE_S: Final = 300.0
"""How long a provider keeps the beginning of a prompt (OpenAI: five to ten minutes)."""
_NORMAL_95: Final = 1.645


class _Speed(NamedTuple):
    """How a played provider answers."""

    median_s: float
    """Until the first token."""
    p95_s: float
    tokens_per_s: float
    alike: int
    """So many calls at once are as quick as one; beyond, all are slower in proportion."""


_TARGETS: Final[dict[str, tuple[_Speed, Prices]]] = {
    # Median time to the first token, tokens a second and prices: Artificial Analysis, "GPT-5 (minimal): API provider
    # benchmarking". The tail, p95 / median = 3.0 / 1.1: a customer's measurements of gpt-5.4-mini at Azure, Microsoft
    # Q&A 5923658 (June 2026). How many calls are alike is assumed.
    "openai": (_Speed(0.89, 0.89 * 3.0 / 1.1, 80, 40), Prices(input=1.25, cached=0.125, output=10)),
    "azure": (_Speed(1.70, 1.70 * 3.0 / 1.1, 155, 40), Prices(input=1.25, cached=0.125, output=10)),
    # gpt-4.1-mini: median, p95 and tokens a second from the same question, prices as OpenAI publishes them.
    "mini": (_Speed(0.90, 1.35, 79, 20), Prices(input=0.4, cached=0.1, output=1.6)),
}
_PAIR: Final = ("openai", "openai_eu")
"""The same provider in two regions, where a table needs a second target that is like the first."""
_TARGETS["openai_eu"] = _TARGETS["openai"]
_SPELL: Final = (0.4, 0.6)
"""Between these parts of the run the first target takes `_SLOWER` times as long to begin."""
_SLOWER: Final = 4.0


@dataclass
class _Facts:
    """A request."""

    conversation: str
    prompt_tokens: int
    completion_tokens: int
    models: dict[str, Model]
    modalities: frozenset[str] = frozenset({"text"})
    needs: frozenset[str] = frozenset({"text"})
    tags: frozenset[str] = frozenset()

    @property
    def sticky_key(self) -> str:
        return self.conversation

    def price(self, model: Model) -> int | None:
        usage = usage_pb2.Usage(prompt_tokens=self.prompt_tokens, completion_tokens=512)
        return model.cost_on()(usage, model.provider, model.id)


@dataclass
class _Outcome:
    """What a run came to."""

    first_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)
    callers_usd: float = 0.0
    operators_usd: float = 0.0
    answered: dict[str, int] = field(default_factory=dict)
    hedges: int = 0


class _Run:
    """One virtual model under load."""

    def __init__(self, **route: Any) -> None:
        names = route.pop("names", ("openai", "azure", "mini"))
        rows = tuple(RouteTarget(model=name, weight=2 if name != "mini" else 1) for name in names)
        self.route = Route(id="team", targets=rows, **route)
        provider = Provider(id="p", adapter="x", makes="text", base_url="x")
        rows_of_models = [Model(id=name, provider="p", prices=prices) for name, (_, prices) in _TARGETS.items()]
        self.catalogue = Catalogue([provider], rows_of_models, frozenset({"p"}), [self.route])
        self.models = {model.id: model for model in rows_of_models}
        self.now = 0.0
        self.random = random.Random(1)  # noqa: S311  # chance, and the same every time
        self.measures = Measures(lambda: self.now)
        self.outcome = _Outcome()
        self._events: list[tuple[float, int, Any]] = []
        self._order = itertools.count()
        self._running = dict.fromkeys(_TARGETS, 0)
        self._warm: dict[tuple[str, str], tuple[float, int]] = {}
        self._end_s = _REQUESTS / _A_SECOND

    def at(self, when: float, do: Any) -> None:
        """Do something at a time."""
        heapq.heappush(self._events, (when, next(self._order), do))

    def go(self) -> _Outcome:
        """Play all requests."""
        for when, facts in self._arrivals():
            self.at(when, lambda facts=facts: self._ask(facts))
        while self._events:
            self.now, _, do = heapq.heappop(self._events)
            do()
        return self.outcome

    def _arrivals(self) -> Iterator[tuple[float, _Facts]]:
        when = 0.0
        for number in range(_REQUESTS // _TURNS):
            when += self.random.expovariate(_A_SECOND / _TURNS)
            turn_at = when
            for turn in range(_TURNS):
                completion = max(20, round(self.random.gauss(200, 80)))
                yield turn_at, _Facts(str(number), _TURN_TOKENS * (turn + 1), completion, self.models)
                turn_at += 20 + self.random.expovariate(1 / 20)

    def _ask(self, facts: _Facts) -> None:
        chosen = choose(
            self.catalogue.find("team"),
            facts,
            self.measures.view(whole=False),
            behind=self.catalogue.route,
            leaf=lambda model: model,
            chance=self.random.random,
        )
        first, second = chosen.order[0], chosen.order[1]
        watch = self.measures.watch("team", whole=False, hedges=self.route.hedge)
        began, asked = self.now, _Call(self, watch, first, facts)
        after_s = watch.hedge_after_s(first)
        if after_s is None or asked.first_s <= after_s:
            self.at(began + asked.first_s, lambda: asked.win(began))
            return

        def hedge() -> None:
            if not watch.may_hedge():
                self.at(began + asked.first_s, lambda: asked.win(began))
                return
            self.outcome.hedges += 1
            other = _Call(self, watch, second, facts)
            ends = {began + asked.first_s: (asked, other), self.now + other.first_s: (other, asked)}
            when = min(ends)
            winner, loser = ends[when]

            def settle() -> None:
                winner.win(began)
                loser.lose()

            self.at(when, settle)

        self.at(began + after_s, hedge)

    def first_s(self, name: str) -> float:
        """Draw how long a target takes to begin."""
        speed, _ = _TARGETS[name]
        sigma = math.log(speed.p95_s / speed.median_s) / _NORMAL_95
        drawn = speed.median_s * math.exp(self.random.gauss(0, sigma)) * self.load(name)
        slow = name == next(iter(_TARGETS)) and _SPELL[0] <= self.now / self._end_s < _SPELL[1]
        return drawn * (_SLOWER if slow else 1.0)

    def load(self, name: str) -> float:
        """Return how many times as long all takes, for the calls that run."""
        return max(1.0, self._running[name] / _TARGETS[name][0].alike)

    def usage(self, name: str, facts: _Facts, completion: int) -> usage_pb2.Usage:
        """Return what a call consumes; the beginning of a prompt that its provider has seen is cached there."""
        seen_at, tokens = self._warm.get((name, facts.conversation), (-math.inf, 0))
        cached = tokens if self.now - seen_at < _CACHE_S else 0
        self._warm[name, facts.conversation] = (self.now, facts.prompt_tokens)
        return usage_pb2.Usage(prompt_tokens=facts.prompt_tokens, cached_tokens=cached, completion_tokens=completion)


class _Call:
    """One call of a target."""

    def __init__(self, run: _Run, watch: Watch, model: Model, facts: _Facts) -> None:
        self.run, self.watch, self.model, self.facts = run, watch, model, facts
        self.first_s = run.first_s(model.id)
        self._tokens_s = facts.completion_tokens / _TARGETS[model.id][0].tokens_per_s * run.load(model.id)
        run._running[model.id] += 1
        watch.asked(model)

    def _cost_usd(self, completion: int) -> float:
        usage = self.run.usage(self.model.id, self.facts, completion)
        return (self.model.cost_on()(usage, "p", self.model.id) or 0) / 1e9

    def win(self, began: float) -> None:
        """Begin to answer the caller, who asked at `began`."""
        run, outcome = self.run, self.run.outcome
        self.watch.began(self.model)
        outcome.first_s.append(run.now - began)
        outcome.whole_s.append(run.now - began + self._tokens_s)
        outcome.callers_usd += self._cost_usd(self.facts.completion_tokens)
        outcome.answered[self.model.id] = outcome.answered.get(self.model.id, 0) + 1
        run.at(run.now + self._tokens_s, self._end)

    def _end(self) -> None:
        usage = usage_pb2.Usage(completion_tokens=self.facts.completion_tokens)
        self.watch.finished(self.model, usage)
        self.run._running[self.model.id] -= 1

    def lose(self) -> None:
        """Be cancelled: its prompt is the operator's."""
        self.watch.ended(self.model, silent=True)
        self.run._running[self.model.id] -= 1
        self.run.outcome.operators_usd += self._cost_usd(0)


_ROUTES: Final[dict[str, dict[str, Any]]] = {
    "ordered": {},
    "weighted 2:2:1": {"strategy": "weighted"},
    "weighted, sticky": {"strategy": "weighted", "sticky": True},
    "least_outstanding": {"strategy": "least_outstanding"},
    "first_token": {"strategy": "first_token"},
    "per_token": {"strategy": "per_token"},
    "lowest_price": {"strategy": "lowest_price"},
    "two regions, ordered": {"names": _PAIR},
    "two regions, ordered, hedge": {"names": _PAIR, "hedge": True},
    "two regions, first_token": {"names": _PAIR, "strategy": "first_token"},
    "two regions, first_token, hedge": {"names": _PAIR, "strategy": "first_token", "hedge": True},
}


def _p(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def _ns(work: Any, count: int = 20_000) -> float:
    began = time.perf_counter_ns()
    for _ in range(count):
        work()
    return (time.perf_counter_ns() - began) / count


def _costs() -> None:
    """Print what choosing and measuring cost a request."""
    run = _Run(strategy="first_token")
    model, facts = run.models["openai"], _Facts("1", 700, 200, run.models)
    usage = usage_pb2.Usage(completion_tokens=200)

    def measured() -> None:
        watch = run.measures.watch("team", whole=False, hedges=True)
        watch.asked(model)
        watch.began(model)
        watch.hedge_after_s(model)
        watch.finished(model, usage)

    print(f"a request's measurements (its begin, first event and end): {_ns(measured) / 1000:.1f} us")
    for name, route in _ROUTES.items():
        one = _Run(**route)
        virtual = one.catalogue.find("team")

        def chosen(one: _Run = one, virtual: Model = virtual) -> None:
            view = one.measures.view(whole=False)
            choose(virtual, facts, view, behind=one.catalogue.route, leaf=lambda each: each, chance=one.random.random)

        print(f"choosing of three targets, {name}: {_ns(chosen, 5000) / 1000:.1f} us")
    plain = Catalogue(run.catalogue.providers.values(), run.models.values(), frozenset({"p"}))
    print(f"what a plain model pays, without virtual ones: {_ns(lambda: plain.route(model)):.0f} ns")
    print(f"what a plain model pays beside virtual ones: {_ns(lambda: run.catalogue.route(model)):.0f} ns")


def main() -> None:
    """Print the table of `docs/routing.md`, and what choosing costs."""
    print(
        "| strategy | first token p50, p95, p99 | whole p95 | callers, $ a 1,000 | operator, $ a 1,000 | answered by |"
    )
    print("|---|---|---|---|---|---|")
    for name, route in _ROUTES.items():
        out = _Run(**route).go()
        count = len(out.first_s)
        shares = ", ".join(f"{who} {share * 100 / count:.0f}%" for who, share in sorted(out.answered.items()))
        first = ", ".join(f"{_p(out.first_s, percent):.2f}" for percent in (50, 95, 99))
        dollars = " | ".join(f"{usd * 1000 / count:.2f}" for usd in (out.callers_usd, out.operators_usd))
        print(f"| {name} | {first} s | {_p(out.whole_s, 95):.1f} s | {dollars} | {shares} |")
    _costs()


if __name__ == "__main__":
    main()
