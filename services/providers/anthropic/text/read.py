"""Read Messages' answers, streamed or whole, into events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from moa.text.v1.text_pb2 import FinishReason, TextEvent
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model
from services.common import errors
from services.common.estimate import ReportedUsage
from services.providers.anthropic import errors as failures
from services.providers.anthropic.text.carried import VENDOR, Returned, of_call
from services.providers.anthropic.text.wire import Block, Delta, Details, Event, Whole
from services.providers.anthropic.thinking import OMITTED, SIGNER
from services.providers.counts import Spelling, count_in, read_usage, usage_in
from services.providers.http.classify import name_of, words_of
from services.providers.http.sse import EventParser
from services.providers.text import embedded_errors
from services.providers.text.carrying import carried_of
from services.providers.text.jsontext import arguments_of
from services.providers.text.names import rewritten
from services.providers.text.reading import BaseReader, Malformed
from services.providers.text.surrogates import value_with_surrogates

FINISH_REASONS: Final[Mapping[str, FinishReason.ValueType]] = {
    "end_turn": FinishReason.FINISH_REASON_STOP,
    "stop_sequence": FinishReason.FINISH_REASON_STOP,
    "tool_use": FinishReason.FINISH_REASON_TOOL_CALLS,
    "max_tokens": FinishReason.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": FinishReason.FINISH_REASON_LENGTH,
    "refusal": FinishReason.FINISH_REASON_CONTENT_FILTER,
}
"""Every other reason is no end, but for its own callers `pause_turn`: a tool that runs at Anthropic works on."""

COUNTS: Final = Spelling(
    # What came from the cache, or went into it, is not part of `input_tokens`.
    prompt=(("input_tokens",), ("cache_read_input_tokens",), ("cache_creation_input_tokens",)),
    completion=(("output_tokens",),),
    cached=(("cache_read_input_tokens",),),
    cache_write=(("cache_creation_input_tokens",),),
    reasoning=("output_tokens_details", "thinking_tokens"),
)

_QUIET: Final = frozenset(("ping", "content_block_stop"))
"""Events that say nothing."""
_PIECES: Final = {
    "text_delta": "text",
    "input_json_delta": "partial_json",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
}
"""The kinds of pieces, each with the field that it fills."""

_KNOWN_BLOCKS: Final = frozenset(("text", "thinking", "redacted_thinking", "tool_use"))

_any: Final = msgspec.json.Decoder(dict[str, Any]).decode
_event: Final = msgspec.json.Decoder(Event).decode
_whole: Final = msgspec.json.Decoder(Whole).decode
_details: Final = msgspec.json.Decoder(Details | None).decode


def reader(request: GenerateTextRequest, model: Model, headers: Mapping[str, str]) -> AnthropicReader:
    """Make the reader of an answer."""
    streamed = headers.get("content-type", "").startswith("text/event-stream")
    return AnthropicReader(request, streamed=streamed, own_name=model.name)


def count_from(body: bytes) -> int:
    """Read the answer of `count_tokens`."""
    count = count_in(body, ("input_tokens",))
    if count is None:
        raise errors.UpstreamBroken("the provider's answer could not be read")
    return count


class AnthropicReader(BaseReader):
    """Reads one answer. Its usage comes in two parts: the prompt's at the beginning, the completion's at the end."""

    __slots__ = (
        "_begun_usage",
        "_behind_text",
        "_beside",
        "_names",
        "_own",
        "_returned",
        "_silent",
        "_thoughts",
        "_tools",
        "_untold",
    )

    def __init__(self, request: GenerateTextRequest, *, streamed: bool, own_name: str = "") -> None:
        super().__init__(request, EventParser() if streamed else None, signer=SIGNER)
        self._names = rewritten(request)
        self._tools: dict[int, int] = {}
        """Content block → which call it is."""
        self._silent: set[int] = set()
        """Calls of which no arguments have come."""
        self._thoughts: set[int] = set()
        """Content blocks that are thoughts with a text."""
        self._begun_usage: dict[str, Any] = {}
        """The prompt's counts, as the beginning told them."""
        self._untold: ReportedUsage | None = None
        """They, until they are told."""
        self._returned = Returned(own_name) if request.vendor.vendor == VENDOR else None
        self._beside: dict[str, Any] = {}
        """What the beginning said beside that of the whole answer, until it is told."""
        self._own: set[int] = set()
        """Content blocks of kinds that only Anthropic's callers know."""
        self._behind_text = False
        """Whether the latest block was a text."""

    def _take(self, payload: bytes) -> None:
        event = self._event_of(payload)
        if event.type == "content_block_delta":
            if event.delta is None:
                raise Malformed
            self._take_delta(event.index, event.delta, payload)
        elif event.type == "content_block_start":
            if event.content_block is None:
                raise Malformed
            self._take_start(event.index, event.content_block, payload)
        elif event.type == "message_start":
            if event.message is not None:
                self.upstream_id = event.message.id or ""
                self._begin_usage(event.message.usage)
                if self._returned is not None:
                    begun = _raw(payload)["message"]
                    self._beside = self._returned.of_answer(begun, begun.get("usage"))
        elif event.type == "message_delta":
            self._end_usage(event.usage)
            if self._returned is not None:
                self._carry_end(self._returned, _raw(payload))
            if event.delta is not None and event.delta.stop_reason:
                self._take_stop(event.delta)
        elif event.type == "message_stop":
            if not self.ending:
                self._take_stop(Delta())
            self._finish()
        elif event.type == "error" and event.error is not None:
            raise failures.failed(0, event.error)
        elif event.type not in _QUIET:
            self._take_bare(_any(payload))
        if self._beside and self._events:
            beside, self._beside = self._beside, {}
            self._events.insert(0, TextEvent(vendor=carried_of(VENDOR, {"answer": beside})))
        if self._untold is not None and self._events:
            # Not before the first piece: what waits for that must not take the prompt's counts for it.
            untold, self._untold = self._untold, None
            self._count(untold)

    def _event_of(self, payload: bytes) -> Event:
        try:
            return _event(payload)
        except msgspec.MsgspecError:
            value = value_with_surrogates(payload)
            if isinstance(value, dict) and not isinstance(value.get("type"), str):
                self._take_bare(value)
            found = msgspec.convert(value, Event)
            self._mended = True
            return found

    def _take_start(self, place: int, block: Block, payload: bytes) -> None:
        """Read a block's beginning, which is empty but for what comes in one piece."""
        given = _raw(payload)["content_block"] if self._returned is not None else {}
        if block.type == "tool_use":
            index = self._tools[place] = len(self._tools)
            self._silent.add(index)
            self._begin_call(index, block, "", given)
        else:
            self._take_block(place, block, given)

    def _carry(self, fields: dict[str, Any]) -> None:
        """Tell what Anthropic's own callers are told."""
        self._events.append(TextEvent(vendor=carried_of(VENDOR, fields)))

    def _carry_end(self, returned: Returned, piece: dict[str, Any]) -> None:
        """Tell what the end of a message, or a whole one, says of the whole answer."""
        delta = piece.get("delta")
        fields = {name: value for name, value in piece.items() if name != "delta"}
        beside = returned.of_answer({**fields, **(delta if isinstance(delta, dict) else {})}, piece.get("usage"))
        if beside:
            self._carry({"answer": beside})

    def _begin_call(self, index: int, block: Block, arguments: str, given: dict[str, Any]) -> None:
        if not block.name:
            raise Malformed
        before = len(self._events)
        self._call(0, index, arguments, call_id=block.id, name=self._names.get(block.name, block.name))
        self._behind_text = False
        if len(self._events) > before and (beside := of_call(given)):
            self._events[-1].vendor.CopyFrom(carried_of(VENDOR, {"call": beside}))

    def _take_block(self, place: int, block: Block, given: dict[str, Any]) -> None:
        """Read a block that is no call; `given` is all of it, for Anthropic's own callers."""
        if given and block.type not in _KNOWN_BLOCKS:
            self._own.add(place)
            self._carry({"block": given})
        elif given and block.type == "text" and self._behind_text:
            self._carry({"text": {"begins": True}})
        self._behind_text = block.type == "text"
        if place in self._own:
            return
        if block.type == "text":
            if block.text is None:
                raise Malformed
            if text := self._text(block.text, 0, "content"):
                self._say(0, text)
            if citations := given.get("citations"):
                self._carry({"text": {"citations": citations}})
        elif block.type == "thinking":
            self._take_thought(place, block.thinking, block.signature)
        elif block.type == "redacted_thinking":
            if not block.data:
                raise Malformed
            self._reason(0, "", block.data.encode())
        else:
            raise self._unheard(f"a block of another kind ({name_of(block.type)})")

    def _take_thought(self, place: int, text: str | None, signature: str | None) -> None:
        whole = self._text(text or "", 0, "reasoning")
        if text:
            self._thoughts.add(place)
        proof = (signature or "").encode()
        if proof and place not in self._thoughts:
            proof = OMITTED + proof
        if whole or proof:
            self._reason(0, whole, proof)

    def _take_delta(self, place: int, delta: Delta, payload: bytes) -> None:
        if place in self._own:
            self._carry({"delta": _raw(payload)["delta"]})
            return
        if delta.type == "citations_delta":
            # It says something of the text, and is none of it.
            if self._returned is not None:
                self._carry({"text": {"citations": [_raw(payload)["delta"].get("citation")]}})
            return
        field = _PIECES.get(delta.type)
        if field is None and self._returned is not None:
            self._carry({"delta": _raw(payload)["delta"]})
            return
        if field is None:
            raise self._unheard(f"a piece of another kind ({name_of(delta.type)})")
        if getattr(delta, field) is None:
            raise Malformed
        if field == "text":
            if text := self._text(delta.text or "", 0, "content"):
                self._say(0, text)
        elif field == "partial_json":
            if place not in self._tools:
                raise Malformed
            if delta.partial_json:
                index = self._tools[place]
                self._silent.discard(index)
                self._call(0, index, self._text(delta.partial_json, 0, f"call {index}"))
        else:
            self._take_thought(place, delta.thinking, delta.signature)

    def _take_whole(self, data: bytes) -> None:
        try:
            answer = _whole(data)
        except msgspec.ValidationError:
            self._take_bare(_any(data))
            raise
        self.upstream_id = answer.id or ""
        given = _raw(data) if self._returned is not None else {}
        if self._returned is not None:
            self._carry_end(self._returned, given)
        for place, block in enumerate(answer.content):
            own = given["content"][place] if given else {}
            if block.type == "tool_use":
                self._begin_call(self._calls_begun(0), block, arguments_of(block.input), own)
            else:
                self._take_block(place, block, own)
        self._count(read_usage(answer.usage, COUNTS))
        self._take_stop(answer)

    def _begin_usage(self, raw: msgspec.Raw) -> None:
        """Keep the prompt's counts: the completion has not begun."""
        given = _value(raw)
        if isinstance(given, dict) and given:
            self._begun_usage = {name: count for name, count in given.items() if not name.startswith("output_tokens")}
            self._untold = usage_in(self._begun_usage, COUNTS)

    def _end_usage(self, raw: msgspec.Raw) -> None:
        """Take the counts of the end, beside those of the beginning that it does not repeat."""
        self._untold = None
        if not self._begun_usage:
            self._count(read_usage(raw, COUNTS), closing=True)
            return
        given = _value(raw)
        last = {name: count for name, count in given.items() if count is not None} if isinstance(given, dict) else {}
        self._count(usage_in({**self._begun_usage, **last}, COUNTS), closing=True)

    def _failed(self, found: embedded_errors.EmbeddedError) -> errors.MoaError:
        named = next((code for code in found.codes if code in failures.CODES), "")
        return failures.failed(0, failures.Failure(named, found.words))

    def _take_stop(self, given: Delta | Whole) -> None:
        word = given.stop_reason
        reason = FINISH_REASONS.get(word or ("tool_use" if self._calls_begun(0) else "end_turn"))
        if not word and not self._spoke:
            raise errors.UpstreamBroken("the provider ended the answer without a word or a reason")
        if reason is None and word == "pause_turn" and self._returned is not None:
            reason = FinishReason.FINISH_REASON_STOP
        if reason is None:
            raise errors.UpstreamFailed(f"the provider stopped the answer ({name_of(word)})")
        for index in sorted(self._silent):
            # In a stream, a call without arguments has none, not even braces.
            self._call(0, index, "{}")
        refusal = _explanation(given.stop_details) if word == "refusal" else ""
        self._end_candidate(0, reason, refusal=refusal, stop_sequence=given.stop_sequence or "")


def _raw(payload: bytes) -> dict[str, Any]:
    """Return all of an event, or of an answer, that was read already. Raises ValueError."""
    try:
        return _any(payload)
    except msgspec.MsgspecError:
        value = value_with_surrogates(payload)
        if not isinstance(value, dict):
            raise Malformed from None
        return value


def _value(raw: msgspec.Raw) -> Any:
    """Return the value of a part of an event; None for what cannot be read, which is no part of the answer."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError):
        return None


def _explanation(raw: msgspec.Raw) -> str:
    try:
        details = _details(raw)
    except (msgspec.MsgspecError, ValueError):
        return ""
    return words_of(details.explanation) if details is not None else ""
