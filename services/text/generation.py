"""Ask a provider and give its answer as batches of events: the one way, for every adapter.

Events that came in one read of the socket come in one batch. The provider's silence is bounded by its timeouts: any
piece of a stream ends it, also a comment or hidden reasoning, which make no event. Leaving the block closes the
provider's socket at once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from moa.common.v1.rates_pb2 import UpstreamRates
from moa.common.v1.usage_pb2 import Usage
from moa.text.v1.text_pb2 import Started, TextEvent
from moa.text.v1.text_service_pb2 import GenerateTextRequest, GenerateTextResponse
from services.catalogue import Model
from services.catalogue.waiting import may_be_long, whole_s
from services.common.errors import UpstreamBroken
from services.common.helper_process import HelperProcess
from services.common.metering import TextMeter
from services.common.own_task import in_own_task
from services.providers import counts
from services.providers.http.client import Reply
from services.providers.http.deadline import Deadline
from services.providers.http.exchange import Upload
from services.providers.text.base import Reader
from services.text import choice, json_object, prepare
from services.text.choice import ChoicesOnly
from services.text.json_object import ObjectsOnly
from services.text.targets import Target

TAIL_S: Final = 1.0
"""How long the provider's closing words (usage, end mark) are awaited once the answer itself is complete."""


LIFE_S: Final = 1.0
"""How often pieces that make no event are told as signs of life, at most."""
_TURN_BYTES: Final = 8 * 1024
"""How much of an answer is read in one turn of the loop: streams as fast as they go leave the others their turns."""


