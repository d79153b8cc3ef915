"""Read OpenAI's answers, streamed or whole, into events."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from moa.common.v1.vendor_pb2 import VendorFields
from moa.text.v1.text_pb2 import FinishReason, TextEvent, TokenLogprob
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model
from services.common import errors
from services.providers.counts import Spelling, read_usage
from services.providers.http.classify import name_of
from services.providers.http.sse import EventParser
from services.providers.openai import errors as failures
from services.providers.openai.text.carried import VENDOR, Returned, may_lack_words
from services.providers.openai.text.lenient import REASONING_NAMES, REFERENCES, reasoning_in, value_of
from services.providers.openai.text.wire import Call, Choice, Chunk, Delta, Logprob, PlainChunk
from services.providers.text.carrying import carried_of
from services.providers.text.embedded_errors import EmbeddedError, may_speak
from services.providers.text.reading import BaseReader, Malformed

_decode: Final = msgspec.json.Decoder(Chunk).decode
_decode_plain: Final = msgspec.json.Decoder(PlainChunk).decode
_decode_any: Final = msgspec.json.Decoder().decode
_skip: Final = msgspec.json.Decoder(msgspec.Raw).decode

FINISH_REASONS: Final[Mapping[str, FinishReason.ValueType]] = {
    "stop": FinishReason.FINISH_REASON_STOP,
    "length": FinishReason.FINISH_REASON_LENGTH,
    "tool_calls": FinishReason.FINISH_REASON_TOOL_CALLS,
    "function_call": FinishReason.FINISH_REASON_TOOL_CALLS,
    "content_filter": FinishReason.FINISH_REASON_CONTENT_FILTER,
}
"""Compatible servers have words of their own for "the model stopped" ("eos", "end_turn"): any other word is a stop."""

COUNTS: Final = Spelling(
    prompt=(("prompt_tokens",),),
    completion=(("completion_tokens",),),
    # OpenAI's, DeepSeek's, Moonshot's, and of servers that speak Anthropic's counts too.
    cached=(
        ("prompt_tokens_details", "cached_tokens"),
        ("prompt_cache_hit_tokens",),
        ("cached_tokens",),
        ("cache_read_input_tokens",),
    ),
    cache_write=(("prompt_tokens_details", "cache_write_tokens"), ("cache_creation_input_tokens",)),
    total=("total_tokens",),
    reasoning=("completion_tokens_details", "reasoning_tokens"),
    prompt_audio=("prompt_tokens_details", "audio_tokens"),
)

_NOTHING: Final = Delta()
_EMPTY: Final = (None, _NOTHING, Delta(content=""))

_PLAIN_TRIES: Final = 8
"""Pieces of another form, one after the other, that a stream may send before each is no longer tried as a plain one."""

_FUNCTIONS: Final = (None, "", "function")
"""Types of calls of functions."""
_NO_FINISHES: Final = frozenset(("null", "none", "None"))
"""As some servers write that there is none yet."""
_FAILED_FINISHES: Final[Mapping[str, type[errors.MoaError]]] = {
    "error": errors.UpstreamFailed,
    "insufficient_system_resource": errors.UpstreamOverloaded,  # DeepSeek
}


def reader(request: GenerateTextRequest, model: Model, headers: Mapping[str, str]) -> OpenAIReader:
    """Make the reader of an answer. A server may answer a stream request whole: its content type decides."""
    kind = headers.get("content-type", "").lower()
    # Some servers call a stream plain text.
    streamed = kind.startswith("text/event-stream") or (request.stream and "json" not in kind)
    return OpenAIReader(request, streamed=streamed, own_name=model.name)


class OpenAIReader(BaseReader):
    """Reads one answer."""

    __slots__ = ("_custom_calls", "_plain_tries", "_refusals", "_returned", "_slots", "_taken", "_takes_custom")

    def __init__(self, request: GenerateTextRequest, *, streamed: bool, own_name: str = "") -> None:
        super().__init__(request, EventParser() if streamed else None)
        self._refusals: dict[int, str] = {}
        self._returned = Returned(own_name) if request.vendor.vendor == VENDOR else None
        self._plain_tries = _PLAIN_TRIES
        self._takes_custom = bool([tool for tool in request.tools if tool.HasField("custom")])
        self._custom_calls: set[tuple[int, int]] = set()
        """Which calls are of custom tools."""
        self._slots: dict[tuple[int, int], tuple[int, str]] = {}
        """Which call a server's index means now, and its id: some give calls that come together one index."""
        self._taken: dict[int, set[int]] = {}
        """Which of a candidate's calls an index means or meant."""

    def _take(self, payload: bytes) -> None:
        """Read a piece: of the form that nearly all have in one pass, any other by `_take_other`."""
        if not self._plain_tries or self._mended or b"\n" in payload or payload == b"[DONE]":
            self._take_other(payload)
            return
        try:
            chunk = _decode_plain(payload)
        except (msgspec.MsgspecError, ValueError):
            self._plain_tries -= 1
            self._take_other(payload)
            return
        self._plain_tries = _PLAIN_TRIES
        choice = chunk.choices[0]
        delta = choice.delta
        content, reasoning = delta.content, delta.reasoning_content or delta.reasoning
        if not content and not reasoning and not delta.tool_calls:
            self._take_other(payload)
            return
        beside = None
        if self._returned is not None:
            fields = (chunk.model, chunk.system_fingerprint, chunk.service_tier, chunk.provider)
            if fields != self._returned.repeated and not self._returned.repeats(fields):
                self._take_other(payload)
                return
            if choice.content_filter_results:
                try:
                    beside = self._returned.beside_plain(choice)
                except (msgspec.MsgspecError, ValueError, RecursionError, errors.UpstreamBroken):
                    self._take_other(payload)
                    return
        if not self.upstream_id and chunk.id:
            self.upstream_id = chunk.id
        before = len(self._events)
        if reasoning:
            self._reason(choice.index, reasoning)
        if content:
            self._say(choice.index, content)
        if delta.tool_calls is not None:
            call = delta.tool_calls[0]
            index = self._slot(choice.index, call.index, "", begins=False)
            if (choice.index, index) in self._custom_calls:
                raise Malformed
            self._call(choice.index, index, call.function.arguments)
        if beside is not None:
            self._carry(beside, choice.index, before)

    def _take_other(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            self._end_spoken()
            self._finish()
        elif b"\n" in payload and _is_whole(payload.partition(b"\n")[0]):
            # One server ends events by one line break: what is several events reads as one of several lines.
            for line in filter(None, payload.split(b"\n")):
                self._take(line)
        else:
            self._take_whole(payload)

    def _take_whole(self, data: bytes) -> None:
        try:
            chunk = _decode(data)
        except msgspec.MsgspecError:
            value = value_of(data)
            self._mended = True
            if value.get("error") or not value.get("choices"):
                self._take_bare(value, known=isinstance(value.get("choices"), list))
            self._take_chunk(msgspec.convert(value, Chunk, strict=False), value)
            return
        if not chunk.choices and not chunk.error:
            self._take_bare(_decode_any(data), known=chunk.choices is not None)
        seen = self._returned is not None or any(map(_is_bare, chunk.choices or ()))
        self._take_chunk(chunk, _decode_any(data) if seen else None)

    def _take_chunk(self, chunk: Chunk, piece: dict[str, Any] | None) -> None:
        if chunk.error:
            raise failures.failed(0, _failure_of(chunk.error))
        if not self.upstream_id and chunk.id:
            self.upstream_id = chunk.id
        returned = self._returned
        if returned is not None and piece is not None and (beside := returned.of_answer(piece)):
            self._events.append(TextEvent(vendor=carried_of(VENDOR, {"answer": beside})))
        given = piece.get("choices") if piece is not None else None
        for place, choice in enumerate(chunk.choices or ()):
            before = len(self._events)
            if returned is None and given and _is_bare(choice):
                self._take_bare_choice(choice.index, given[place])
            delta = _delta_of(choice, streamed=self._framing is not None)
            if delta is not None:
                self._take_delta(choice, delta, given[place] if given else None)
            if choice.text and (delta is None or not delta.content):
                self._say(choice.index, self._text(choice.text, choice.index, "content"))
            if choice.error:
                raise failures.failed(0, _failure_of(choice.error))
            if choice.finish_reason and choice.finish_reason not in _NO_FINISHES:
                self._take_end(choice.index, choice.finish_reason)
            if returned is not None and given and (beside := returned.of_choice(given[place])):
                self._carry(carried_of(VENDOR, beside), choice.index, before)
        # All chunks but one have none.
        if chunk.usage and (counts := read_usage(chunk.usage, COUNTS)) is not None:
            self._count(counts, closing=self.ending)
            if self.ending and not self._spoke - self._finished:
                self._finish()

    def _carry(self, fields: VendorFields, candidate: int, before: int) -> None:
        """Put fields on the last event that a piece made of its candidate, else on one of their own."""
        if len(self._events) > before and not self._events[-1].HasField("vendor"):
            self._events[-1].vendor.CopyFrom(fields)
        else:
            self._events.append(TextEvent(candidate=candidate, vendor=fields))

    def _take_bare_choice(self, candidate: int, given: dict[str, Any]) -> None:
        """Read a choice in which nothing was found: reasoning by another name. Raises Malformed for other text."""
        message = given.get("delta") or given.get("message") or {}
        name = next(
            (name for name in REASONING_NAMES if isinstance(message, dict) and isinstance(message.get(name), str)), ""
        )
        if name:
            self._reason(candidate, message[name])
        elif may_lack_words(given):
            raise Malformed

    def _take_delta(self, choice: Choice, delta: Delta, given: Any) -> None:
        candidate = choice.index
        reasoning = delta.reasoning_content or delta.reasoning
        if not reasoning and delta.reasoning_details:
            reasoning = reasoning_in(delta.reasoning_details)
        if reasoning and (reasoning := self._text(reasoning, candidate, "reasoning")):
            self._reason(candidate, reasoning)
        logprobs = choice.logprobs.content if choice.logprobs is not None else None
        content = delta.content or ""
        if content and self._mended:
            content = self._text(content, candidate, "content")
        if content or logprobs:
            self._say(candidate, content)
            if logprobs:
                self._events[-1].text.logprobs.extend(map(logprob_of, logprobs))
        if delta.refusal:
            if candidate in self._finished:
                raise errors.UpstreamBroken("the provider went on after the answer's end")
            self._spoke.add(candidate)
            self._refusals[candidate] = self._refusals.get(candidate, "") + delta.refusal
            self._meter.saw_unshown(delta.refusal)
        if delta.function_call is not None:
            # It has neither index nor id.
            self._take_call(candidate, Call(function=delta.function_call))
        if delta.audio is not None or delta.images is not None or delta.content_parts:
            self._take_others(delta)
        message = (given.get("delta") or given.get("message")) if isinstance(given, dict) else None
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        for place, call in enumerate(delta.tool_calls or ()):
            before = len(self._events)
            if call.function is not None or call.custom is not None or call.id or call.type not in _FUNCTIONS:
                self._take_call(candidate, call)
            elif calls and may_speak(Returned.of_call(calls[place])):
                raise Malformed
            if self._returned is not None and calls and (beside := self._returned.of_call(calls[place])):
                self._carry(carried_of(VENDOR, {"call": beside}), candidate, before)

    def _take_others(self, delta: Delta) -> None:
        """Read what is no text and no call: callers of the protocol are given it as it came, others not at all.

        Raises Unsupported for what the answer would lack.
        """
        if not isinstance(delta.audio, dict | None) or not isinstance(delta.images, list | None):
            raise Malformed
        if self._returned is not None:
            return
        if delta.images:
            raise self._unheard("an image")
        if delta.audio:
            raise self._unheard("audio")
        for part in delta.content_parts or ():
            if str(part.get("type")) not in REFERENCES:
                raise self._unheard(f"a part of another kind ({name_of(str(part.get('type')))})")

    def _take_call(self, candidate: int, call: Call) -> None:
        function = call.function
        custom = self._takes_custom and call.is_custom
        if not custom and (call.custom is not None or (function is None and call.type not in _FUNCTIONS)):
            raise self._unheard(f"a call of another kind ({name_of(call.type or 'custom')})")
        if call.custom is not None and function is not None and (function.name or function.arguments):
            raise Malformed
        called = call.custom or function
        name = called.name if called else None
        begun = self._calls_begun(candidate)
        if call.index is None:
            # Without indices, an id or a name begins a call; else the piece belongs to the latest one.
            index = begun if call.id or name else max(0, begun - 1)
        else:
            index = self._slot(candidate, call.index, call.id or "", begins=bool(name))
        arguments = (call.custom.input if call.custom else function.arguments if function else None) or ""
        if arguments:
            arguments = self._text(arguments, candidate, f"call {index}")
        custom = self._is_custom((candidate, index), custom, has_words=called is not None)
        self._call(candidate, index, arguments, call_id=call.id, name=name, custom=custom)

    def _is_custom(self, place: tuple[int, int], custom: bool, *, has_words: bool) -> bool:
        """Return whether a call is of a custom tool. Raises Malformed for a change."""
        known = place in self._custom_calls
        if custom and not known:
            if self._has_begun(place):
                raise Malformed
            self._custom_calls.add(place)
        elif known and has_words and not custom:
            raise Malformed
        return custom or known

    def _slot(self, candidate: int, given: int, call_id: str, *, begins: bool) -> int:
        """Return which call a server's index means: another id begins another call."""
        place = (candidate, given)
        index, known = self._slots.get(place, (given, ""))
        if place in self._slots and not (begins and call_id):
            if call_id:
                self._slots[place] = (index, call_id)
            return index
        taken = self._taken.setdefault(candidate, set())
        if (place not in self._slots and given in taken) or (begins and call_id and known and call_id != known):
            index = max(taken) + 1
        taken.add(index)
        self._slots[place] = (index, call_id or known)
        return index

    def _end_spoken(self) -> None:
        """End the candidates that said something and not why they ended: the provider's end mark says that they did."""
        for candidate in sorted(self._spoke - self._finished):
            self._take_end(candidate, "tool_calls" if self._calls_begun(candidate) else "stop")

    def _conclude(self) -> None:
        if self._framing is None:
            self._end_spoken()

    def _failed(self, found: EmbeddedError) -> errors.MoaError:
        known = next((code for code in found.codes if code in failures.CODES), None)
        number = next((code for code in found.codes if code.isdigit()), None)
        return failures.failed(0, failures.Failure(found.words, known, number, found.param))

    def _take_end(self, candidate: int, word: str) -> None:
        failed = _FAILED_FINISHES.get(word)
        if failed is not None:
            raise failed("the provider gave the answer up")
        reason = FINISH_REASONS.get(word, FinishReason.FINISH_REASON_STOP)
        self._end_candidate(candidate, reason, refusal=self._refusals.get(candidate, ""))


def _failure_of(error: failures.Failure | str) -> failures.Failure:
    return error if isinstance(error, failures.Failure) else failures.Failure(error)


def _is_whole(line: bytes) -> bool:
    """Return whether the first line of an event is a payload by itself, not the beginning of one of several lines."""
    if not line or line == b"[DONE]":
        return True
    with contextlib.suppress(msgspec.MsgspecError, RecursionError):
        _skip(line)
        return True
    return False


def _is_bare(choice: Choice) -> bool:
    """Return whether nothing that a choice may say is in its places, or a call without anything in its own."""
    delta = choice.delta or choice.message
    if choice.text or (delta is not None and (delta.content or delta.reasoning_content or delta.reasoning)):
        return False
    if choice.delta in _EMPTY and choice.message in _EMPTY:
        return True
    return delta is not None and any(call.function is None and call.custom is None for call in delta.tool_calls or ())


def _delta_of(choice: Choice, *, streamed: bool) -> Delta | None:
    """Return what a choice says: in a stream its `delta`, else its `message`; the other where that one is empty."""
    first, second = (choice.delta, choice.message) if streamed else (choice.message, choice.delta)
    return first if second is None or (first is not None and first != _NOTHING) else second


def logprob_of(entry: Logprob) -> TokenLogprob:
    """Return a token's probability as the contract says it."""
    raw = bytes(entry.bytes) if entry.bytes is not None else entry.token.encode()
    return TokenLogprob(
        token=entry.token,
        logprob=entry.logprob,
        raw=raw,
        top=[logprob_of(other) for other in entry.top_logprobs or ()],
    )
