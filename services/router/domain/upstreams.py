"""Providers' limits, known beforehand: a call that would be refused is not made. Another target is asked, or it waits.

What a provider takes of one key is said by the catalogue (`rates`) or learned from its answers, and is divided among
all routers as accounts' paces are. A key is known by its provider's name, or its variant's: no router sees its value.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, Protocol

from moa.common.v1.rates_pb2 import UpstreamRates
from moa.quota.v1 import quota_pb2
from services.catalogue import Catalogue, Model, Rates
from services.common.errors import RateLimited, UpstreamRateLimited
from services.router import metrics
from services.router.domain.failures import HeldBack
from services.router.domain.fair_queue import FairQueue
from services.router.domain.ports import M, MessageStream
from services.router.traffic import TRAFFIC

Rate = tuple[str, quota_pb2.Pace]

_MOST_LEARNED: Final = 1000
"""Of how many models limits that providers told are kept: some models' names come from callers."""
LEARNED_S: Final = 600.0
"""For how long what a provider told of its limits is kept."""
_LONGEST_REST_S: Final = 60.0
"""For how long a provider's word that it takes nothing is believed at most, before it is asked again."""
_LOOK_S: Final = 0.25
"""How often is looked for room while some wait: what others give back comes without notice."""


class Turn(Protocol):
    """A call that counts in its provider's limits."""

    def end(self, used: int | None = None) -> None:
        """Say how many tokens it used in the end; None: as many as it might."""


class Paces(Protocol):
    """What this process may do of providers' limits; `services.quota_client`'s `Admission.upstreams` is one."""

    def turn(self, rates: Sequence[Rate], tokens: int) -> Turn | None:
        """Return a turn where that needs no call, else None. Raises RateLimited where it was refused a moment ago."""

    async def enter(self, rates: Sequence[Rate], tokens: int) -> Turn:
        """Return a turn. Raises RateLimited with the time until there may be one."""

    def left(self, rates: Sequence[Rate], tokens: int) -> float:
        """Return what part is left; 0 where so many tokens would be refused."""

    def reported(self, rate: Rate, *, requests: int | None, tokens: int | None, wait_s: float) -> None:
        """Take what a provider says is left."""


