"""An answer under way: its messages in order, one end, and its settlement, whatever happens."""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, Self

from moa.common.v1 import usage_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.catalogue import Model, Retirement
from services.common.errors import MoaError, UpstreamBroken, detail_of, error_of
from services.common.estimate import Meter
from services.router import metrics
from services.router.background import Background
from services.router.domain.attempts import Ask, Attempts, Begun
from services.router.domain.ports import Booking, M, Source
from services.router.domain.rescue import Rescue

Told = Callable[[usage_pb2.Usage], None]


def _nobody(_: object) -> None:
    """Listen to nothing."""


async def _unknown(_: Model) -> int:
    """Count nothing: the request is gone."""
    raise AssertionError


class Answer(abc.ABC, Generic[M]):
    """The messages of one answer. An async context manager: leaving it stops the work and settles.

    The first message is in hand when an answer exists, so an early failure was raised instead. From then on a
    failure is an `error` event, and exactly one `finished` or `error` event is the last.
    """

    _message: type[M]

    def __init__(
        self,
        *,
        begun: Begun[M],
        attempts: Attempts[M],
        request_id: str,
        ending: Retirement | None = None,
    ) -> None:
        self.model = begun.model
        """Who answers."""
        self.asked = attempts.asked
        """Who was asked for."""
        self.ending = ending
        """The retirement of the model that was asked for, to be told to the caller."""
        self.usage = usage_pb2.Usage()
        self.attempts: Attempts[M] = attempts
        self._source: Source[M] = begun.source
        self._first: M | None = begun.first
        self._request_id = request_id
        self._ended = False
        self._cut_off = False
        self._failure: MoaError | None = None
        """A failure that may be mended before anybody hears of it."""
        self._settled = False
        self.succeeded = False
        """Whether the last event was `finished`."""
        self.on_settled: Told = _nobody
        """Told what was charged."""
        self.on_broken: Callable[[MoaError], None] = _nobody
        """Told of a failure after the first event."""

    @property
    def booking(self) -> Booking:
        """What pays."""
        return self.attempts.booking

    async def next(self) -> M | None:
        """Return the next message; None after the one that held the last event.

        A message without events is a sign of life.
        """
        while not self._ended:
            if self._failure is not None:
                message = await self._mended(self._failure)
            elif self._first is not None:
                message, self._first = self._first, None
            else:
                try:
                    read = await self._source.read()
                    if read is None:
                        raise UpstreamBroken("the answer broke off")
                    message = read
                except MoaError as error:
                    self._cut_off = True
                    message = self._failed(error)
            if not self._ended and message.events:
                self._watch(message)
                if self._failure is not None and not message.events:
                    # All that it held was a failure, which may be mended.
                    continue
                if not self._ended and (consumed := self._consumed()) is not None:
                    self.booking.report(usage=consumed, provider=self.model.provider, model=self.model.id)
            return message
        return None

    @abc.abstractmethod
    def _watch(self, message: M) -> None:
        """Note what the message's events say of the consumption and the end."""

    @abc.abstractmethod
    def _may_mend(self, error: MoaError) -> bool:
        """Return whether the answer may go on elsewhere after a failure."""

    @abc.abstractmethod
    async def _go_on(self, error: MoaError) -> Begun[M] | None:
        """Return the answer that goes on, from who answers now; None when nobody can."""

    def _take_failure(self, message: M, error: MoaError) -> None:
        """Note the failure that a message ends with; one that may be mended is taken off it."""
        self.attempts.failed(self.model, error)
        if not self._may_mend(error):
            self._end(error)
            return
        # What came with it is on its way to the caller before another target is asked.
        del message.events[-1]
        self._failure = error

    async def _mended(self, error: MoaError) -> M:
        """Return what comes in the place of a failure; the failure, where nothing does."""
        begun = await self._go_on(error)
        metrics.RESCUES.labels("failed" if begun is None else "done").inc()
        if begun is None:
            self._end(error)
            return self._failed(error)
        self.attempts.gave_up(self.model, error)
        self._source.close()
        self._failure, self._cut_off = None, False
        self.model, self._source = begun.model, begun.source
        return begun.first

    def _failed(self, error: MoaError) -> M:
        message = self._message()
        message.events.add().error.CopyFrom(detail_of(error, self._request_id))
        return message

    def _end(self, error: MoaError) -> None:
        """Note that the last event is this failure."""
        self._ended, self._failure = True, None
        self.on_broken(error)

    @abc.abstractmethod
    def _consumed(self) -> usage_pb2.Usage | None:
        """Return what is to be charged; None when nothing was delivered or reported."""

    @abc.abstractmethod
    def _settle_left(self) -> None:
        """Settle an answer whose caller left before its end (docs/charging.md)."""

    def _in_doubt(self, usage: usage_pb2.Usage) -> None:
        """Leave it to the backend to say how far the work had come; where it does not, `usage` is charged."""
        model = self.model
        self.booking.doubt(usage=usage, provider=model.provider, model=model.id, then=self.on_settled)

    def settle(self) -> None:
        """Settle now, by what is known. Leaving the context does this too; only the first time counts."""
        if self._settled:
            return
        self._settled = True
        consumed = self._consumed()
        if consumed is None:
            if self._ended and not self._cut_off:
                self.booking.release()
            else:
                self.booking.annul()
        else:
            self._book(consumed)

    def _book(self, usage: usage_pb2.Usage, then: Told | None = None) -> None:
        self.booking.settle(usage=usage, provider=self.model.provider, model=self.model.id)
        (then or self.on_settled)(usage)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.succeeded:
            self.attempts.finished(self.model)
        if self._ended:
            self._source.close()
        else:
            self._source.cancel()
        # An error of this process is not the caller's leaving.
        if not self._settled and (error is None or not isinstance(error, Exception)) and self._is_left(error):
            self._settled = True
            self._settle_left()
        self.settle()
        self._let_go()

    def _let_go(self) -> None:
        """Let go of the request, and of who listens, in whose closures this answer is: the cycle would keep both."""
        self.on_settled = self.on_broken = _nobody
        self._first = None
        self.attempts.let_go()

    def _is_left(self, error: BaseException | None) -> bool:
        """Return whether the caller left before it had what it is charged for; `error` ended the handler."""
        return not self._ended


