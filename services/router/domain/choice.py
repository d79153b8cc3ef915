"""Which of a virtual model's targets are asked, and in which order: told by the request and recent measurements alone.

Nothing here waits, asks or remembers. `docs/routing.md` tells operators what each strategy does.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from services.catalogue import Model, Route, RouteTarget, When

BAND: Final = 1.2
"""Targets whose latency is at most so many times the lowest are alike: of them the least loaded is asked."""
_SPACE: Final = 2.0**64


class Facts(Protocol):
    """What a request says of itself."""

    @property
    def prompt_tokens(self) -> int:
        """Its prompt's tokens, estimated."""

    @property
    def modalities(self) -> frozenset[str]:
        """What its prompt holds: `text`, `image`, `audio`, `video`, `file`."""

    @property
    def needs(self) -> frozenset[str]:
        """What a model must be able to do for it, its modalities included."""

    @property
    def tags(self) -> frozenset[str]:
        """What its caller calls it."""

    @property
    def sticky_key(self) -> str:
        """What is the same for all requests of a conversation; empty where nothing is."""

    def price(self, model: Model) -> int | None:
        """Return what it would cost at a model, in nano-dollars; None where that is not known."""


class View(Protocol):
    """What was measured of targets lately."""

    def outstanding(self, model: Model) -> int:
        """Return how many calls of it are running."""

    def first_token_s(self, model: Model) -> float | None:
        """Return how long it took lately until it said something; None: not known any more."""

    def per_token_s(self, model: Model) -> float | None:
        """Return how long a token took lately."""

    def left(self, model: Model, tokens: int) -> float:
        """Return what share of its provider's limits is left, from 0 to 1; 0: a request of so many tokens is refused.

        1 where no limit is known.
        """


Leaf = Callable[[Model], Model | None]
"""Returns who answers for a model that a target names; None where it cannot do the request."""
Behind = Callable[[Model], tuple[Route, Sequence[tuple[RouteTarget, Model]]] | None]
"""Returns what a virtual model stands for; None for other models."""


@dataclass(slots=True)
class Chosen:
    """Who is asked."""

    order: list[Model] = field(default_factory=list)
    """Who may answer: the first is asked, the next when it fails."""
    shadows: list[Model] = field(default_factory=list)
    """Who is asked too, for an answer that nobody gets."""
    unfit: list[tuple[str, str]] = field(default_factory=list)
    """Targets whose conditions the request does not meet, and which one."""


class _Entry(NamedTuple):
    """A target with the models that it comes to, in the order in which they are asked."""

    target: RouteTarget
    models: list[Model]
    shadows: list[Model]
    """Who is asked too, where this target is the first."""

    @property
    def best(self) -> Model:
        return self.models[0]


def choose(
    virtual: Model, facts: Facts, view: View, *, behind: Behind, leaf: Leaf, chance: Callable[[], float]
) -> Chosen:
    """Return who is asked for a virtual model, in order.

    Args:
        chance: Returns a number from 0 to 1.
    """
    chosen = Chosen()
    models, chosen.shadows = _ordered(virtual, facts, view, behind, leaf, chance, chosen)
    distinct = {model.full_id: model for model in models}
    # What would not fit or would be refused is asked when nothing else is left: estimates may be wrong.
    chosen.order = sorted(distinct.values(), key=lambda model: _doubtful(model, facts, view))
    return chosen


def unmet(when: When, facts: Facts) -> str:
    """Return which of a target's conditions a request does not meet; empty where it meets all."""
    if when.tags and facts.tags.isdisjoint(when.tags):
        return f"it is for requests with the tag {' or '.join(when.tags)}"
    if when.without_tags and (found := sorted(facts.tags.intersection(when.without_tags))):
        return f"it is for requests without the tag {found[0]}"
    if facts.prompt_tokens < when.min_prompt_tokens:
        return f"it is for prompts of at least {when.min_prompt_tokens} tokens, and this one has about {_size(facts)}"
    if when.max_prompt_tokens is not None and facts.prompt_tokens > when.max_prompt_tokens:
        return f"it is for prompts of at most {when.max_prompt_tokens} tokens, and this one has about {_size(facts)}"
    if when.modalities is not None and (other := sorted(facts.modalities.difference(when.modalities))):
        return f"it is for {' and '.join(when.modalities)} alone, and this prompt holds {other[0]}"
    if when.needs and (lacking := sorted(set(when.needs) - facts.needs)):
        return f"it is for requests that need {lacking[0]}"
    return ""


def _size(facts: Facts) -> str:
    return str(facts.prompt_tokens)


def _doubtful(model: Model, facts: Facts, view: View) -> int:
    if model.context_tokens and facts.prompt_tokens > model.context_tokens:
        return 2
    return 1 if view.left(model, facts.prompt_tokens) <= 0 else 0


