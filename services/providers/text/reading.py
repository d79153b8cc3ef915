"""What readers of answers have in common: framing, failures, candidates that end, usage, tool calls."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, NoReturn, Protocol
from uuid import uuid4

import msgspec

from moa.text.v1.text_pb2 import FinishReason, TextEvent, ToolCallDelta
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common import errors
from services.common.estimate import ReportedUsage, prompt_tokens
from services.common.metering import TextMeter
from services.common.scrub import scrub
from services.providers.http.client import MAX_ANSWER_BYTES
from services.providers.http.constants import without_constants
from services.providers.http.sse import ErrorData
from services.providers.text import embedded_errors
from services.providers.text.surrogates import Surrogates


class Framing(Protocol):
    """Splits a stream into payloads, wherever its bytes are split."""

    def feed(self, data: bytes) -> Sequence[Any]:
        """Return the payloads that `data` completes. Raises UpstreamBroken when the framing is broken."""
        ...

    def end(self) -> Sequence[Any]:
        """Return what is left when the stream has ended."""
        ...


class Malformed(Exception):
    """A payload cannot be read."""


_UNREADABLE: Final = (Malformed, msgspec.MsgspecError, ValueError, RecursionError)
"""What a payload that cannot be read raises. ValueError: text that is no UTF-8, a number that no message holds."""


_SLACK: Final = 8
"""Tokens, and a quarter of what was granted, by which an answer may seem too long: they are counted from outside."""
_LONGEST_TOKEN: Final = 128
"""Characters of the longest tokens of the vocabularies in use."""
_METERED_BYTES: Final = 16 * 1024
"""Pieces of text are metered together, once so many bytes were read or somebody asks what they come to."""


class _Length:
    """How long a candidate is, told from its pieces: no more tokens than it has pieces, or than its letters make."""

    __slots__ = ("letters", "others", "pieces")

    def __init__(self) -> None:
        self.pieces = self.letters = self.others = 0


class BaseReader(abc.ABC):
    """A `Reader` but for the payloads: subclasses say what one means (`_take`), and what a whole answer does.

    Args:
        request: What was asked.
        framing: Splits a streamed answer; None for a whole one.
        signer: The vendor that makes the signatures of reasoning and calls.
    """

    __slots__ = (
        "_begun_calls",
        "_calls_of",
        "_events",
        "_finished",
        "_framing",
        "_lengths",
        "_limit",
        "_mended",
        "_meter",
        "_nameless",
        "_signer",
        "_spoke",
        "_surrogates",
        "_unmetered",
        "_unmetered_bytes",
        "_wanted",
        "_whole",
        "_with_reasoning",
        "cut",
        "done",
        "ending",
        "failure",
        "upstream_id",
    )

    def __init__(self, request: GenerateTextRequest, framing: Framing | None, *, signer: str = "") -> None:
        self._signer = signer
        self.done = False
        self.ending = False
        self.cut = False
        self.upstream_id = ""
        self.failure: errors.MoaError | None = None
        self._framing = framing
        self._whole = bytearray()
        self._wanted = max(1, request.candidates)
        self._with_reasoning = request.reasoning.include
        self._meter = TextMeter(partial(prompt_tokens, request))
        self._unmetered: list[str] = []
        """Pieces of text that are not metered yet."""
        self._unmetered_bytes = 0
        """What was read since they were."""
        self._limit = request.max_tokens if framing is not None and request.HasField("max_tokens") else 0
        """Tokens of a streamed candidate that were asked for; 0: any number."""
        self._lengths: dict[int, _Length] = {}
        self._finished: set[int] = set()
        self._begun_calls: dict[tuple[int, int], str] = {}
        """The name of each."""
        self._calls_of: dict[int, int] = {}
        """How many a candidate has begun."""
        self._nameless: dict[tuple[int, int], ToolCallDelta] = {}
        """Calls of which no name has come yet."""
        self._spoke: set[int] = set()
        """Candidates that said or called something."""
        self._events: list[TextEvent] = []
        self._surrogates = Surrogates()
        self._mended = False
        """Whether the server writes in its own way, so that halves of characters may come."""

    # For subclasses to say.

    @abc.abstractmethod
    def _take(self, payload: Any) -> None:
        """Read one payload of a stream. Raises Malformed, or MoaError for a failure that the provider reports."""

    @abc.abstractmethod
    def _take_whole(self, data: bytes) -> None:
        """Read a whole answer. Raises as `_take` does."""

    @abc.abstractmethod
    def _failed(self, found: embedded_errors.EmbeddedError) -> errors.MoaError:
        """Return the error that one of no known shape stands for."""

    @property
    def _is_over(self) -> bool:
        """Whether nothing of the answer itself can come any more, only the provider's closing words."""
        return self.ending

    def _conclude(self) -> None:  # noqa: B027  # most have nothing left to do
        """Do what is left to do when the provider has said its last word."""

    # The `Reader` contract.

    def feed(self, data: bytes) -> list[TextEvent]:
        """Return the events that `data` completes, up to a failure."""
        self._events = []
        self._unmetered_bytes += len(data)
        if self._unmetered_bytes >= _METERED_BYTES:
            self._meter_text()
        try:
            if self._framing is not None:
                self._read(self._framing.feed(data))
            else:
                self._whole += data
                if len(self._whole) > MAX_ANSWER_BYTES:
                    raise errors.UpstreamBroken("the provider's answer is too long")
        except errors.MoaError as error:
            self.failure = error
        return self._events

    def end(self) -> list[TextEvent]:
        """Return the closing events. A whole answer is read here."""
        self._events = []
        if self.done:
            return []
        try:
            if self._framing is not None:
                self._read(self._framing.end())
            else:
                self._read_whole(bytes(self._whole))
            if not self.done:
                self._conclude()
                self._finish()
        except errors.MoaError as error:
            self.failure = error
        return self._events

    @property
    def meter(self) -> TextMeter:
        """What meters the answer, with all that it has said."""
        if self._unmetered:
            self._meter_text()
        return self._meter

    # For subclasses to use.

    def _meter_text(self) -> None:
        texts, self._unmetered, self._unmetered_bytes = self._unmetered, [], 0
        self._meter.saw_pieces(texts)

    def _read_whole(self, data: bytes) -> None:
        try:
            self._take_whole(data)
        except _UNREADABLE as error:
            # A count that is no number takes nothing from a good answer.
            mended = without_constants(data)
            if mended is None:
                raise errors.UpstreamBroken("the provider's answer could not be read") from error
            self._read_whole(mended)

    def _read(self, payloads: Sequence[Any]) -> None:
        for payload in payloads:
            if self.done:
                break
            if isinstance(payload, ErrorData):
                self._read_error(bytes(payload))
            if payload == b"":
                continue  # some servers keep a connection alive by empty data
            try:
                self._take(payload)
            except _UNREADABLE as error:
                mended = without_constants(payload) if isinstance(payload, bytes) else None
                if mended is not None:
                    self._read((mended,))
                elif not self._is_over:
                    # It may have held a word: an answer that lacks one is none.
                    raise errors.UpstreamBroken("the provider sent a piece that cannot be read") from error

    def _read_error(self, payload: bytes) -> NoReturn:
        """Read what an event holds that is called an error. Always raises MoaError."""
        if payload not in (b"", b"[DONE]"):
            with contextlib.suppress(*_UNREADABLE):
                self._take(payload)
        raise self._failed(embedded_errors.error_of(payload))

    def _take_bare(self, payload: Mapping[str, Any], *, known: bool = False) -> None:
        """Read an object without a piece of the answer. Raises the error that it is.

        Raises Malformed where it may be a word: unless it is `known` for a piece that has none.
        """
        found = embedded_errors.error_in(payload)
        if found is not None:
            raise self._failed(found)
        if not known and embedded_errors.may_speak(payload):
            raise Malformed

    def _unheard(self, what: str) -> errors.Unsupported:
        """Return the error of an answer that holds what no event has a form for."""
        return errors.Unsupported(f"the model answered with {what}, which an answer here cannot hold", param="model")

    def _is_too_long(self, candidate: int, text: str) -> bool:
        """Note a piece; end its candidate where the provider plainly gives more than was asked for."""
        length = self._lengths.get(candidate)
        if length is None:
            length = self._lengths[candidate] = _Length()
        length.pieces += 1 + len(text) // _LONGEST_TOKEN
        length.letters += len(text)
        if not text.isascii():
            length.others += len(text) - len(text.encode("ascii", "ignore"))
        most = self._limit + max(_SLACK, self._limit // 4)
        # A letter of another script is half a token more.
        if length.pieces <= most or length.letters / 4 + length.others / 2 <= most:
            return False
        self._surrogates.forget(candidate)
        self._end_candidate(candidate, FinishReason.FINISH_REASON_LENGTH)
        if self.ending:
            self.cut = True
            self._finish()
        return True

    def _text(self, text: str, candidate: int, kind: str) -> str:
        """Return a piece of one of a candidate's texts, in whole characters. Raises ValueError."""
        return self._surrogates.whole(text, (candidate, kind)) if self._mended else text

    def _say(self, candidate: int, text: str) -> None:
        if self._limit and self._is_too_long(candidate, text):
            return
        # To name the first candidate, which is the default, costs a third more.
        event = TextEvent(candidate=candidate) if candidate else TextEvent()
        event.text.text = text
        self._unmetered.append(text)
        self._spoke.add(candidate)
        self._events.append(event)

    def _reason(self, candidate: int, text: str, signature: bytes = b"") -> None:
        if text and self._limit and self._is_too_long(candidate, text):
            return
        if self._with_reasoning:
            event = TextEvent(candidate=candidate)
            event.reasoning.text = text
            if signature:
                event.reasoning.signature = signature
                event.reasoning.signer = self._signer
            if text:
                self._meter.saw_piece(text, reasoning=True)
            self._events.append(event)
        elif text:
            self._meter.saw_unshown(text, reasoning=True)

    def _call(
        self,
        candidate: int,
        index: int,
        arguments: str,
        *,
        call_id: str | None = None,
        name: str | None = None,
        signature: bytes = b"",
        custom: bool = False,
    ) -> None:
        """Return a piece of a tool call. The first piece of an index carries id (made where there is none) and name.

        Raises Malformed where a call changes its name.
        """
        if self._limit and self._is_too_long(candidate, arguments):
            return
        place = (candidate, index)
        delta = ToolCallDelta(call_index=index, arguments_json=arguments, custom=custom)
        if signature:
            delta.signature = signature
            delta.signer = self._signer
        if place in self._begun_calls:
            if name and name != self._begun_calls[place]:
                raise Malformed
        else:
            held = self._nameless.pop(place, None)
            if held is not None:
                arguments = held.arguments_json + arguments
                held.MergeFrom(delta)
                held.arguments_json = arguments
                delta = held
            delta.id = delta.id or call_id or ""
            if not name:
                self._nameless[place] = delta
                return
            self._begun_calls[place] = delta.name = name
            self._calls_of[candidate] = self._calls_begun(candidate) + 1
            delta.id = delta.id or f"call_{uuid4().hex}"
        event = TextEvent(candidate=candidate, tool_call=delta)
        self._meter.saw_piece(delta.arguments_json)
        self._spoke.add(candidate)
        self._events.append(event)

    def _count(self, reported: ReportedUsage | None, *, closing: bool = False) -> None:
        """Take what the provider counts, and tell it at once where the answer goes on: its caller may leave any time.

        `closing`: the answer's end follows, which tells it.
        """
        if reported is None or reported == self._meter.reported:
            return
        self._meter.reported = reported
        if self._framing is not None and reported.prompt and not closing:
            event = TextEvent(usage=self.meter.so_far())
            self._meter.saw(event, "usage")
            self._events.append(event)

    def _has_begun(self, place: tuple[int, int]) -> bool:
        return place in self._begun_calls or place in self._nameless

    def _calls_begun(self, candidate: int) -> int:
        return self._calls_of.get(candidate, 0)

    def _end_candidate(
        self, candidate: int, reason: FinishReason.ValueType, *, refusal: str = "", stop_sequence: str = ""
    ) -> None:
        if candidate in self._finished:
            return
        if self._nameless and any(owner == candidate for owner, _ in self._nameless):
            raise errors.UpstreamBroken("the provider sent a tool call without a name")
        if self._mended:
            self._surrogates.end(candidate)
        # Why an answer was withheld is the provider's text, not the model's.
        # Field by field, in a sixth of the time of arguments.
        event = TextEvent()
        ended = event.candidate_finished
        ended.reason = reason
        if candidate:
            event.candidate = candidate
        if refusal:
            ended.refusal = scrub(refusal)
        if stop_sequence:
            ended.stop_sequence = scrub(stop_sequence)
        self._events.append(event)
        self._finished.add(candidate)
        self.ending = len(self._finished) >= self._wanted

    def _finish(self) -> None:
        if self.done:
            return
        if len(self._finished) < self._wanted or self._spoke - self._finished:
            raise errors.UpstreamBroken("the provider's answer broke off")
        self.done = True
        usage = self.meter.so_far()
        if self.cut:
            # Whatever the provider counts: nobody asked for more.
            usage.completion_tokens = min(usage.completion_tokens, self._limit * self._wanted)
            usage.reasoning_tokens = min(usage.reasoning_tokens, usage.completion_tokens)
            usage.exact = False
        event = TextEvent()
        event.finished.usage.CopyFrom(usage)
        self._events.append(event)
