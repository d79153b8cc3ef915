"""Read Messages' answers, streamed or whole, into events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from moa.text.v1.text_pb2 import TextEvent
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model
from services.common import errors
from services.common.estimate import ReportedUsage
from services.providers.anthropic import errors as failures
from services.providers.anthropic.text.carried import VENDOR, Returned, of_call
from services.providers.anthropic.text.wire import Block, Delta, Details, Event, Whole
from services.providers.anthropic.thinking import OMITTED, SIGNER
from services.providers.counts import Spelling, read_usage, usage_in
from services.providers.http.classify import name_of, words_of
from services.providers.http.sse import EventParser
from services.providers.text import embedded_errors
from services.providers.text.blocks import BlockReader
from services.providers.text.carrying import carried_of
from services.providers.text.reading import Malformed
from services.providers.text.surrogates import value_with_surrogates

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


class AnthropicReader(BlockReader):
    """Reads one answer. Its usage comes in two parts: the prompt's at the beginning, the completion's at the end."""

    __slots__ = ("_begun_usage", "_behind_text", "_beside", "_own", "_returned", "_thoughts", "_untold")

    withheld = frozenset(("refusal",))

    def __init__(self, request: GenerateTextRequest, *, streamed: bool, own_name: str = "") -> None:
        super().__init__(request, EventParser() if streamed else None, signer=SIGNER)
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
            before = len(self._events)
            self._begin_streamed_call(place, block.id, block.name)
            self._carry_call(given, before)
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

    def _carry_call(self, given: dict[str, Any], before: int) -> None:
        """Put what Anthropic's own callers are told of a call on the event that it made."""
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
            if (citations := given.get("citations")) and isinstance(citations, list):
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
                self._go_on_with_call(self._tools[place], delta.partial_json)
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
                before = len(self._events)
                self._take_whole_call(block.id, block.name, block.input)
                self._carry_call(own, before)
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
        refusal = _explanation(given.stop_details) if word == "refusal" else ""
        if word == "pause_turn" and self._returned is not None:
            # A tool that runs at Anthropic works on, which its own callers know.
            word = "end_turn"
        self._stop(word, refusal=refusal, stop_sequence=given.stop_sequence or "")


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
