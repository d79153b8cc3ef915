"""Virtual models and providers' variants in a snapshot: what stands behind their names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from services.catalogue._model import Model, Provider
from services.catalogue._route import ADAPTER, Route, RouteTarget, provider_of

_MOST_VARIED: Final = 1024
"""How many rows of variants are kept: some models' names come from callers."""

RouteTargets = tuple[tuple[RouteTarget, Model], ...]
"""A virtual model's targets, each with the model that it names."""


class Variants:
    """Providers' variants, by `provider@variant`."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._bases = {f"{p.id}@{name}": p.id for p in providers for name in p.variants}
        self._rows: dict[str, Model] = {}
        self.exist = bool(self._bases)
        """Whether there are any."""

    def base(self, provider: str) -> str:
        """Return the provider that a variant is one of; of no variant itself."""
        return self._bases.get(provider, provider)

    def of(self, name: str, provider: str) -> tuple[str, str] | None:
        """Return the variant that a model's name is of, and its name there; None where it is of none."""
        if not provider:
            provider, _, name = name.partition("/")
        return (provider, name) if provider in self._bases else None

    def row(self, variant: str, model: Model) -> Model:
        """Return a provider's model as its variant's: the same one for the same model."""
        known = self._rows.get(f"{variant}/{model.id}")
        if known is None:
            if len(self._rows) >= _MOST_VARIED:
                self._rows.clear()
            known = self._rows[f"{variant}/{model.id}"] = msgspec.structs.replace(model, provider=variant)
        return known


def variants_of(providers: Iterable[Provider]) -> list[Provider]:
    """Return providers with their variants behind each: rows of their own, named `provider@variant`."""
    found: list[Provider] = []
    for provider in providers:
        found.append(provider)
        for name, variant in provider.variants.items():
            changes: dict[str, Any] = {"id": f"{provider.id}@{name}", "variants": {}}
            if variant.base_url:
                changes["base_url"] = variant.base_url
            if variant.credentials:
                changes |= {"credentials": variant.credentials, "alternatives": ()}
            if variant.rates is not None:
                changes["rates"] = variant.rates
            if variant.options:
                changes["options"] = {**provider.options, **variant.options}
            found.append(msgspec.structs.replace(provider, **changes))
    return found


class VirtualModels:
    """The virtual models of a snapshot, which hold together.

    Args:
        routes: Their rows.
        find: Finds a model by its name.
        makes: Tells what a model makes.
    """

    def __init__(self, routes: Iterable[Route], find: Callable[[str], Model], makes: Callable[[Model], str]) -> None:
        rows = {route.id: route for route in routes}
        self._made: dict[str, tuple[Model, str]] = {}
        self._targets: dict[str, tuple[Route, RouteTargets]] = {}
        self.models = tuple(self._virtual(route, rows, find, makes)[0] for route in rows.values())
        """As listings show them, in the file's order."""

    def _virtual(
        self, route: Route, rows: Mapping[str, Route], find: Callable[[str], Model], makes_of: Callable[[Model], str]
    ) -> tuple[Model, str]:
        """Return a virtual model and what it makes; those that it names are made before it."""
        if route.id not in self._made:
            named: list[Model] = []
            makes = ""
            for target in route.targets:
                if target.model in rows:
                    model, makes = self._virtual(rows[target.model], rows, find, makes_of)
                else:
                    model = find(target.model)
                    makes = makes_of(model)
                named.append(model)
            made = _listed(route, makes, named)
            self._targets[made.full_id] = (route, tuple(zip(route.targets, named, strict=True)))
            self._made[route.id] = (made, makes)
        return self._made[route.id]

    def providers(self) -> dict[str, Provider]:
        """Return the providers that they are listed under."""
        kinds: dict[str, Any] = {model.provider: makes for model, makes in self._made.values()}
        return {name: Provider(id=name, adapter=ADAPTER, makes=makes) for name, makes in kinds.items()}

    def of(self, model: Model) -> tuple[Route, RouteTargets] | None:
        """Return what a virtual model stands for; None for other models."""
        return self._targets.get(model.full_id) if self._targets else None

    def leaves(self, model: Model) -> Iterable[Model]:
        """Yield the models that may answer for one: itself, or a virtual one's targets, shadows aside."""
        virtual = self.of(model)
        if virtual is None:
            yield model
            return
        for target, each in virtual[1]:
            if target.shadow is None:
                yield from self.leaves(each)


def _listed(route: Route, makes: str, targets: Iterable[Model]) -> Model:
    """Return a virtual model as listings show it: it can do what any of its targets can."""
    known = tuple(targets)
    contexts, outputs = [m.context_tokens for m in known], [m.max_output_tokens for m in known]
    return Model(
        id=route.id,
        provider=provider_of(makes),
        created=route.created,
        capabilities=frozenset[str]().union(*(model.capabilities for model in known)),
        context_tokens=max(contexts) if all(contexts) else 0,
        max_output_tokens=max(outputs) if all(outputs) else 0,
        credits=max(model.credits for model in known),
    )
