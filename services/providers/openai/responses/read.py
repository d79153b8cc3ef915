"""Read answers of the Responses API, streamed or whole, into events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from moa.text.v1.text_pb2 import FinishReason, TextEvent, TokenLogprob
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model
from services.common import errors, vendor_fields
from services.providers.counts import Spelling, usage_in
from services.providers.http.classify import name_of
from services.providers.http.sse import EventParser
from services.providers.openai import errors as failures
from services.providers.openai.responses.fields import OWN
from services.providers.openai.text.carried import VENDOR
from services.providers.text.carrying import carried_of
from services.providers.text.embedded_errors import EmbeddedError
from services.providers.text.reading import BaseReader, Malformed

Json = dict[str, Any]

COUNTS: Final = Spelling(
    prompt=(("input_tokens",),),
    completion=(("output_tokens",),),
    cached=(("input_tokens_details", "cached_tokens"),),
    cache_write=(("input_tokens_details", "cache_write_tokens"),),
    total=("total_tokens",),
    reasoning=("output_tokens_details", "reasoning_tokens"),
)
_REASONS: Final = {
    "max_output_tokens": FinishReason.FINISH_REASON_LENGTH,
    "content_filter": FinishReason.FINISH_REASON_CONTENT_FILTER,
}
_ENDS: Final = frozenset(("response.completed", "response.incomplete", "response.failed", "response.cancelled"))
_TEXTS: Final = frozenset(("response.output_text.delta", "response.refusal.delta"))
_THOUGHTS: Final = frozenset(("response.reasoning_summary_text.delta", "response.reasoning_text.delta"))
_WORDS: Final = {
    "response.function_call_arguments.delta": "delta",
    "response.custom_tool_call_input.delta": "delta",
    "response.function_call_arguments.done": "arguments",
    "response.custom_tool_call_input.done": "input",
}
_BESIDE: Final = ("namespace", "caller", "async")
"""What a call has beside its name and words."""
_CALLS: Final = {"function_call": "arguments", "custom_tool_call": "input"}
_QUIET: Final = frozenset(
    (
        *("response.created", "response.in_progress", "response.queued", "response.content_part.added"),
        *("response.content_part.done", "response.output_text.done", "response.refusal.done"),
        *(
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.reasoning_text.done",
        ),
        "keepalive",
    )
)
"""Events that say nothing, or what was said in pieces."""
_PARAGRAPH: Final = "\n\n"
_MISSHAPEN: Final = (KeyError, TypeError, AttributeError)
"""What an event raises that is not of its type's shape."""

_object: Final = msgspec.json.Decoder(dict[str, Any]).decode


def reader(request: GenerateTextRequest, model: Model, headers: Mapping[str, str]) -> ResponsesReader:
    """Make the reader of an answer."""
    return ResponsesReader(request, streamed=headers.get("content-type", "").startswith("text/event-stream"))


