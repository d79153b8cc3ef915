"""An answer under way: its messages in order, one end, and its settlement, whatever happens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from types import TracebackType
from typing import Any, Final, Generic, Self

from google.protobuf.descriptor import Descriptor

from moa.common.v1 import usage_pb2
from moa.common.v1.rates_pb2 import UpstreamRates
from services.catalogue import Model, Retirement
from services.common.errors import ContentPolicy, MoaError, UpstreamBroken, detail_of, error_of, word
from services.router import metrics
from services.router.background import Background
from services.router.domain.attempts import Attempts
from services.router.domain.operation import Metering, WayOn
from services.router.domain.policies import Screen, Stopped
from services.router.domain.ports import M, MessageStream, Reservation
from services.router.domain.request_log import Recording
from services.router.domain.terms import Begun

OnSettled = Callable[[usage_pb2.Usage], None]

_LATE_BYTES: Final = 4096
"""So much of an answer may be delivered before it is metered: what was consumed is only asked now and then."""


@cache
def _tells_rates(finished: Descriptor) -> bool:
    """Return whether an operation's answers say what is left of a provider's limits."""
    return "rates" in finished.fields_by_name


def _nobody(*_: object) -> None:
    """Listen to nothing."""


def _no_end(*_: object) -> None:
    """Make no end: an answer that is stopped ends in an error."""


class Answer(Generic[M]):
    """The messages of one answer. An async context manager: leaving it stops the work and settles.

    The first message is in hand when an answer exists, so an early failure was raised instead. From then on a
    failure is an `error` event, and exactly one `finished` or `error` event is the last. Whoever takes messages changes
    none: pieces of text are metered later, several messages at once.

    Args:
        begun: What began to answer.
        attempts: Who was asked.
        metering: What it consumes, and what its caller owes.
        request_id: For errors.
        background: Where the prompt of a caller who left is counted.
        ending: The retirement of the model that was asked for.
        ignored: Fields of the request without effect on who answers.
        way_on: How it goes on when it breaks; None: it does not.
        screen: The policies that judge its messages; None: none do.
        learn: Takes what whoever answers says of its limits.
        stopped: Makes the end of an answer that a policy stops (`Call.stopped`).
        route: The virtual model that was asked for; empty where it was none.
        recording: What is noted of it for the log of its team's requests; None: nothing is.
    """

    def __init__(
        self,
        *,
        begun: Begun[M],
        attempts: Attempts[M],
        metering: Metering,
        request_id: str,
        background: Background,
        ending: Retirement | None = None,
        ignored: Sequence[str] = (),
        way_on: WayOn[M] | None = None,
        screen: Screen[M] | None = None,
        learn: Callable[[Model, UpstreamRates], None] = _nobody,
        stopped: Callable[[Metering, Sequence[Any]], M | None] = _no_end,
        route: str = "",
        recording: Recording | None = None,
    ) -> None:
        self.model = begun.model
        """Who answers."""
        self.asked = attempts.asked
        """Who was asked for."""
        self.route = route
        """The virtual model that was asked for; empty where it was none."""
        self.ending = ending
        """The retirement of the model that was asked for, to be told to the caller."""
        self.ignored = ignored
        """Fields of the request without effect on who answered first."""
        self.attempts: Attempts[M] = attempts
        self._metering = metering
        self._unmetered: list[M] = []
        """Messages of which neither `metering` nor `way_on` has heard."""
        self._unmetered_bytes = 0
        self._way_on = way_on
        self._screen = screen
        self._learn = learn
        self._stopped = stopped
        self._recording = recording
        self._background = background
        self._stream: MessageStream[M] = begun.stream
        self._first: M | None = begun.first
        self._message: type[M] = type(begun.first)
        self._request_id = request_id
        self._ended = False
        self._cut_off = False
        self._failure: MoaError | None = None
        """A failure that may be mended before anybody hears of it."""
        self._settled = False
        self.succeeded = False
        """Whether the last event was `finished`."""
        self.on_settled: OnSettled = _nobody
        """Told what was charged."""
        self.on_broken: Callable[[MoaError], None] = _nobody
        """Told of a failure after the first event."""

        attempts.reservation.follow(self._so_far)

    def _so_far(self) -> tuple[usage_pb2.Usage, str, str] | None:
        """Return what was consumed so far, and of whom."""
        consumed = self._metered().consumed(ended=self._ended)
        return None if consumed is None else (consumed, self.model.provider, self.model.id)

    @property
    def reservation(self) -> Reservation:
        """What pays."""
        return self.attempts.reservation

    @property
    def usage(self) -> usage_pb2.Usage:
        """What was reported."""
        return (self._metered() if self._unmetered else self._metering).usage

    async def next(self) -> M | None:
        """Return the next message; None after the one that held the last event.

        A message without events is a sign of life.
        """
        while not self._ended:
            raised: MoaError | None = None
            if self._failure is not None:
                message = await self._mended(self._failure)
            elif self._first is not None:
                message, self._first = self._first, None
            else:
                try:
                    read = await self._stream.read()
                    if read is None:
                        raise UpstreamBroken("the answer broke off")
                    message = read
                except MoaError as error:
                    self._cut_off, raised = True, error
                    message = self._failed(error)
            if not self._ended and message.events:
                stopped = None if self._screen is None else await self._screened(self._screen, message)
                self._watch(message, raised)
                if stopped is not None and not self._ended:
                    self._stop(message, *stopped)
                if self._failure is not None and not message.events:
                    # All that it held was a failure, which may be mended.
                    continue
            return message
        return None

    def delivered(self, count: int) -> None:
        """Note that `count` more images have been written to the caller."""
        self._metering.handed(count)

    def delivered_message(self, message: M) -> None:
        """Note that a message has been written to the caller."""
        self._metering.handed_message(message)

    def _watch(self, message: M, raised: MoaError | None) -> None:
        """Note what the message's events say of the end; what they consumed is metered when it must be known.

        `raised` is the failure that it tells.
        """
        metering, waits, failure = self._metering, True, None
        for event in message.events:
            kind = event.WhichOneof("event")
            if kind in metering.pieces:
                continue
            waits = False
            if kind == "finished":
                self._ended = self.succeeded = True
                finished = event.finished
                if _tells_rates(finished.DESCRIPTOR) and finished.HasField("rates"):
                    self._learn(self.model, finished.rates)
                    finished.ClearField("rates")
            elif kind == "error":
                failure = raised or error_of(event.error)
                break
        self._unmetered.append(message)
        if waits:
            self._unmetered_bytes += message.ByteSize()  # type: ignore[attr-defined]  # pieces are Protobuf's
            if self._unmetered_bytes < min(_LATE_BYTES, metering.mark - metering.tokens):
                return
        self._metered()
        if failure is not None:
            self._take_failure(message, failure)

    def _metered(self) -> Metering:
        """Return what meters the answer, once it has heard of all that was delivered."""
        if self._unmetered:
            messages, self._unmetered, self._unmetered_bytes = self._unmetered, [], 0
            self._metering.saw_messages(messages)
            if self._way_on is not None:
                self._way_on.saw_messages(messages)
            if self._recording is not None:
                self._recording.saw_messages(messages)
        return self._metering

    async def _screened(self, screen: Screen[M], message: M) -> tuple[MoaError, Sequence[Any]] | None:
        """Leave in a message what policies let pass; where one stops the answer, return why, and what had come."""
        came = list(message.events)
        try:
            await screen.take(message)
        except Stopped as stopped:
            return stopped.error, came
        return None

    def _stop(self, message: M, error: MoaError, came: Sequence[Any]) -> None:
        """End the answer behind a message, as a policy wants it: what was delivered is charged."""
        self._stream.cancel()
        # It was left before its end: no word of its backend counts.
        self._cut_off = True
        metering = self._metered()
        ending = self._stopped(metering, came) if isinstance(error, ContentPolicy) else None
        if ending is None:
            message.events.extend(self._failed(error).events)
            if metering.consumed(ended=True) is None:
                metrics.unbilled(self.model, word(error.reason), self.attempts.stake)
            self._end(error)
            return
        message.events.extend(ending.events)
        self._watch(ending, None)

    def _take_failure(self, message: M, error: MoaError) -> None:
        """Note the failure that a message ends with; one that may be mended is taken off it."""
        self.attempts.failed(self.model, error)
        if self._way_on is None or not self._way_on.may_help(self.model, error):
            self._end(error)
            return
        # What came with it is on its way to the caller before another target is asked.
        del message.events[-1]
        self._failure = error

    async def _mended(self, error: MoaError) -> M:
        """Return what comes in the place of a failure; the failure, where nothing does."""
        assert self._way_on is not None
        self._metering.broke()
        if self._screen is not None:
            self._screen.forget()
        begun = await self._way_on.go_on(self.model, error)
        metrics.RESCUES.labels("failed" if begun is None else "done").inc()
        if begun is None:
            self._end(error)
            return self._failed(error)
        self._metering.goes_on()
        self.attempts.gave_up(self.model, error)
        self._stream.close()
        self._failure, self._cut_off = None, False
        self.model, self._stream = begun.model, begun.stream
        self.reservation.follow(self._so_far)  # it may be another
        return begun.first

    def _failed(self, error: MoaError) -> M:
        message = self._message()
        message.events.add().error.CopyFrom(detail_of(error, self._request_id))
        return message

    def _end(self, error: MoaError) -> None:
        """Note that the last event is this failure."""
        self._ended, self._failure = True, None
        if self._recording is not None:
            self._recording.broke(error)
        self.on_broken(error)

    def owed(self) -> tuple[usage_pb2.Usage, str, str] | None:
        """Return what would be settled now, of whom; None: nothing."""
        return None if self._settled else self._so_far()

    def give_up(self) -> None:
        """Settle that nothing was consumed: another process answers in its place, or none."""
        if not self._settled:
            self._settled = True
            self.reservation.release()

    def settle(self) -> None:
        """Settle now, by what is known. Leaving the context does this too; only the first time counts."""
        if self._settled:
            return
        self._settled = True
        consumed = self._metered().consumed(ended=self._ended)
        if consumed is None:
            if self._ended and not self._cut_off:
                self.reservation.release()
            else:
                self.reservation.void()
            if self._recording is not None:
                self._recording.settled(None)
        else:
            self._book(consumed)

    def _settle_left(self) -> None:
        """Settle an answer whose caller left before its end (docs/charging.md)."""
        owed, model = self._metered().abandoned(ended=self._ended), self.model
        if owed.known:
            self._book(owed.usage)
        elif owed.prompt is not None:
            self.reservation.report(usage=owed.usage, provider=model.provider, model=model.id)
            self._background.run(self._settle_counted(owed.usage, owed.prompt, self.on_settled))
        else:
            then = self.on_settled
            if self._recording is not None:
                then = self._recording.booked_by(self.reservation, then)
            self.reservation.defer(usage=owed.usage, provider=model.provider, model=model.id, then=then)

    async def _settle_counted(
        self, usage: usage_pb2.Usage, prompt: Callable[[Model], Awaitable[int]], then: OnSettled
    ) -> None:
        usage.prompt_tokens = await prompt(self.model)
        self._book(usage, then)

    def _book(self, usage: usage_pb2.Usage, then: OnSettled | None = None) -> None:
        self.reservation.settle(usage=usage, provider=self.model.provider, model=self.model.id)
        if self._recording is not None:
            self._recording.settled(usage, self.reservation)
        (then or self.on_settled)(usage)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.succeeded:
            self.attempts.finished(self.model, self.usage)
        if self._ended:
            self._stream.close()
        else:
            self._stream.cancel()
        # An error of this process is not the caller's leaving.
        if not self._settled and (error is None or not isinstance(error, Exception)) and self._is_left(error):
            self._settled = True
            self._settle_left()
        self.settle()
        if self._recording is not None:
            self._recording.ended(self.model, left=not self.succeeded or self._is_left(error))
        self._let_go()

    def _is_left(self, error: BaseException | None) -> bool:
        """Return whether the caller left before it had what it is charged for; `error` ended the handler."""
        undelivered = error is not None and self.succeeded and self._metering.is_due
        return undelivered or not self._ended

    def _let_go(self) -> None:
        """Let go of the request, and of who listens, in whose closures this answer is: the cycle would keep both."""
        self.on_settled = self.on_broken = _nobody
        self._first, self._way_on = None, None
        self._stopped = _no_end
        if self._screen is not None:
            self._screen.close()
        self._metering.let_go()
        self.attempts.let_go()