class TextAnswer(Answer[text_service_pb2.GenerateTextResponse]):
    """A text answer. Charged by what the provider reported; where a stream broke, by what was delivered.

    Args:
        meter: Guesses what was delivered.
        prompt: Returns the prompt's tokens as a model counts them, else their bound.
        background: Where the prompt of a caller who left is counted.
        rescue: The way on from a broken stream; None where there is none.
    """

    _message = text_service_pb2.GenerateTextResponse

    def __init__(
        self,
        *,
        meter: Meter,
        prompt: Callable[[Model], Awaitable[int]],
        background: Background,
        rescue: Rescue | None = None,
        **known: Any,
    ) -> None:
        super().__init__(**known)
        self._prompt = prompt
        self._background = background
        self._meter = meter
        self._rescue = rescue
        self._pieces = 0

    def _watch(self, message: text_service_pb2.GenerateTextResponse) -> None:
        for event in message.events:
            kind = event.WhichOneof("event")
            if kind == "text" or kind == "reasoning" or kind == "tool_call":
                self._pieces += 1
            if kind == "text":
                self._meter.saw(event.text.text)
            elif kind == "reasoning":
                self._meter.saw(event.reasoning.text, reasoning=True)
            elif kind == "tool_call":
                self._meter.saw(event.tool_call.arguments_json)
            elif kind == "usage":
                self.usage = event.usage
            elif kind == "finished":
                self.usage = event.finished.usage
                self._ended = self.succeeded = True
            elif kind == "error":
                self._take_failure(message, error_of(event.error))
                return
            if self._rescue is not None:
                self._rescue.saw(event, kind)

    def _may_mend(self, error: MoaError) -> bool:
        return self._rescue is not None and self._rescue.may_help(self.model, error)

    async def _go_on(self, error: MoaError) -> Begun[text_service_pb2.GenerateTextResponse] | None:
        self.usage.exact = False
        return await self._rescue.go_on(self.model, error) if self._rescue is not None else None

    def _consumed(self) -> usage_pb2.Usage | None:
        if self.usage.prompt_tokens or self.usage.completion_tokens:
            # A provider that reports as it goes may have delivered more since.
            # No provider sends a piece that holds no token.
            if not self._ended and self.usage.completion_tokens < self._pieces:
                self.usage.completion_tokens = self._pieces
            return self.usage
        return self._meter.usage() if self._pieces else None

    def _settle_left(self) -> None:
        if self.usage.prompt_tokens:
            self._book(self._consumed() or self.usage)
        elif self._pieces:
            usage = self._meter.usage()
            usage.exact = False
            self.booking.report(usage=usage, provider=self.model.provider, model=self.model.id)
            self._background.run(self._settle_counted(usage, self._prompt, self.on_settled))
        else:
            self._in_doubt(usage_pb2.Usage())

    async def _settle_counted(
        self, usage: usage_pb2.Usage, prompt: Callable[[Model], Awaitable[int]], then: Told
    ) -> None:
        usage.prompt_tokens = await prompt(self.model)
        self._book(usage, then)

    def _let_go(self) -> None:
        super()._let_go()
        self._rescue = None
        self._prompt = _unknown