class ResponsesReader(BaseReader):
    """Reads one answer, of one candidate."""

    __slots__ = ("_begun", "_calls", "_carries", "_custom", "_own", "_refusal", "_speaks", "_thinks")

    def __init__(self, request: GenerateTextRequest, *, streamed: bool) -> None:
        super().__init__(request, EventParser() if streamed else None, signer=VENDOR)
        self._carries = request.vendor.vendor == VENDOR
        self._speaks = self._carries and OWN in vendor_fields.fields_of(request.vendor, VENDOR)
        """Whether the caller speaks this API, and is given items of all kinds."""
        self._calls: dict[int, int] = {}
        """The number of each call, by its item's place."""
        self._begun: set[int] = set()
        """Calls of which words have come."""
        self._custom: set[int] = set()
        """Places of calls of custom tools."""
        self._own: set[int] = set()
        """Places of items of kinds that no contract has."""
        self._thinks = False
        """Whether a piece of reasoning has come since the last item began."""
        self._refusal = ""

    # Streamed.

    def _take(self, payload: bytes) -> None:
        try:
            self._take_event(_object(payload))
        except _MISSHAPEN as error:
            raise Malformed from error

    def _take_event(self, event: Json) -> None:
        kind, place = event.get("type"), event.get("output_index")
        if kind in _TEXTS:
            self._take_text(event, refuses=kind == "response.refusal.delta")
        elif kind in _THOUGHTS:
            self._think(event["delta"])
        elif kind in _WORDS:
            self._take_words(place, event.get(_WORDS[kind]), whole=kind.endswith(".done"))
        elif kind == "response.output_item.added":
            self._begin_item(place, event["item"])
        elif kind == "response.output_item.done":
            self._end_item(place, event["item"])
        elif kind == "response.reasoning_summary_part.added":
            if event.get("summary_index") and self._thinks:
                self._think(_PARAGRAPH)
        elif kind == "response.output_text.annotation.added":
            self._annotate(event.get("annotation"))
        elif kind in _ENDS:
            self._take_end(event["response"])
        elif kind == "error":
            raise failures.failed(0, msgspec.convert(event, failures.Failure))
        elif kind in _QUIET:
            if isinstance(event.get("response"), dict):
                self.upstream_id = str(event["response"].get("id") or "")
        elif place not in self._own:
            self._take_bare(event)
        elif self._speaks:
            self._carry_own({"event": event, "place": place})

    def _take_text(self, event: Json, *, refuses: bool) -> None:
        if not isinstance(event["delta"], str):
            raise Malformed
        if refuses:
            self._refuse(event["delta"])
        else:
            self._speak(event["delta"], event.get("logprobs"))

    def _take_words(self, place: Any, words: Any, *, whole: bool) -> None:
        """Take a piece of a call's words, or all of them, which count where none have come."""
        if place not in self._calls or not isinstance(words, str):
            raise Malformed
        if not whole or place not in self._begun:
            self._begun.add(place)
            self._call(0, self._calls[place], words, custom=place in self._custom)

    def _begin_item(self, place: Any, item: Json) -> None:
        kind = item.get("type")
        self._thinks = False
        if kind in _CALLS:
            self._begin_call(place, item)
        elif kind not in ("message", "reasoning"):
            self._own.add(place)
            if self._speaks:
                self._carry_own({"added": item, "place": place})

    def _begin_call(self, place: Any, item: Json) -> None:
        if not isinstance(place, int) or place in self._calls:
            raise Malformed
        self._calls[place] = len(self._calls)
        custom = item["type"] == "custom_tool_call"
        if custom:
            self._custom.add(place)
        before = len(self._events)
        self._call(0, self._calls[place], "", call_id=item.get("call_id"), name=item.get("name"), custom=custom)
        beside = {name: item[name] for name in _BESIDE if item.get(name) is not None}
        if beside and self._speaks and len(self._events) > before:
            self._events[-1].vendor.CopyFrom(carried_of(VENDOR, {"call": beside}))

    def _end_item(self, place: Any, item: Json) -> None:
        kind = item.get("type")
        if kind == "reasoning":
            sealed = item.get("encrypted_content")
            if isinstance(sealed, str) and sealed:
                self._reason(0, "", sealed.encode())
        elif kind in _CALLS:
            if place not in self._calls:
                self._begin_call(place, item)
            self._take_words(place, item.get(_CALLS[kind]), whole=True)
        elif kind != "message":
            self._own_item(item, place)

    # What both forms have.

    def _speak(self, text: str, logprobs: Any) -> None:
        if not text and not logprobs:
            return
        before = len(self._events)
        self._say(0, text)
        if len(self._events) > before and self._events[-1].HasField("text") and isinstance(logprobs, list):
            self._events[-1].text.logprobs.extend(map(_logprob_of, logprobs))

    def _refuse(self, words: str) -> None:
        self._spoke.add(0)
        self._refusal += words
        self._meter.saw_unshown(words)

    def _think(self, text: Any) -> None:
        if not isinstance(text, str):
            raise Malformed
        self._thinks = True
        self._reason(0, text)

    def _annotate(self, given: Any) -> None:
        """Carry what points at sources of the text, as chats have it."""
        if not self._carries or not isinstance(given, dict):
            return
        made = given
        if given.get("type") == "url_citation":
            made = {"type": "url_citation", "url_citation": {k: v for k, v in given.items() if k != "type"}}
        self._events.append(TextEvent(vendor=carried_of(VENDOR, {"message": {"annotations": [made]}})))

    def _own_item(self, item: Json, place: Any) -> None:
        """Carry an item of a kind that no contract has. Raises Unsupported for a caller who would not see it."""
        if not self._speaks:
            raise self._unheard(f"an item of another kind ({name_of(str(item.get('type')))})")
        self._carry_own({"item": item, "place": place})

    def _carry_own(self, fields: Json) -> None:
        """Carry what is told of an item of a kind that no contract has: it begins, goes on, or is whole."""
        self._spoke.add(0)
        stated = fields.get("item") or fields.get("event") or {}
        pictured = str(stated.get("type")).removeprefix("response.").startswith("image_generation_call")
        carried = carried_of(VENDOR, {OWN: fields}, pictured=pictured)
        self._events.append(TextEvent(vendor=carried))

    def _take_end(self, response: Json) -> None:
        """Read the whole response: what it consumed, and how it ended."""
        self.upstream_id = str(response.get("id") or "")
        error = response.get("error")
        if isinstance(error, dict) or response.get("status") in ("failed", "cancelled"):
            raise failures.failed(0, msgspec.convert(error or {}, failures.Failure))
        if response.get("usage") is not None:
            self._count(usage_in(response["usage"], COUNTS), closing=True)
        tier = response.get("service_tier")
        if self._carries and isinstance(tier, str):
            self._events.append(TextEvent(vendor=carried_of(VENDOR, {"answer": {"service_tier": tier}})))
        details = response.get("incomplete_details") or {}
        reason = FinishReason.FINISH_REASON_TOOL_CALLS if self._calls else FinishReason.FINISH_REASON_STOP
        if response.get("status") == "incomplete":
            reason = _REASONS.get(str(details.get("reason")), FinishReason.FINISH_REASON_LENGTH)
        self._end_candidate(0, reason, refusal=self._refusal)
        self._finish()

    # Whole.

    def _take_whole(self, data: bytes) -> None:
        response = _object(data)
        if not isinstance(response.get("output"), list):
            self._take_bare(response, known="error" in response)
            raise Malformed
        try:
            for place, item in enumerate(response["output"]):
                self._take_item(place, item)
            self._take_end(response)
        except _MISSHAPEN as error:
            raise Malformed from error

    def _take_item(self, place: int, item: Json) -> None:
        if item.get("type") == "message":
            for part in item["content"]:
                if part.get("type") == "refusal":
                    self._refuse(part["refusal"])
                    continue
                self._speak(part["text"], part.get("logprobs"))
                for each in part.get("annotations") or ():
                    self._annotate(each)
            return
        if item.get("type") == "reasoning":
            pieces = [piece["text"] for piece in [*(item.get("summary") or ()), *(item.get("content") or ())]]
            if pieces:
                self._think(_PARAGRAPH.join(pieces))
        self._end_item(place, item)

    def _failed(self, found: EmbeddedError) -> errors.MoaError:
        known = next((code for code in found.codes if code in failures.CODES), None)
        return failures.failed(0, failures.Failure(found.words, known, None, found.param))


def _logprob_of(given: Json) -> TokenLogprob:
    token = str(given.get("token", ""))
    raw = bytes(given["bytes"]) if given.get("bytes") else token.encode()
    top = [_logprob_of(each) for each in given.get("top_logprobs") or ()]
    return TokenLogprob(token=token, logprob=given["logprob"], raw=raw, top=top)