def _ordered(
    virtual: Model,
    facts: Facts,
    view: View,
    behind: Behind,
    leaf: Leaf,
    chance: Callable[[], float],
    chosen: Chosen,
) -> tuple[list[Model], list[Model]]:
    """Return the models that a virtual model comes to, and its shadows; note what its targets' conditions were.

    The shadows of a virtual model that it names count where that one is first: its requests are those that it is asked.
    """
    found = behind(virtual)
    if found is None:
        return ([] if (model := leaf(virtual)) is None else [model]), []
    route, targets = found
    shadows: list[Model] = []
    entries: list[_Entry] = []
    canaries: list[_Entry] = []
    for target, named in targets:
        if why := unmet(target.when, facts):
            chosen.unfit.append((target.model, why))
            continue
        if target.shadow is not None and chance() >= target.shadow:
            continue
        models, shadowing = _ordered(named, facts, view, behind, leaf, chance, chosen)
        if not models:
            continue
        if target.shadow is not None:
            shadows += models
        else:
            (entries if target.canary is None else canaries).append(_Entry(target, models, shadowing))
    key = facts.sticky_key if route.sticky else ""
    first = _canary(canaries, _uniform(key, f"canary of {route.id}") if key else chance) if canaries else []
    ordered = _rendezvous(entries, key) if key else _by_strategy(route, entries, facts, view, chance)
    asked = [*first, *ordered]
    return [model for entry in asked for model in entry.models], shadows + (asked[0].shadows if asked else [])


def _canary(canaries: Sequence[_Entry], drawn: Callable[[], float]) -> list[_Entry]:
    """Return the canary that this request goes to; none for most requests."""
    at = drawn()
    for entry in canaries:
        at -= entry.target.canary or 0.0
        if at < 0:
            return [entry]
    return []


def _uniform(key: str, name: str) -> Callable[[], float]:
    """Return what returns a number from 0 to 1 that is the same for the same key and name."""
    digest = hashlib.blake2b(name.encode(), key=hashlib.blake2b(key.encode(), digest_size=32).digest(), digest_size=8)
    return lambda: (int.from_bytes(digest.digest()) + 0.5) / _SPACE


def _rendezvous(entries: Sequence[_Entry], key: str) -> list[_Entry]:
    """Return the targets in a key's own order: the loss of one moves its keys alone, and to all others by weight."""
    return _race(entries, lambda entry: _uniform(key, entry.target.model)())


def _race(entries: Sequence[_Entry], uniform: Callable[[_Entry], float]) -> list[_Entry]:
    """Return the targets as drawn one after another, each by its weight; those of no weight last, as declared."""

    def arrival(entry: _Entry) -> float:
        weight = entry.target.weight
        return -math.log(max(uniform(entry), 1 / _SPACE)) / weight if weight else math.inf

    return sorted(entries, key=arrival)


def _by_strategy(
    route: Route, entries: Sequence[_Entry], facts: Facts, view: View, chance: Callable[[], float]
) -> Sequence[_Entry]:
    match route.strategy:
        case "weighted":
            return _race(entries, lambda _: chance())
        case "lowest_price":
            return _lowest(entries, lambda entry: _known(facts.price(entry.best)))
        case "least_outstanding":
            return _lowest(entries, lambda entry: (_load(entry, view), chance()))
        case "most_headroom":
            tokens = facts.prompt_tokens
            return _lowest(
                entries, lambda entry: (-round(view.left(entry.best, tokens), 2), _load(entry, view), chance())
            )
        case "first_token":
            return _quickest(entries, view.first_token_s, view, chance)
        case "per_token":
            return _quickest(entries, view.per_token_s, view, chance)
        case _:
            return entries


def _lowest(entries: Sequence[_Entry], key: Callable[[_Entry], object]) -> list[_Entry]:
    return sorted(entries, key=key)  # type: ignore[arg-type]  # numbers, or tuples of them


def _known(price: int | None) -> float:
    return math.inf if price is None else price


def _load(entry: _Entry, view: View) -> float:
    """Return how many calls run, for each part of the weight."""
    return (view.outstanding(entry.best) + 1) / entry.target.weight if entry.target.weight else math.inf


def _quickest(
    entries: Sequence[_Entry],
    measured: Callable[[Model], float | None],
    view: View,
    chance: Callable[[], float],
) -> list[_Entry]:
    """Return the targets by what was measured.

    One of which nothing is known is asked first, by one request at a time: so it is measured again, and while it is
    slow the others are not kept waiting. Among those that are about as quick as the quickest the least loaded comes
    first, or all requests would go to one until it is slow.
    """
    known = {entry.best.full_id: measured(entry.best) for entry in entries}
    lowest = min((value for value in known.values() if value is not None), default=0.0)

    def key(entry: _Entry) -> tuple[int, float, float]:
        value = known[entry.best.full_id]
        if value is None:
            return (0, 0.0, chance()) if not view.outstanding(entry.best) else (3, _load(entry, view), chance())
        if value <= lowest * BAND:
            return (1, _load(entry, view), chance())
        return (2, value, 0.0)

    return sorted(entries, key=key)
