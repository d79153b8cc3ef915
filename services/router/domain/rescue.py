"""Rescue: a text stream that died after its first events goes on at another target, without a seam or with an error.

Where the target takes an assistant's prefill it is given what was delivered, and continues from there. Else it begins
anew, and what it says first is left out as long as it is, letter for letter, what was delivered; at the first
difference it is given up. What cannot be gone on with is not rescued: half a tool call, several candidates, a form
that the answer is held to, log probabilities.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from moa.common.v1 import error_pb2, usage_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.catalogue import Model
from services.common.errors import MoaError, error_of
from services.common.metering import TextMeter
from services.router.domain.attempts import Attempts
from services.router.domain.failures import ContinuationDiffers
from services.router.domain.ports import MessageStream, Reservation
from services.router.domain.terms import Begun

Message = text_service_pb2.GenerateTextResponse
TextStream = MessageStream[Message]

_FREE = (text_pb2.ResponseFormat.KIND_UNSPECIFIED, text_pb2.ResponseFormat.KIND_TEXT)
_AGAIN = frozenset((error_pb2.REASON_UPSTREAM_BROKEN, error_pb2.REASON_UNAVAILABLE))
"""After these the same target may go on, where it takes a prefill: another of its machines, or itself restarted."""


class TextCall(Protocol):
    """The request, as it is put to one target after another."""

    @property
    def request(self) -> text_service_pb2.GenerateTextRequest:
        """It."""

    @property
    def granted(self) -> int:
        """Tokens that the answer may have, as far as the quota goes."""

    def chargeable(self, paying: Reservation) -> int:
        """Return how many tokens may be charged at most."""

    def ask_on(
        self, model: Model, paying: Reservation, *, prefix: str = "", spent: int = 0, books: bool = True
    ) -> TextStream:
        """Begin an answer by a target."""


def rescue_for(call: TextCall, attempts: Attempts[Message], meter: TextMeter, others: bool) -> Rescue | None:
    """Return what may rescue an answer, whose events `meter` counts; None where nothing could."""
    request = call.request
    formed = request.response_format.kind not in _FREE
    if not request.stream or request.candidates > 1 or request.sampling.logprobs or formed:
        return None
    return Rescue(call, attempts, meter) if others or attempts.asked.can("prefill") else None


class Rescue:
    """What one answer has shown so far, and the way on from there."""

    def __init__(self, call: TextCall, attempts: Attempts[Message], meter: TextMeter) -> None:
        self._call = call
        self._attempts = attempts
        self._pieces: list[str] = []
        self._meter = meter
        self._thought = False
        self._lost = False
        self._repeated = False

    def saw_messages(self, messages: Iterable[Message]) -> None:
        """Note messages that are on their way to the caller, up to an error."""
        for message in messages:
            for event in message.events:
                kind = event.WhichOneof("event")
                if kind == "text":
                    self._pieces.append(event.text.text)
                elif kind == "reasoning":
                    self._thought = True
                elif kind == "tool_call" or kind == "candidate_finished":
                    self._lost = True
                elif kind == "error":
                    break

    def may_help(self, model: Model, error: MoaError) -> bool:
        """Return whether an answer that failed like this may go on elsewhere."""
        return not self._lost and self._attempts.may_go_on(model, error)

    async def go_on(self, model: Model, error: MoaError) -> Begun[Message] | None:
        """Return what goes on after the messages that were noted; None when nobody can. `model` failed by `error`."""
        if error.reason in _AGAIN and model.can("prefill") and not self._repeated:
            self._repeated = True
            self._attempts.forgive(model)
        try:
            return await self._attempts.begin(self._ask, able=self._is_able)
        except MoaError:
            return None

    def _ask(self, model: Model, paying: Reservation) -> TextStream:
        delivered, most = "".join(self._pieces), self._call.chargeable(paying)
        counted = self._meter.so_far()
        spent = counted.completion_tokens
        prefix = self._prefix(model, delivered)
        if prefix:
            # Its prompt holds the prefix, so its own count of both is what was delivered: it may book that itself.
            stream = self._call.ask_on(model, paying, prefix=prefix, spent=spent)
            return Continuation(stream, model, expected=delivered[len(prefix) :], before=counted, most=most)
        # It says again what was delivered, and until then has less to book than was.
        stream = self._call.ask_on(model, paying, books=not delivered)
        return Continuation(stream, model, expected=delivered, before=None, most=most)

    def _is_able(self, model: Model) -> bool:
        """Return whether a target may go on: one that has to begin anew would reason anew."""
        return not self._thought or bool(self._prefix(model, "".join(self._pieces)))

    def _prefix(self, model: Model, delivered: str) -> str:
        """Return what a target is given to go on from; empty where it has to begin anew."""
        prefix = delivered.rstrip()  # Anthropic's models refuse one that ends with white space
        request = self._call.request
        if not model.can("prefill") or request.messages[-1].role == text_pb2.ROLE_ASSISTANT:
            return ""
        if self._meter.so_far().completion_tokens >= self._call.granted:
            return ""
        # A stop string that has begun would not be seen.
        begun = any(prefix.endswith(stop[:size]) for stop in request.stop for size in range(1, len(stop)))
        return "" if begun else prefix


class Continuation:
    """A target's messages as they go on after what was delivered. The first begins with who answers now.

    Args:
        expected: What the target has to say first, and is not shown again.
        before: What was delivered before, for a target whose prompt holds it; None for one that begins anew.
        most: What is charged at most, in tokens.
    """

    def __init__(
        self, stream: TextStream, model: Model, *, expected: str, before: usage_pb2.Usage | None, most: int
    ) -> None:
        self._stream = stream
        self._expected = expected
        self._before = before
        self._most = most
        self._started: text_pb2.Started | None = text_pb2.Started(provider=model.provider, model=model.id)

    async def read(self) -> Message | None:
        """Return the next message that has something new. Raises MoaError, ContinuationDiffers where they differ."""
        while (message := await self._stream.read()) is not None:
            events = [event for event in message.events if self._is_new(event)]
            if not events:
                continue
            shown = Message()
            if self._started is not None:
                shown.events.add(started=self._started)
                self._started = None
            shown.events.extend(events)
            return shown
        return None

    def _is_new(self, event: text_pb2.TextEvent) -> bool:
        kind = event.WhichOneof("event")
        if kind == "error" and self._started is not None:
            raise error_of(event.error)
        if kind == "started":
            return False
        if kind == "usage":
            self._count(event.usage)
        elif kind == "finished":
            self._count(event.finished.usage)
        if not self._expected:
            return True
        if kind == "reasoning" or kind == "usage" or kind is None:
            return False
        if kind != "text":
            raise ContinuationDiffers("the continued answer ended before what had already been delivered")
        text = event.text.text
        size = min(len(text), len(self._expected))
        if text[:size] != self._expected[:size]:
            raise ContinuationDiffers("the continued answer differs from what had already been delivered")
        self._expected = self._expected[size:]
        event.text.text = text[size:]
        return bool(event.text.text)

    def _count(self, usage: usage_pb2.Usage) -> None:
        """Make a target's own count that of the whole answer, and never more than is reserved."""
        before = self._before
        if before is not None:
            given = min(before.completion_tokens - before.reasoning_tokens, usage.prompt_tokens)
            usage.prompt_tokens -= given
            usage.cached_tokens = min(usage.cached_tokens, usage.prompt_tokens)
            usage.completion_tokens += given + before.reasoning_tokens
            usage.reasoning_tokens += before.reasoning_tokens
            usage.exact = False
        usage.prompt_tokens = min(usage.prompt_tokens, self._most)
        usage.completion_tokens = min(usage.completion_tokens, self._most - usage.prompt_tokens)

    def cancel(self) -> None:
        """Stop the work behind it."""
        self._stream.cancel()

    def close(self) -> None:
        """Let go of it."""
        self._stream.close()
