"""From the contract's events to Anthropic's message, whole or as the events of a stream."""

from __future__ import annotations

import json
from typing import Any, Final

from moa.common.v1 import usage_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common import vendor_fields
from services.common.dialects import ANTHROPIC
from services.common.errors import MoaError, error_of, word
from services.common.rpc import call as calls
from services.router.dialects.anthropic import carried
from services.router.dialects.anthropic.blocks import Blocks
from services.router.dialects.reply import encode, failure, sse_body
from services.router.operations.text import TextAnswer

Json = dict[str, Any]

_STOPS: Final = {
    text_pb2.FINISH_REASON_STOP: "end_turn",
    text_pb2.FINISH_REASON_LENGTH: "max_tokens",
    text_pb2.FINISH_REASON_TOOL_CALLS: "tool_use",
    text_pb2.FINISH_REASON_CONTENT_FILTER: "refusal",
}
_SHOWN: Final = ("text", "reasoning", "tool_call", "candidate_finished")
_OF_DELTA: Final = ("stop_details", "container")
"""What is said of the whole answer where it ends."""


def _event(value: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (value["type"].encode(), encode(value))


PING: Final = sse_body(data=_event({"type": "ping"}))
"""What is written in silences."""


def usage_of(usage: usage_pb2.Usage) -> Json:
    """Return the usage as Anthropic counts: what came from a cache, or went into it, is apart."""
    made: Json = {
        "input_tokens": max(0, usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }
    if usage.reasoning_tokens:
        made["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return made


class _Ending:
    """How an answer ended, as far as it is known."""

    __slots__ = ("_shown_first", "beside", "reason", "refusal", "sequence", "usage")

    def __init__(self) -> None:
        self._shown_first: frozenset[str] = frozenset()
        self.reason = "end_turn"
        self.sequence: str | None = None
        self.refusal = ""
        self.beside: Json = {}
        """What Anthropic says of the whole answer."""
        self.usage: Json = {}
        """What it says of the usage."""

    def take(self, ended: text_pb2.CandidateFinished) -> None:
        """Take the candidate's end in."""
        self.reason = _STOPS.get(ended.reason, "end_turn")
        if ended.stop_sequence:
            self.reason, self.sequence = "stop_sequence", ended.stop_sequence
        if ended.refusal:
            self.reason, self.refusal = "refusal", ended.refusal

    def take_fields(self, fields: Json) -> None:
        """Take in what the vendor says of the whole answer."""
        vendor_fields.go_on(self.usage, fields.pop("usage", {}))
        vendor_fields.go_on(self.beside, fields)

    def delta(self) -> Json:
        """Return why the answer ended, as `message_delta` tells it."""
        made: Json = {"stop_reason": self.beside.get("stop_reason", self.reason), "stop_sequence": self.sequence}
        if self.refusal:
            made["stop_details"] = {"type": "refusal", "category": None, "explanation": self.refusal}
        made |= {name: self.beside[name] for name in _OF_DELTA if name in self.beside}
        return made

    def rest(self) -> Json:
        """Return what else is said of the whole answer and was not when it began."""
        known = {"stop_reason", *_OF_DELTA, *self._shown_first}
        return {name: value for name, value in self.beside.items() if name not in known}

    def begun(self) -> Json:
        """Return what is said of the whole answer as it begins."""
        made = {name: value for name, value in self.beside.items() if name not in ("stop_reason", "stop_details")}
        self._shown_first = frozenset(made)
        return made

    def counts(self, usage: usage_pb2.Usage) -> Json:
        """Return the usage, with what only Anthropic counts."""
        made = usage_of(usage)
        vendor_fields.merge(made, self.usage)
        return made


def _begun(answer: TextAnswer, request_id: str, ending: _Ending) -> Json:
    return {
        "id": f"msg_{request_id}",
        "type": "message",
        "role": "assistant",
        "model": ending.beside.pop("model", answer.model.id),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


async def whole(answer: TextAnswer, request_id: str, *, omits: bool = False) -> Json:
    """Drain the answer to one `message`. Raises MoaError when it failed."""
    blocks, ending, content = Blocks(omits=omits), _Ending(), _Content()
    while (message := await answer.next()) is not None:
        for event in message.events:
            kind = event.WhichOneof("event")
            if kind == "error":
                raise error_of(event.error)
            fields = carried.fields_of(event) if event.HasField("vendor") else {}
            ending.take_fields(fields.pop("answer", {}))
            if kind == "candidate_finished":
                ending.take(event.candidate_finished)
            elif fields or kind in _SHOWN:
                content.add(blocks.take(event, kind, fields))
    content.add(blocks.end())
    made = {**_begun(answer, request_id, ending), **ending.delta(), "content": content.whole()}
    made["usage"] = ending.counts(answer.usage)
    vendor_fields.merge(made, ending.beside)
    return made


_PIECES: Final = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
    "input_json_delta": ("input", "partial_json"),
}
"""The field of a block that each kind of piece fills, and what holds it there."""


class _Content:
    """Gathers the events of blocks to whole ones."""

    def __init__(self) -> None:
        self._blocks: list[Json] = []
        self._pieces: dict[str, list[str]] = {}
        """Of the open block, by its fields."""

    def add(self, events: list[Json]) -> None:
        for event in events:
            if event["type"] == "content_block_start":
                self._blocks.append(event["content_block"])
            elif event["type"] == "content_block_delta":
                self._delta(event["delta"])
            else:
                self._join()

    def _delta(self, delta: Json) -> None:
        field, name = _PIECES.get(delta.get("type", ""), ("", ""))
        piece = delta.get(name)
        if isinstance(piece, str):
            self._pieces.setdefault(field, []).append(piece)
        elif delta.get("type") == "citations_delta" and "citation" in delta:
            known = self._blocks[-1].get("citations")
            self._blocks[-1]["citations"] = [*(known if isinstance(known, list) else ()), delta["citation"]]
        else:
            self._go_on({name: value for name, value in delta.items() if name != "type"})

    def _go_on(self, fields: Json) -> None:
        """Take a piece of a kind that nobody here knows: its texts go on."""
        block = self._blocks[-1]
        for name, value in fields.items():
            known = block.get(name)
            if isinstance(known, str) and isinstance(value, str):
                block[name] = known + value
            else:
                vendor_fields.go_on(block, {name: value})

    def _join(self) -> None:
        block = self._blocks[-1]
        for field, pieces in self._pieces.items():
            text, known = "".join(pieces), block.get(field)
            block[field] = _object(text) if field == "input" else (known if isinstance(known, str) else "") + text
        self._pieces.clear()

    def whole(self) -> list[Json]:
        return self._blocks


def _object(arguments: str) -> Json:
    """Return a call's arguments; what is no object in one, as it is given to other vendors too."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"arguments": arguments}


class Events:
    """Renders an answer's messages to the events of a stream.

    Text, by far the commonest event, is one byte concatenation around its JSON string.
    """

    def __init__(self, answer: TextAnswer, request_id: str, *, omits: bool = False) -> None:
        self._answer = answer
        self._request_id = request_id
        self._blocks = Blocks(omits=omits)
        self._ending = _Ending()
        self._begun = False
        self._broken = False
        """Whether an answer that cannot be shown has ended with its error."""

    def of(self, message: text_service_pb2.GenerateTextResponse) -> bytes:
        """Render one message; empty when none of its events shows in this dialect."""
        out: list[bytes] = []
        try:
            if not self._broken:
                self._render(message, out)
        except MoaError as error:
            self._broken = True
            call = calls.current()
            call.broken = True
            call.fields["broken"] = word(error.reason)
            out.append(failure(ANTHROPIC, error))
        return b"".join(out)

    def _render(self, message: text_service_pb2.GenerateTextResponse, out: list[bytes]) -> None:
        for event in message.events:
            kind = event.WhichOneof("event")
            if kind == "text" and self._blocks.takes_text and not event.HasField("vendor"):
                out.append(
                    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":'
                    b'{"type":"text_delta","text":%b}}\n\n' % (self._blocks.index, encode(event.text.text))
                )
            elif kind == "error":
                out.append(failure(ANTHROPIC, error_of(event.error)))
            else:
                out.extend(self._other(event, kind))

    def _other(self, event: text_pb2.TextEvent, kind: str | None) -> list[bytes]:
        fields = carried.fields_of(event) if event.HasField("vendor") else {}
        self._ending.take_fields(fields.pop("answer", {}))
        if kind == "candidate_finished":
            self._ending.take(event.candidate_finished)
        if not fields and kind not in _SHOWN and kind != "finished":
            return []
        out = [] if self._begun else [self._start()]
        out += [_event(each) for each in self._blocks.take(event, kind, fields)]
        if kind == "finished":
            out += [_event(each) for each in self._blocks.end()]
            counts = self._ending.counts(event.finished.usage)
            ended = {"type": "message_delta", "delta": self._ending.delta(), "usage": counts}
            out.append(_event({**self._ending.rest(), **ended}))
            out.append(_event({"type": "message_stop"}))
        return out

    def _start(self) -> bytes:
        self._begun = True
        begun = _begun(self._answer, self._request_id, self._ending)
        begun["usage"] = self._ending.counts(self._answer.usage)
        vendor_fields.merge(begun, self._ending.begun())
        return _event({"type": "message_start", "message": begun})