class ImageAnswer(Answer[image_service_pb2.GenerateImageResponse]):
    """Images. Charged for those that were handed to the caller, which the handler tells by `delivered`."""

    _message = image_service_pb2.GenerateImageResponse

    def __init__(self, *, ask: Ask[image_service_pb2.GenerateImageResponse] | None, **known: Any) -> None:
        super().__init__(**known)
        self._ask = ask
        self._shown = False
        self._delivered = 0

    def delivered(self, count: int) -> None:
        """Note that `count` more images have been written to the caller."""
        self._delivered += count

    def _watch(self, message: image_service_pb2.GenerateImageResponse) -> None:
        for event in message.events:
            kind = event.WhichOneof("event")
            if kind == "usage":
                self.usage = event.usage
            elif kind == "finished":
                self.usage = event.finished.usage
                self._ended = self.succeeded = True
            elif kind == "error":
                self._take_failure(message, error_of(event.error))
                return
            elif kind == "image" or kind == "text":
                self._shown = True

    def _may_mend(self, error: MoaError) -> bool:
        # Waiting and progress are no part of the answer.
        return self._ask is not None and not self._shown and self.attempts.may_go_on(self.model, error)

    async def _go_on(self, error: MoaError) -> Begun[image_service_pb2.GenerateImageResponse] | None:
        try:
            begun = await self.attempts.begin(self._ask) if self._ask is not None else None
        except MoaError:
            return None
        if begun is None:
            return None
        self.usage = usage_pb2.Usage()
        first = image_started(begun.model)
        first.events.extend(begun.first.events)
        return begun._replace(first=first)

    def _let_go(self) -> None:
        super()._let_go()
        self._ask = None

    def _is_left(self, error: BaseException | None) -> bool:
        # Made to the last, and not handed over.
        undelivered = error is not None and self.succeeded and self._delivered < self.usage.images
        return undelivered or super()._is_left(error)

    def _settle_left(self) -> None:
        if self._ended:
            self._book(self.usage)
        else:
            self._in_doubt(usage_pb2.Usage(images=self._delivered, exact=True))

    def _consumed(self) -> usage_pb2.Usage | None:
        if not self._delivered:
            return None
        self.usage.images = self._delivered
        return self.usage


def text_started(model: Model) -> text_service_pb2.GenerateTextResponse:
    """Make the event that tells who answers."""
    started = text_pb2.Started(provider=model.provider, model=model.id)
    return text_service_pb2.GenerateTextResponse(events=[text_pb2.TextEvent(started=started)])


def image_started(model: Model) -> image_service_pb2.GenerateImageResponse:
    """Make the event that tells who answers."""
    started = image_pb2.ImageStarted(provider=model.provider, model=model.id)
    return image_service_pb2.GenerateImageResponse(events=[image_pb2.ImageEvent(started=started)])
