"""An answer whose length nobody bounded: its reservation begins with an increment and grows ahead of delivery.

So one caller does not lock a day's quota, and an answer may still be as long as its model and its account allow
(docs/charging.md).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from moa.common.v1 import usage_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.catalogue import Model
from services.common import logs
from services.common.errors import MoaError, QuotaExhausted, error_of
from services.common.metering import TextMeter, nobody
from services.quota_client.amounts import Amount
from services.router.domain.bounds import Rates
from services.router.domain.failures import NotExtended
from services.router.domain.ports import MessageStream, Reservation

INCREMENT: Final = 4096
"""Tokens of completion that are set aside at first: most answers are shorter, and need no call and no second."""
UNKNOWN_INCREMENT: Final = 8192
"""The same, of a model of which neither context nor longest answer is known."""
_AHEAD: Final = INCREMENT // 2
"""When so many are left, more are set aside: a second of the fastest models, in which auth answers many times."""
_AT_ONCE: Final = 2
"""Of a long answer this part of what it has had is set aside at once, so that it needs few further reservations."""

_log = logs.get("growth")

Message = text_service_pb2.GenerateTextResponse
TextStream = MessageStream[Message]


def increment(model: Model) -> int:
    """Return how many tokens of completion are set aside at first for an answer that nobody bounded."""
    return INCREMENT if model.context_tokens or model.max_output_tokens else UNKNOWN_INCREMENT


class Growth:
    """What is set aside for one answer's completion, whoever answers.

    Args:
        paying: What pays.
        covered: Tokens of completion that it has.
        rates: What they cost at most.
        candidates: How many answers there are.
        most: Tokens of completion that they can have: their model ends them by itself then.
    """

    def __init__(self, paying: Reservation, *, covered: int, rates: Rates, candidates: int, most: int) -> None:
        self._paying = paying
        self._rates = rates
        self.candidates = candidates
        self._most = most
        self._ahead = min(_AHEAD, covered // 2)
        self._running: asyncio.Task[None] | None = None
        self._refusal: MoaError | None = None
        self.covered = covered
        """Tokens of completion that are set aside."""
        self.meter = TextMeter(0)
        self._streams: list[Growing] = []
        """Whose messages are held back once all is used up: several are asked at once where one is hedged."""

    def meter_by(self, meter: TextMeter) -> None:
        """Take what meters the delivered: the answer's own, or, of one that is wanted whole, that of its parts."""
        self.meter = meter
        meter.at_mark = self._look
        self._look()

    def lead(self, stream: Growing) -> None:
        """Hold a target's messages back from now on, where nothing is set aside for them."""
        self._streams.append(stream)

    def leave(self, stream: Growing) -> None:
        """Ask for nothing more, unless another target goes on."""
        if stream in self._streams:
            self._streams.remove(stream)
            if not self._streams:
                self._rest()

    def _rest(self) -> None:
        self.meter.mark, self.meter.at_mark = math.inf, nobody
        if self._running is not None:
            self._running.cancel()

    @property
    def _is_short(self) -> bool:
        """Whether all that was set aside is used up."""
        return self.covered < self._most and self.meter.completion_so_far >= self.covered

    def _look(self) -> None:
        """Set more aside, in the background, before all is used up; once it is, hold the messages back."""
        if not self._streams:
            return
        meter, short = self.meter, self._is_short
        if self.covered >= self._most:
            meter.mark = math.inf
        elif meter.completion_so_far + self._ahead <= self.covered:
            meter.mark = self.covered - self._ahead + 1
        else:
            meter.mark = math.inf if short else self.covered
            if self._running is None and self._refusal is None:
                self._running = asyncio.create_task(self._extend(), name="growth")
        for stream in self._streams:
            stream.hold(back=short)

    def end(self, meter: TextMeter) -> Message:
        """Return the end of an answer that no more is set aside for; `meter` has counted it."""
        # No more was delivered than was set aside, as far as anybody knows.
        return cut_short(meter, text_pb2.FINISH_REASON_LENGTH, self.candidates, most=self.covered)

    async def more(self) -> MoaError | None:
        """Wait until the answer may go on; return the refusal, where no more can be had."""
        asked = False
        while self._is_short:
            if self._running is not None:
                await asyncio.wait([self._running])
            elif asked:
                return self._refusal
            else:
                # What was refused ahead of need may be there by now.
                asked = True
                await self._extend()
        return None

    async def _extend(self) -> None:
        try:
            tokens = min(max(INCREMENT * self.candidates, self.covered // _AT_ONCE), self._most - self.covered)
            got = await self._paying.extend(self._amount(tokens), least=self._amount(min(self.candidates, tokens)))
        except MoaError as refusal:
            self._refusal = refusal.with_traceback(None)
        except Exception:
            _log.exception("growth.failed")
            self._refusal = NotExtended()
        else:
            self._refusal = None
            more = got.tokens
            if got.nano_usd:
                more = min(more, self._rates.affordable(got.nano_usd, 0))
            self.covered += more
            if more <= 0:
                self._refusal = NotExtended()
        finally:
            self._running = None
            self._look()

    def _amount(self, tokens: int) -> Amount:
        amount = Amount(tokens=tokens, nano_usd=self._rates.nano_usd(0, tokens))
        # Whoever brings a provider's key pays no dollars here.
        return amount.of(self._paying.amount)


def cut_short(
    meter: TextMeter,
    reason: text_pb2.FinishReason.ValueType,
    candidates: int,
    came: Sequence[text_pb2.TextEvent] = (),
    *,
    most: int | None = None,
) -> Message:
    """Return the end of an answer that goes no further than what was delivered.

    Args:
        meter: What was delivered.
        reason: Why its candidates end.
        candidates: How many it has.
        came: Events that go no further, and may tell what the prompt came to.
        most: Tokens of completion that were delivered at most, beside what was reported.
    """
    usage = usage_pb2.Usage()
    usage.CopyFrom(_reported(came) or (meter.usage if meter.usage.prompt_tokens else meter.so_far()))
    made = meter.completion_so_far
    usage.completion_tokens = max(meter.usage.completion_tokens, made if most is None else min(made, most))
    usage.reasoning_tokens = min(usage.reasoning_tokens, usage.completion_tokens)
    usage.exact = False
    message = Message()
    for candidate in sorted({*range(candidates)} - meter.ended):
        message.events.add(candidate=candidate, candidate_finished=text_pb2.CandidateFinished(reason=reason))
    message.events.add(finished=text_pb2.Finished(usage=usage))
    return message


def _reported(events: Sequence[text_pb2.TextEvent]) -> usage_pb2.Usage | None:
    """Return what the provider reported last among events; None where it reported no prompt."""
    for event in reversed(events):
        kind = event.WhichOneof("event")
        usage = event.usage if kind == "usage" else event.finished.usage if kind == "finished" else None
        if usage is not None and usage.prompt_tokens:
            return usage
    return None


class Growing:
    """A target's messages, which go on as long as something is set aside for them, and end at their length then.

    Whoever reads them meters their events (`Growth.meter_by`). Mostly `read` is the target's own, and costs nothing.
    """

    def __init__(self, stream: TextStream, growth: Growth) -> None:
        self._stream = stream
        self._growth = growth
        self.read: Callable[[], Coroutine[Any, Any, Message | None]] = stream.read
        growth.lead(self)

    def hold(self, *, back: bool) -> None:
        """Have the next message wait until more is set aside, or not."""
        self.read = self._once_covered if back else self._stream.read

    async def _once_covered(self) -> Message | None:
        """Return the next message. Raises MoaError, NotExtended where auth cannot say whether more is left."""
        growth = self._growth
        meter = growth.meter
        if (refusal := await growth.more()) is not None:
            self.cancel()
            if not isinstance(refusal, QuotaExhausted):
                raise NotExtended() from refusal
            return growth.end(meter)
        return await self._stream.read()

    def cancel(self) -> None:
        """Stop the work behind it."""
        self._let_go()
        self._stream.cancel()

    def close(self) -> None:
        """Let go of it."""
        self._let_go()
        self._stream.close()

    def _let_go(self) -> None:
        self._growth.leave(self)
        self.hold(back=False)


class Collected:
    """The messages of an answer that is wanted whole, as one: a long one comes in parts.

    Args:
        growth: What is set aside for it; None: all of it was at first.
        prompt: Guesses the prompt's tokens.
    """

    def __init__(self, stream: TextStream, growth: Growth | None, *, prompt: Callable[[], int]) -> None:
        self._stream = stream
        self._growth = growth
        self._parts = Message()
        self._meter: TextMeter | None = None
        """Meters the parts, where what is set aside grows."""
        if growth is not None:
            self._meter = TextMeter(prompt)
            growth.meter_by(self._meter)

    async def read(self) -> Message | None:
        """Return the whole answer, and before it signs of life. Raises MoaError."""
        growth, meter = self._growth, self._meter
        # It may be the other's, of two targets that are asked at once.
        if growth is not None and meter is not None and growth.meter is not meter:
            growth.meter_by(meter)
        message = await self._stream.read()
        if message is None or not message.events:
            return message
        last = message.events[-1]
        if last.HasField("error"):
            raise error_of(last.error)
        if last.HasField("finished") and not self._parts.events:
            return message
        if meter is not None:
            for event in message.events:
                meter.saw(event, event.WhichOneof("event"))
        self._parts.events.extend(message.events)
        if not last.HasField("finished"):
            return Message()
        return self._parts

    def cancel(self) -> None:
        """Stop the work behind it."""
        self._stream.cancel()

    def close(self) -> None:
        """Let go of it."""
        self._stream.close()
