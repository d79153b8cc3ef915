"""The router's operations over targets that are played, a ledger that remembers, and a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, Self

from moa.common.v1 import usage_pb2
from moa.image.v1 import image_service_pb2
from moa.quota.v1 import quota_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.catalogue import Catalogue, Model, Provider, Rates, Route
from services.common.errors import MoaError, QuotaExhausted, Unsupported
from services.quota_client.amounts import NOTHING, UNLIMITED, Amount
from services.quota_client.labels import NO_LABELS, Labels
from services.router.domain.breaker import Breakers
from services.router.domain.caller import Caller
from services.router.domain.failures import Restarting
from services.router.domain.operations import Operations
from services.router.domain.policies import Policies
from services.router.domain.request_log import Log
from services.router.domain.terms import Patience
from services.router.domain.upstreams import Paces, Upstreams
from services.router.operations.text import TextCall
from tests.router.rig import ended, said, text

CHAIN = ("two/b", "three/c")
LIMIT = 1_000


def models(**changes: dict[str, Any]) -> list[Model]:
    """Return the model `a`, which falls back to `b` and `c`, each of a provider of its own, with changes to them."""
    rows: dict[str, dict[str, Any]] = {
        "a": {"provider": "one", "fallback": CHAIN, "on_first_failure": "next"},
        "b": {"provider": "two"},
        "c": {"provider": "three"},
    }
    return [Model(id=name, **{**row, **changes.get(name, {})}) for name, row in rows.items()]


@dataclass
class Ledger:
    """Lends what is asked; each reservation ends by one row."""

    rows: list[tuple[str, int, int, str]] = field(default_factory=list)
    """Reservation, tokens of the prompt, tokens of the completion or images, and the model that answered."""
    open: dict[str, Lent] = field(default_factory=dict)
    words: dict[str, usage_pb2.Usage] = field(default_factory=dict)
    """What backends say of calls that were left, by reservation."""
    forbidden: set[str] = field(default_factory=set)
    operation: quota_pb2.Operation.ValueType = quota_pb2.OPERATION_TEXT
    account_id = "acc"
    key_id = "key"
    team_id = "team"
    request_logging: quota_pb2.RequestLogging.ValueType = quota_pb2.REQUEST_LOGGING_UNSPECIFIED
    priority = "normal"
    stores_responses = False
    made = 0
    left: int = UNLIMITED
    """Tokens that can be lent beside what requests begin with."""
    extended: list[Amount] = field(default_factory=list)
    """What was lent to requests that ran."""
    away: MoaError | None = None
    """Raised where more is to be lent."""
    asked_for: list[str] = field(default_factory=list)
    """Whose use requests were to be permitted."""
    there: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: auth answers when more is to be lent."""

    def __post_init__(self) -> None:
        self.there.set()

    async def identify(self, key: str) -> Any:
        return self

    arrive = identify

    async def reserve(self, key: str, *, need: Amount, least: Amount | None = None, **more: Any) -> Lent:
        self.asked_for.append(f"{more['provider']}/{more['model']}")
        if need.images:
            self.operation = quota_pb2.OPERATION_IMAGE
        tokens = need.images or max((least or need).tokens, min(need.tokens, LIMIT))
        return self.lend(tokens, need.nano_usd)

    def lend(self, tokens: int, nano_usd: int = 0) -> Lent:
        self.made += 1
        lent = self.open[f"r{self.made}"] = Lent(self, f"r{self.made}", tokens, nano_usd)
        return lent

    def may(self, operation: quota_pb2.Operation.ValueType, provider: str, model: str) -> bool:
        return operation == self.operation and model not in self.forbidden

    def remaining(self) -> Any:
        raise AssertionError

    def asking(self, provider: str, model: str, tags: Collection[str]) -> Self:
        return self

    def free(self, enough: Amount) -> Amount:
        return Amount(self.left, 0, UNLIMITED)