class Generation:
    """One answer. Use it as `async with Generation(…) as generation`, then `relay` it, or call `next` until None.

    Both raise MoaError whenever the provider fails; what `consumed` then returns was consumed all the same.

    Args:
        request: Changed: it is the provider's then, who is asked for a stream where the answer may be long.
        helper: Where a large request is made the provider's; None: here.
    """

    __slots__ = (
        "_before",
        "_began",
        "_deadline",
        "_helper",
        "_model",
        "_now",
        "_plain",
        "_rates",
        "_reader",
        "_reply",
        "_request",
        "_rewritten",
        "_shown",
        "_started",
        "_target",
        "_timeouts",
        "_told_at",
        "_upload",
        "lived",
        "relayed",
        "upstream_request_id",
    )

    def __init__(
        self, request: GenerateTextRequest, model: Model, target: Target, helper: HelperProcess | None = None
    ) -> None:
        self._request = request
        self._helper = helper
        self._model = model
        self._target = target
        self._timeouts = target.provider.timeouts_for(model)
        self._now = asyncio.get_running_loop().time
        self._told_at = self._now()
        """When a sign of life was last given."""
        self._reply: Reply | None = None
        self._reader: Reader | None = None
        self._rates: UpstreamRates | None = None
        """What the provider said of its limits."""
        self._deadline = Deadline()
        self._began = False
        self._before: list[TextEvent] = []
        """What came before the first word: a role, or what is the vendor's own."""
        self._rewritten: ObjectsOnly | ChoicesOnly | None = None
        """Where the provider has no mode for the answer's form."""
        self._shown: TextMeter | None = None
        """Meters what is shown where that is not what the provider says."""
        self._started: Started | None = None
        """What is told before the first events."""
        self._plain = True
        """Whether events are told as the provider's."""
        self.lived = False
        """Whether anything of the answer has come, if only a comment."""
        self.relayed = False
        """Whether `relay` has written an event."""
        self._upload = Upload()
        self.upstream_request_id = ""
        """The provider's id of the request, for the log."""

    async def __aenter__(self) -> Self:
        target = self._target
        timeouts = self._timeouts
        if self._request.HasField("response_format"):
            if json_object.is_emulated(self._request, self._model):
                self._rewritten, self._shown = ObjectsOnly(), TextMeter(0)
            elif choice.is_emulated(self._request, target.adapter):
                self._rewritten, self._shown = ChoicesOnly(tuple(self._request.stop)), TextMeter(0)
        stream = self._request.stream or may_be_long(self._request, self._model)
        outgoing, ignored = await prepare.outgoing(
            self._request, self._model, target, stream=stream, helper=self._helper
        )
        if ignored or self._request.vendor.names:
            # Whoever asked takes fields that nobody else knows for ignored, unless told better.
            self._started = Started(provider=self._model.provider, model=self._model.id, ignored=ignored)
        self._plain = self._rewritten is None and self._started is None
        self._deadline.__enter__()
        try:
            if self._request.stream:
                self._deadline.within(timeouts.connect_s + timeouts.first_token_s, "begin to answer")
            else:
                # The provider says nothing while it works.
                self._deadline.within(whole_s(timeouts, self._request, self._model), "answer")
            reply = self._reply = await target.ask(outgoing, self._upload)
            self.upstream_request_id = reply.headers.get(target.adapter.request_id_header, "")
            self._rates = target.rates(reply)
            self._reader = target.adapter.reader(self._request, self._model, reply.headers)
        except BaseException as error:
            self._leave(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        if self._reader is not None:
            counts.note(self._target.provider.id, self._reader.meter.reported)
        if self._reply is not None:
            self._reply.close()
            self._reply = None
        self._deadline.__exit__(type(error) if error else None, error, None)

    async def relay(self, write: Callable[[GenerateTextResponse], Awaitable[None]]) -> None:
        """Write the events as they come, until the answer is over: what `next` returns at once is one message."""
        await in_own_task(self._relayed(write))

    async def _relayed(self, write: Callable[[GenerateTextResponse], Awaitable[None]]) -> None:
        while (events := await self.next()) is not None:
            if events:
                self.relayed = True
            # An argument of events takes twice the time.
            message = GenerateTextResponse()
            message.events.extend(events)
            await write(message)

    async def next(self) -> list[TextEvent] | None:
        """Return the events that come together next; None when the answer is over.

        An empty list is a sign of life: what came makes no event.
        """
        reader, reply = self._reader, self._reply
        if reader is None or reply is None:
            return None
        if reader.failure is not None:
            raise self._target.judged(reader.failure, 200)
        if self._began:
            self._deadline.until = self._now() + self._timeouts.idle_s
        while True:
            data = await (self._closing_words(reply) if reader.ending else reply.read_some(_TURN_BYTES))
            if data:
                events, self.lived = reader.feed(data), True
            else:
                events = reader.end()
            if self._before:
                events, self._before = self._before + events, []
            if reader.failure is not None:
                if not events:
                    raise self._target.judged(reader.failure, 200)
            elif reader.done or not data:
                self._complete(reader, reply)
                if self._rates is not None:
                    for event in events:
                        if event.HasField("finished"):
                            event.finished.rates.CopyFrom(self._rates)
            elif events and (self._began or any(map(_says_something, events))):
                if not self._began:
                    self._begin()
                self._deadline.until = math.inf
            else:
                # A model may name its role and then think unseen, for as long as one that says nothing before its
                # answer.
                self._before = events
                if not self._request.stream or not self._lives(self._timeouts.idle_s):
                    continue
                return []
            return events if self._plain else self._shaped(events)

    def _begin(self) -> None:
        """Note that the answer has begun: from now on its silences are bounded, each alike."""
        self._began = True
        self._deadline.within(self._timeouts.idle_s, "go on")

    def _shaped(self, events: list[TextEvent]) -> list[TextEvent]:
        """Return events as they are told: in the form that was asked for, and before the first what they answer."""
        if events and self._rewritten is not None and self._shown is not None:
            events = self._rewritten.of(events)
            for event in events:
                self._shown.saw(event, event.WhichOneof("event"))
        if events and self._started is not None:
            started, self._started = self._started, None
            started.upstream_id = self._reader.upstream_id if self._reader is not None else ""
            events.insert(0, TextEvent(started=started))
            self._plain = self._rewritten is None
        return events

    def _lives(self, idle_s: float) -> bool:
        """Note that a piece came which makes no event; tell whether a sign of life is due."""
        self._deadline.extend(idle_s, "go on")
        now = self._now()
        if now - self._told_at < LIFE_S:
            return False
        self._told_at = now
        if self._began:
            # A caller who reads slowly is no slow provider.
            self._deadline.rest()
        return True

    async def _closing_words(self, reply: Reply) -> bytes:
        """Return what comes behind a complete answer: words that do not come, or a break, take nothing from it."""
        try:
            async with asyncio.timeout(TAIL_S):
                return await reply.read_some()
        except (TimeoutError, UpstreamBroken):
            return b""

    def _complete(self, reader: Reader, reply: Reply) -> None:
        if reader.cut:
            reply.close()
        else:
            reply.drain()
        self._reply = None

    @property
    def begun(self) -> bool:
        """Whether the provider may be at work, so that a caller who leaves owes the prompt (docs/charging.md)."""
        return self._upload.begun

    def consumed(self) -> Usage | None:
        """Return what the provider consumed; None when nothing has come."""
        return self._reader.meter.so_far() if self._reader is not None else None

    @property
    def made(self) -> int:
        """Tokens of the answer so far, as they are estimated."""
        return self._reader.meter.made if self._reader is not None else 0

    def owed(self, *, delivers: bool) -> Usage:
        """Return what a caller owes who left, but for a prompt that nobody reported.

        `delivers`: whether pieces were delivered; an answer that is asked for whole is not before it is complete.
        """
        if self._reader is None:
            return Usage()
        return (self._reader.meter if self._shown is None else self._shown).owed(delivers=delivers)


def _says_something(event: TextEvent) -> bool:
    kind = event.WhichOneof("event")
    return bool(event.text.text) if kind == "text" else kind is not None
