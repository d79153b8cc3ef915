"""One snapshot of the catalogue: the names that resolve to its models, and what is asked of them by name."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, Self, TypeVar

import msgspec

from moa.common.v1 import usage_pb2
from moa.image.v1 import image_service_pb2
from services.catalogue._facts import Book, Facts
from services.catalogue._listed import Listed
from services.catalogue._model import Model, Provider
from services.catalogue._price import Cost, at_factor, today
from services.catalogue._route import Route
from services.catalogue._virtual import RouteTargets, Variants, VirtualModels
from services.catalogue._wildcards import WildcardModel, Wildcards
from services.common.errors import ModelNotFound, NotFound

R = TypeVar("R")

_EMPTY: Final = Book()
SLICE: Final = 100
"""How many rows are worked on before others have their turn."""


class UnknownModel(ModelNotFound):
    """A name that no model has: whoever knows the caller can tell what it may have meant (`meant`).

    Args:
        name, provider, makes: What was asked for, and of whom, as `Catalogue.find` was told.
        may_be: Models of several providers, any of which may be meant: nobody knows which of them has it.
    """

    def __init__(
        self, message: str, *, param: str, name: str, provider: str, makes: str, may_be: Sequence[Model] = ()
    ) -> None:
        super().__init__(message, param=param)
        self.name = name
        self.provider = provider
        self.makes = makes
        self.may_be = may_be

    def with_step(self, step: str) -> ModelNotFound:
        """Return the refusal that says what to do."""
        return ModelNotFound(f"{self.message}; {step}", param=self.param)


class Catalogue:
    """An immutable snapshot of providers and models, with the names that resolve to them.

    Args:
        providers: In the order that listings show.
        models: Likewise. Ids are unique within a provider.
        configured: Ids of the providers that have all their credentials.
        routes: The virtual models, which hold together.
        book: The kept facts.

    Models that look at images for Moa's own services are apart, in `vision`: no call finds or lists them or their
    providers.
    """

    def __init__(
        self,
        providers: Iterable[Provider],
        models: Iterable[Model],
        configured: frozenset[str],
        routes: Iterable[Route] = (),
        book: Book = _EMPTY,
    ) -> None:
        finished(self._set(providers, models, configured, routes, book))

    @classmethod
    def assembled(
        cls,
        providers: Iterable[Provider],
        models: Iterable[Model],
        configured: frozenset[str],
        routes: Iterable[Route] = (),
        book: Book = _EMPTY,
    ) -> Generator[None, None, Self]:
        """Make a snapshot, `SLICE` models at a time: it yields between, and returns the snapshot."""
        made = cls.__new__(cls)
        yield from made._set(providers, models, configured, routes, book)
        return made

    def _set(
        self,
        providers: Iterable[Provider],
        models: Iterable[Model],
        configured: frozenset[str],
        routes: Iterable[Route],
        book: Book,
    ) -> Generator[None, None, None]:
        self.book = book
        """The kept facts that this snapshot was made with."""
        all_providers = {p.id: p for p in providers}
        inner = {p.id: p.makes for p in all_providers.values() if p.makes == "vision"}
        all_models = tuple(models)
        self.has_rates = any(row.rates is not None for rows in (all_providers.values(), all_models) for row in rows)
        """Whether any row says how much its provider takes of one key."""
        self._inner = inner
        self.providers: Mapping[str, Provider] = {p.id: p for p in all_providers.values() if p.id not in inner}
        configured &= self.providers.keys()
        self._key_takers = tuple(p for p in self.providers.values() if p.caller_keys is not None)
        self.models: tuple[Model, ...] = tuple(m for m in all_models if m.provider not in inner and not m.is_wildcard)
        self._variants = Variants(all_providers.values())
        # Nothing of a snapshot refers to it: where it did, one that was replaced would wait for the collector.
        self._facts = partial(_facts_of, book, self.providers, self._variants)
        self._wildcards = Wildcards(
            (m for m in all_models if m.is_wildcard), self.providers, configured, {}, self._facts
        )
        self._discovered: tuple[Model, ...] | None = ()
        self._rows: dict[str, Model] = {}
        """Models by their provider and its own name of them, once it is known what is listed."""
        self.vision: tuple[Model, ...] = tuple(m for m in all_models if inner.get(m.provider) == "vision")
        self.configured = configured
        self._names: dict[str, tuple[Model, ...]] = {}
        for rank in (self._ids, self._alias_names, self._unprefixed):
            results: dict[str, tuple[Model, ...]] = {}
            for number, model in enumerate(self.models, 1):
                for name in rank(model):
                    if name not in self._names:
                        results[name] = (*results.get(name, ()), model)
                if number % SLICE == 0:
                    yield
            self._names.update(results)
        self._fallbacks = {
            model.full_id: tuple(self._named(name) for name in model.fallback)
            for model in (*self.models, *self._wildcards.rows)
            if model.fallback
        }
        self._virtual = VirtualModels(routes, self._named, self.makes)
        if self._virtual.models:
            self.models = (*self.models, *self._virtual.models)
            self._names |= {name: (model,) for model in self._virtual.models for name in self._ids(model)}
            self.providers = {**self.providers, **self._virtual.providers()}
            self.configured |= self._virtual.providers().keys()

    def _named(self, name: str) -> Model:
        """Return the model that the file itself names; the file's check has found that there is one."""
        model = self.find(name)
        return msgspec.structs.replace(model, named=True) if isinstance(model, WildcardModel) else model

    def unavailable(self, provider_id: str) -> str:
        """Return why a provider does not answer, where that was found when it was asked for its list; else empty."""
        listed = self._wildcards.listed.get(provider_id)
        return listed.unavailable if listed is not None else ""

    @property
    def wildcards(self) -> tuple[Model, ...]:
        """The rows that stand for many ids, in the file's order."""
        return self._wildcards.rows

    @property
    def wildcard_providers(self) -> frozenset[str]:
        """The configured providers of which ids that no row has are served."""
        return self.configured.intersection(row.provider for row in self._wildcards.rows)

    @property
    def open_ended_providers(self) -> frozenset[str]:
        """The providers, configured or not, of which ids that no row has may be served."""
        return frozenset(row.provider for row in self._wildcards.rows)

    def with_listed(self, listed: Mapping[str, Listed]) -> Self:
        """Return this snapshot with what providers themselves list, by provider: ids that wildcard rows cover."""
        joined = copy.copy(self)
        wildcards = Wildcards(self._wildcards.rows, self.providers, self.configured, listed, self._facts)
        joined._wildcards = wildcards
        joined._rows = {f"{model.provider}/{name}": model for model in self.models for name in (model.id, model.name)}
        joined._discovered = None
        return joined

    @property
    def discovered(self) -> tuple[Model, ...]:
        """The models that providers list and no row has, of those that wildcard rows cover."""
        if self._discovered is None:
            finished(self.discovering())
        return self._discovered or ()

    def discovering(self) -> Generator[None, None, None]:
        """Make what is discovered, `SLICE` models at a time: it yields between, for whoever serves meanwhile."""
        found: list[Model] = []
        for number, model in enumerate(self._wildcards.discovered(self._rows.keys()), 1):
            found.append(model)
            if number % SLICE == 0:
                yield
        self._discovered = tuple(found)

    @staticmethod
    def _ids(model: Model) -> Iterable[str]:
        return {model.id, model.full_id}

    @staticmethod
    def _alias_names(model: Model) -> Iterable[str]:
        return {*model.aliases, *(f"{model.provider}/{alias}" for alias in model.aliases)}

    @staticmethod
    def _unprefixed(model: Model) -> Iterable[str]:
        return {model.id.partition("/")[2]} - {""}

    def provider(self, provider_id: str) -> Provider:
        """Return a provider, or raise NotFound."""
        try:
            return self.providers[provider_id]
        except KeyError:
            message = f"unknown provider {provider_id[:200]!r}; GET /providers lists those that you may use"
            raise NotFound(message, param="provider") from None

    def facts_of(self, provider_id: str, name: str) -> Facts | None:
        """Return what the kept facts tell of a provider's model by its owner's own name (`Model.name`), listed or not.

        None where nothing is known of it, or the provider has no kept facts. What is unknown in them stays unknown.
        """
        return self._facts(provider_id, name)

    def find(self, name: str, *, provider: str = "", makes: str = "") -> Model:
        """Return the model that a caller's name means: exact id, then alias, then the name without its vendor prefix.

        Then what wildcard rows cover.
        `provider` narrows the choice. Of several that fit, the first of a configured provider is given. `makes` is what
        the model is asked for, where that is known.
        Raises NotFound for an unknown provider, UnknownModel for an unknown model.
        """
        if provider:
            self.provider(provider)
        if self._variants.exist and (variant := self._variants.of(name, provider)) is not None:
            return self._variants.row(variant[0], self.find(variant[1], provider=self._variants.base(variant[0])))
        if row := self._found(name, provider):
            return row
        prefix, _, rest = name.partition("/")
        # A provider's own id before the slash means that one, and no other's model of the same id.
        if prefix not in self.providers and (row := self._found(rest, provider)):
            return row
        may_be = self._wildcards.find(name, provider, makes)
        if len(may_be) == 1:
            # What a name means in a list may have a row of its own.
            return self._rows.get(may_be[0].full_id, may_be[0])
        where = f" of provider {provider!r}" if provider else ""
        raise UnknownModel(
            f"unknown model {name[:200]!r}{where}",
            param="model",
            name=name,
            provider=provider,
            makes=makes,
            may_be=may_be,
        )

    def takes_key(self, key: str) -> bool:
        """Return whether a key is a provider's rather than this gateway's, by its shape."""
        return any(provider.takes_key(key) for provider in self._key_takers)

    def route(self, model: Model) -> tuple[Route, RouteTargets] | None:
        """Return what a virtual model stands for, with the model of each target; None for other models."""
        return self._virtual.of(model) if self._virtual.models else None

    def is_reachable(self, model: Model) -> bool:
        """Return whether a model's provider is configured; of a virtual model, that of one of its targets."""
        if not self._virtual.models or self._virtual.of(model) is None:
            return model.provider in self.configured
        return any(each.provider in self.configured for each in self._virtual.leaves(model))

    def _row(self, provider: str, model: str) -> Model | None:
        """Return the model that answered, or would, by a row or a wildcard row; of a variant its provider's."""
        base = self._variants.base(provider) if self._variants.exist else provider
        found = self._names.get(f"{base}/{model}")
        return found[0] if found else self._wildcards.of(base, model)

    def _found(self, name: str, provider: str) -> Model | None:
        """Return the model whose row has a name, of those of configured providers where there are several."""
        fits = [m for m in self._names.get(name, ()) if not provider or m.provider == provider]
        if len(fits) < 2:
            return fits[0] if fits else None
        return next((m for m in fits if m.provider in self.configured), fits[0])

    def batch_price_factor(self, model: Model) -> float | None:
        """Return what an answer in a batch costs, of its price alone; None where its provider is asked for none."""
        factor = model.batch_price_factor or self.provider(model.provider).batch_price_factor
        return None if factor == 1 else factor

    @property
    def has_batches(self) -> bool:
        """Whether any provider that is configured is asked for batches, for all its models or for one."""
        asked = {p.id for p in self.providers.values() if p.batch_price_factor}
        asked |= {m.provider for m in self.models if m.batch_price_factor}
        return not self.configured.isdisjoint(asked)

    def cost_on(self, day: dt.date | None = None) -> Cost:
        """Return what tells what a consumption costs at a provider's model, in nano-dollars, by the prices of a day.

        They are today's (UTC) where none is given, and stay so: whatever becomes of the prices, what was begun is
        settled by those that held then. Nothing, where there is none; None, where it is not known.
        """
        day = day or today()

        def cost(usage: usage_pb2.Usage, provider: str, model: str) -> int | None:
            found = self._row(provider, model)
            return found.cost_on(day)(usage, provider, model) if found is not None else 0

        return cost

    def batch_cost_on(self, day: dt.date | None = None) -> Cost:
        """Return what tells what an answer in a batch costs, as `cost_on` does of one that is asked for alone."""
        day = day or today()
        alone = self.cost_on(day)

        def cost(usage: usage_pb2.Usage, provider: str, model: str) -> int | None:
            found, whole = self._row(provider, model), alone(usage, provider, model)
            factor = self.batch_price_factor(found) if found is not None else None
            if found is None or whole is None or factor is None:
                return whole
            price, cached_factor = found.price(day), self.provider(found.provider).batch_cached_factor
            cached = price.cached_nano(usage) if price is not None and cached_factor is not None else 0
            return at_factor(whole - cached, factor) + at_factor(cached, cached_factor or 0)

        return cost

    def image_cost(self, request: image_service_pb2.GenerateImageRequest, day: dt.date | None = None) -> Cost:
        """Return what tells the cost of a request's images, as `cost_on` does: by their size and quality."""
        day = day or today()
        asked = image_service_pb2.GenerateImageRequest(quality=request.quality)
        if request.width and request.height:
            asked.width, asked.height = request.width, request.height

        def cost(usage: usage_pb2.Usage, provider: str, model: str) -> int | None:
            found = self._row(provider, model)
            return found.image_cost(asked, day)(usage, provider, model) if found is not None else 0

        return cost

    def image_nano_usd(self, provider: str, model: str, request: image_service_pb2.GenerateImageRequest) -> int | None:
        """Return what one image of a request costs at most today, in nano-dollars; nothing, where there is no price.

        Of a virtual model it is what its dearest target asks. None, where the price is not known, of any target.
        """
        found, day = self._row(provider, model), today()
        leaves = tuple(self._virtual.leaves(found)) if found is not None else ()
        known = [price.image_nano(request) for each in leaves if (price := each.price(day)) is not None]
        if not known and any(each.lacks_price for each in leaves):
            return None
        return max(known, default=0)

    def fallbacks(self, model: Model) -> tuple[Model, ...]:
        """Return who answers when a model cannot, in order."""
        return self._fallbacks.get(model.row, ()) if model.fallback else ()

    def find_vision(self, name: str) -> Model:
        """Return the vision model of an id, full id or alias, or raise ModelNotFound."""
        return _named(self.vision, name, "vision")

    def first(self, makes: str) -> Model:
        """Return the first model that makes this of a configured provider, or raise ModelNotFound."""
        for model in self.models:
            if model.provider in self.configured and self.providers[model.provider].makes == makes:
                return model
        raise ModelNotFound(f"this gateway has no model for {makes}", param="model")

    def makes(self, model: Model) -> str:
        """Tell what a model of this snapshot makes, as its provider says it."""
        provider = self.providers.get(model.provider)
        return provider.makes if provider is not None else self._inner[model.provider]

    def of_provider(self, provider_id: str) -> list[Model]:
        """List a provider's models."""
        self.provider(provider_id)
        return [m for m in self.models if m.provider == provider_id]


def _facts_of(
    book: Book, providers: Mapping[str, Provider], variants: Variants, provider_id: str, name: str
) -> Facts | None:
    provider = providers.get(variants.base(provider_id))
    return book.facts_of(provider.facts, name) if provider is not None and provider.facts else None


def finished(work: Generator[None, None, R]) -> R:
    """Return what sliced work returns, for whoever has nobody to give a turn."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            made: R = end.value
            return made


def _named(models: Iterable[Model], name: str, kind: str) -> Model:
    for model in models:
        if name in (model.id, model.full_id, *model.aliases):
            return model
    raise ModelNotFound(f"unknown {kind} model {name[:200]!r}", param="model")