@dataclass
class Lent:
    """A reservation."""

    ledger: Ledger
    reservation_id: str
    tokens: int
    nano_usd: int = 0
    told: usage_pb2.Usage | None = None
    labels: Labels = NO_LABELS
    team_id: str = ""
    charged: Amount = NOTHING

    @property
    def verified_key(self) -> Ledger:
        return self.ledger

    @property
    def operation(self) -> quota_pb2.Operation.ValueType:
        return self.ledger.operation

    account_id, priority = "acc", "normal"

    def follow(self, so_far: Any) -> None: ...

    def report(self, *, usage: usage_pb2.Usage, provider: str, model: str) -> None:
        self.told = usage

    def settle(self, *, usage: usage_pb2.Usage, provider: str, model: str) -> None:
        # As the real one: only the first word counts.
        if self.ledger.open.pop(self.reservation_id, None):
            row = (self.reservation_id, usage.prompt_tokens, usage.completion_tokens + usage.images, model)
            self.ledger.rows.append(row)
            # A nano-dollar a token.
            self.charged = Amount(nano_usd=usage.prompt_tokens + usage.completion_tokens)

    def release(self) -> None:
        self.settle(usage=usage_pb2.Usage(), provider="", model="released")

    def void(self) -> None:
        self.settle(usage=usage_pb2.Usage(), provider="", model="voided")

    @property
    def amount(self) -> Amount:
        return Amount(self.tokens, 0, self.nano_usd)

    async def extend(self, need: Amount, *, least: Amount) -> Amount:
        await self.ledger.there.wait()
        if self.ledger.away is not None:
            raise self.ledger.away
        if self.ledger.left < least.tokens:
            raise QuotaExhausted("nothing is left")
        got = need._replace(tokens=min(need.tokens, self.ledger.left))
        self.ledger.left -= got.tokens
        self.ledger.extended.append(got)
        return got

    def shrink(self, amount: Amount) -> Lent:
        self.tokens = min(amount.tokens, self.tokens)
        return self

    def defer(
        self, *, usage: usage_pb2.Usage, provider: str, model: str, then: Callable[[usage_pb2.Usage], None]
    ) -> None:
        if (word := self.ledger.words.get(self.reservation_id)) is not None:
            usage = word
        self.settle(usage=usage, provider=provider, model=f"{model}?")
        then(usage)

    def renewed(self) -> Lent:
        self.void()
        return self.ledger.lend(self.tokens, self.nano_usd)


class Played:
    """A call: plays messages; a MoaError among them is raised, an event is waited for, a function called."""

    def __init__(self, messages: Iterable[Any]) -> None:
        self.left = list(messages)
        """What it has not said yet."""
        self.ended = ""

    async def read(self) -> Any:
        if not self.left:
            return None
        message = self.left.pop(0)
        if isinstance(message, asyncio.Event):
            await message.wait()
            return await self.read()
        if isinstance(message, MoaError):
            raise message
        if callable(message):
            message()
            return await self.read()
        return message

    def close(self) -> None:
        self.ended = "closed"

    def cancel(self) -> None:
        self.ended = "cancelled"


@dataclass(frozen=True)
class Asked:
    """A call that was made."""

    model: str
    bound: int
    reservation: str
    messages: tuple[str, ...]
    books: bool


async def _at_once(_: float) -> None:
    """Let others run."""
    await asyncio.sleep(0)