class Upstreams:
    """The limits of all providers.

    Args:
        paces: What this process may do of them.
        catalogue: Returns the catalogue as it is now.
        clock: Monotonic seconds.
        pause: Passes time.
    """

    def __init__(
        self,
        paces: Paces,
        catalogue: Callable[[], Catalogue],
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._paces = paces
        self._catalogue = catalogue
        self.clock = clock
        self._pause = pause
        self._learned: OrderedDict[str, tuple[float, quota_pb2.Pace]] = OrderedDict()
        self._queues: dict[str, FairQueue[Turn]] = {}
        self._known: tuple[Catalogue | None, dict[str, Sequence[Rate]]] = None, {}

    @property
    def are_known(self) -> bool:
        """Whether any limit is known."""
        return self._catalogue().has_rates or bool(self._learned)

    def rates(self, model: Model) -> Sequence[Rate]:
        """Return the limits that a call of a model counts in; empty where none are known."""
        catalogue = self._catalogue()
        if self._known[0] is not catalogue:
            self._known = catalogue, {}
        kept = self._known[1]
        declared = kept.get(model.full_id)
        if declared is None:
            if len(kept) >= _MOST_LEARNED:
                kept.clear()
            declared = kept[model.full_id] = _declared(catalogue, model)
        if not self._learned or (learned := self._learned.get(model.full_id)) is None:
            return declared
        at, pace = learned
        if self.clock() - at > LEARNED_S:
            del self._learned[model.full_id]
            return declared
        if not declared or declared[-1][0] != model.full_id:
            return (*declared, (model.full_id, pace))
        return (*declared[:-1], (model.full_id, _filled(declared[-1][1], pace)))

    def left(self, model: Model, tokens: int) -> float:
        """Return what part of a provider's limits is left, from 0 to 1; 0: a request of so many tokens is refused.

        1 where no limit is known.
        """
        rates = self.rates(model)
        return self._paces.left(rates, tokens) if rates else 1.0

    def learn(self, model: Model, rates: UpstreamRates) -> None:
        """Take what a provider said of its limits, beside an answer of a model."""
        TRAFFIC.learned(model.provider, model.label, rates)
        pace = quota_pb2.Pace(requests_per_minute=rates.requests_per_minute, tokens_per_minute=rates.tokens_per_minute)
        if pace.requests_per_minute or pace.tokens_per_minute:
            self._learned[model.full_id] = self.clock(), pace
            self._learned.move_to_end(model.full_id)
            if len(self._learned) > _MOST_LEARNED:
                self._learned.popitem(last=False)
        if known := self.rates(model):
            self._paces.reported(
                known[-1],
                requests=rates.requests_left if rates.HasField("requests_left") else None,
                tokens=rates.tokens_left if rates.HasField("tokens_left") else None,
                wait_s=0.0,
            )

    def limited(self, model: Model, wait_s: float) -> None:
        """Note that a provider refused a call of a model as beyond its limits, for so long."""
        if (known := self.rates(model)) and known[-1][0] == model.full_id:
            self._paces.reported(known[-1], requests=None, tokens=None, wait_s=min(wait_s, _LONGEST_REST_S))

    def turn(self, model: Model, rates: Sequence[Rate], tokens: int) -> Turn | None:
        """Return a turn where that needs no call, else None. Raises HeldBack."""
        self._check_queue(model)
        try:
            return self._paces.turn(rates, tokens)
        except RateLimited as refused:
            raise _held_back(model, refused) from None

    def counted(
        self, model: Model, tokens: int, begin: Callable[[], MessageStream[M]], turn: Turn | None = None
    ) -> MessageStream[M]:
        """Return a call's messages, which counts in its provider's limits; begun in its turn, where it has one.

        Raises HeldBack, as reading them may.
        """
        rates = self.rates(model)
        if not rates:
            return begin()
        turn = turn or self.turn(model, rates, tokens)
        return CountedStream(begin, turn or (lambda: self.enter(model, rates, tokens)))

    async def enter(self, model: Model, rates: Sequence[Rate], tokens: int) -> Turn:
        """Return a turn. Raises HeldBack."""
        try:
            return await self._paces.enter(rates, tokens)
        except RateLimited as refused:
            raise _held_back(model, refused) from None

    async def wait(self, model: Model, tokens: int, account: str) -> Turn:
        """Return a turn when it is this account's: for as long as it takes. Raises QueueFull."""
        queue = self._queues.get(model.full_id)
        if queue is None:
            queue = self._queues[model.full_id] = FairQueue(
                self._pause, lambda turn: turn.end(0), metrics.UPSTREAM_WAITING.labels(model.provider, model.label).set
            )

        async def take() -> Turn | float:
            rates = self.rates(model)
            try:
                return await self._paces.enter(rates, tokens)
            except RateLimited as refused:
                return min(_LOOK_S, refused.retry_after_s or _LOOK_S)

        try:
            return await queue.wait(account, take)
        finally:
            if not queue:
                self._queues.pop(model.full_id, None)

    def waiting(self, model: Model) -> int:
        """Return how many wait for a model's provider here."""
        queue = self._queues.get(model.full_id)
        return len(queue) if queue is not None else 0

    async def aclose(self) -> None:
        """Let nobody wait any more."""
        for queue in list(self._queues.values()):
            await queue.aclose()

    def _check_queue(self, model: Model) -> None:
        """Raise HeldBack where others wait for the same: who comes later does not pass them."""
        if self._queues and model.full_id in self._queues:
            raise HeldBack(f"others wait for provider {model.provider}, which is at its limit", retry_after_s=1.0)


def _held_back(model: Model, refused: RateLimited) -> HeldBack:
    message = f"provider {model.provider} is at its limit for now; try again later"
    return HeldBack(message, retry_after_s=refused.retry_after_s)


def _declared(catalogue: Catalogue, model: Model) -> Sequence[Rate]:
    found: list[Rate] = []
    if (rates := catalogue.provider(model.provider).rates) is not None:
        found.append((model.provider, _pace(rates)))
    if model.rates is not None:
        found.append((model.full_id, _pace(model.rates)))
    return tuple(found)


def _filled(declared: quota_pb2.Pace, learned: quota_pb2.Pace) -> quota_pb2.Pace:
    """Return what the operator says of a model, with what its provider tells of what the operator does not say."""
    return quota_pb2.Pace(
        requests_per_minute=declared.requests_per_minute or learned.requests_per_minute,
        tokens_per_minute=declared.tokens_per_minute or learned.tokens_per_minute,
        concurrent_requests=declared.concurrent_requests,
    )


def _pace(rates: Rates) -> quota_pb2.Pace:
    return quota_pb2.Pace(
        requests_per_minute=rates.requests_per_minute or 0,
        tokens_per_minute=rates.tokens_per_minute or 0,
        concurrent_requests=rates.concurrent_requests or 0,
    )


class CountedStream(Generic[M]):
    """A call's messages, which tell at their end what it used of its provider's limits.

    Args:
        begin: Begins the call, once it has its turn.
        turn: Its turn; a coroutine function that waits for it.
    """

    def __init__(self, begin: Callable[[], MessageStream[M]], turn: Turn | Callable[[], Awaitable[Turn]]) -> None:
        self._begin = begin
        self._stream: MessageStream[M] | None = None
        self._turn: Turn | None = None
        self._enter: Callable[[], Awaitable[Turn]] | None = None
        if callable(turn):
            self._enter = turn
        else:
            self._start(turn)

    def _start(self, turn: Turn) -> MessageStream[M]:
        self._turn = turn
        try:
            stream = self._stream = self._begin()
        except BaseException:
            turn.end(0)
            raise
        return stream

    async def read(self) -> M | None:
        """Return the next message. Raises MoaError, HeldBack where its provider would have refused it."""
        stream = self._stream
        if stream is None:
            assert self._enter is not None
            stream = self._start(await self._enter())
        try:
            message = await stream.read()
        except UpstreamRateLimited:
            self._end(0)
            raise
        if message is not None and message.events:
            last: Any = message.events[-1]
            if last.HasField("finished"):
                usage = last.finished.usage
                self._end(usage.prompt_tokens + usage.completion_tokens)
        return message

    def _end(self, used: int | None = None) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.end(used)

    def cancel(self) -> None:
        """Stop the work behind it: what it might have used counts."""
        self._end()
        if self._stream is not None:
            self._stream.cancel()

    def close(self) -> None:
        """Let go of it."""
        self._end()
        if self._stream is not None:
            self._stream.close()