class World:
    """Operations, and what they were played and did."""

    def __init__(
        self,
        *,
        configured: Iterable[str] = ("one", "two", "three"),
        makes: Literal["text", "image"] = "text",
        routes: Iterable[Route] = (),
        policies: Policies | None = None,
        rates: Mapping[str, Rates] | None = None,
        paces: Paces | None = None,
        request_log: Log | None = None,
        **changes: dict[str, Any],
    ) -> None:
        self.ledger = Ledger()
        self.scripts: dict[str, list[Any]] = defaultdict(list)
        """What each model does at its next calls; without a script it answers with its name."""
        self.asked: list[Asked] = []
        self.calls: list[Played] = []
        self.pauses: list[float] = []
        self.counts: dict[str, int] = {}
        """The tokens of a prompt, by the models that count."""
        self.counted: list[str] = []
        """The models that were asked to count."""
        self.away = 0
        """How often the process of `a` is still looked for in vain."""
        self.away_after: int | None = None
        """After so many calls it is away, for ten looks."""
        self.now = 100.0
        self.breakers = Breakers(lambda: self.now, jitter=lambda: 0.0)
        limits = rates or {}
        providers = [
            Provider(id=name, adapter="x", makes=makes, base_url="x", rates=limits.get(name))
            for name in ("one", "two", "three")
        ]
        self.catalogue = Catalogue(providers, models(**changes), frozenset(configured), routes)
        self.chance = 1.0
        """What is drawn where chance decides."""
        patience = Patience(
            breakers=self.breakers,
            clock=lambda: self.now,
            pause=lambda seconds: self.pause(seconds),  # as a test may have replaced it
            jitter=lambda: self.chance,
        )
        self.upstreams: Upstreams | None = None
        if paces is not None:
            self.upstreams = Upstreams(paces, lambda: self.catalogue, clock=lambda: self.now, pause=_at_once)
        me: Any = self
        backends: Any = SimpleNamespace(ask=self.ask_backend, count_tokens=self.count_tokens)
        self.operations = Operations(
            catalogue=lambda: self.catalogue,
            admission=self.ledger,
            backends=backends,
            inputs=me,
            patience=patience,
            policies=policies,
            relisted=lambda: self.relisted(),  # as a test may have replaced it
            upstreams=self.upstreams,
            request_log=request_log,
        )

    async def relisted(self) -> bool:
        """Have providers list anew: they list nothing."""
        return False

    async def pause(self, seconds: float) -> None:
        """Pass the time between two attempts."""
        self.pauses.append(round(seconds, 3))
        self.now += seconds

    def play(self, model: str, *messages: Any) -> None:
        """Queue what a model does at a call."""
        self.scripts[model].append(messages)

    def ask_backend(self, operation: Any, *asked: Any, prompt_bound: int | None = None, books: bool = True) -> Any:
        """Begin a call, as a backend's `ask`."""
        if operation.name == "text":
            assert prompt_bound is not None
            return self.generate_text(*asked, prompt_bound=prompt_bound, books=books)
        return self.generate_image(*asked)

    def generate_text(
        self,
        request: text_service_pb2.GenerateTextRequest,
        model: Model,
        caller: Caller,
        reserved: Lent,
        *,
        prompt_bound: int,
        books: bool = True,
    ) -> Played:
        said_before = tuple("".join(part.text for part in message.parts) for message in request.messages)
        assert (request.model, request.provider) == (model.id, model.provider)
        if self.away_after is not None and len(self.asked) == self.away_after:
            self.away, self.away_after = 10, None
        if model.id == "a" and self.away:
            self.away -= 1
            raise Restarting
        self.asked.append(Asked(model.id, request.max_tokens, reserved.reservation_id, said_before, books))
        queue = self.scripts[model.id]
        call = Played(queue.pop(0) if queue else [text(said(f"I am {model.id}")), ended()])
        self.calls.append(call)
        return call

    def generate_image(
        self, request: image_service_pb2.GenerateImageRequest, model: Model, caller: Caller, reserved: Lent
    ) -> Played:
        assert (request.model, request.provider) == (model.id, model.provider)
        self.asked.append(Asked(model.id, 0, reserved.reservation_id, (request.prompt,), True))
        call = Played(self.scripts[model.id].pop(0))
        self.calls.append(call)
        return call

    async def count_tokens(
        self, request: text_service_pb2.CountTokensRequest, model: Model, caller: Caller, payer: Any
    ) -> int:
        assert payer.account_id == "acc"
        self.counted.append(model.id)
        if model.id not in self.counts:
            raise Unsupported("does not count")
        return self.counts[model.id]

    def fetched(self, linked: Any, *, account_id: str, owner: str) -> Any:
        raise AssertionError(linked)

    async def begin(self, prompt: str = "hi", *, caller: Caller | None = None, model: str = "a", **fields: Any) -> Any:
        """Begin an answer."""
        fields.setdefault("max_tokens", 100)
        fields.setdefault("stream", True)
        request = text_service_pb2.GenerateTextRequest(model=model, **fields)
        request.messages.add(role=text_pb2.ROLE_USER).parts.add(text=prompt)
        return await self.operations.begin(TextCall(request), caller or Caller(key="k", request_id="rid"))

    async def ask(self, prompt: str = "hi", **fields: Any) -> tuple[str, list[text_pb2.TextEvent], Any]:
        """Ask, and read to the end; give the text, all events, and the answer."""
        answer = await self.begin(prompt, **fields)
        events: list[text_pb2.TextEvent] = []
        async with answer:
            while (message := await answer.next()) is not None:
                events += message.events
        return "".join(event.text.text for event in events), events, answer

    @property
    def order(self) -> str:
        """The models in the order in which they were asked."""
        return "".join(asked.model for asked in self.asked)
