"""From the contract's events to OpenAI's chat completion, whole or in chunks."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from moa.common.v1 import usage_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common import vendor_fields
from services.common.dialects import OPENAI
from services.common.errors import error_of
from services.router.dialects.openai import carried, reasoning
from services.router.dialects.reply import encode, end_mark, failure, frame
from services.router.dialects.tools import GOOGLE, Calls, extra_content, signed_id
from services.router.operations.text import TextAnswer

Json = dict[str, Any]

_END = end_mark(OPENAI)
_SHOWN = ("text", "reasoning", "tool_call", "candidate_finished")

_FINISH = {
    text_pb2.FINISH_REASON_STOP: "stop",
    text_pb2.FINISH_REASON_LENGTH: "length",
    text_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
    text_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
}


def usage_of(usage: usage_pb2.Usage) -> dict[str, Any]:
    """Return the usage as OpenAI writes it, and what went into a cache as OpenRouter does."""
    cached = {"cached_tokens": usage.cached_tokens}
    if usage.cache_write_tokens:
        cached["cache_write_tokens"] = usage.cache_write_tokens
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": cached,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _logprobs(tokens: Any) -> list[dict[str, Any]]:
    return [
        {
            "token": token.token,
            "logprob": token.logprob,
            "bytes": list(token.raw),
            "top_logprobs": [{"token": top.token, "logprob": top.logprob, "bytes": list(top.raw)} for top in token.top],
        }
        for token in tokens
    ]


class _Candidate:
    """One candidate, gathered."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.details = reasoning.Details()
        self.calls = Calls()
        self.logprobs: list[dict[str, Any]] = []
        self.refusal = ""
        self.finish = "stop"
        self.fields: Json = {}
        """Of the vendor's own."""

    def take_fields(self, fields: Json, event: text_pb2.TextEvent) -> None:
        call = fields.pop("call", None)
        if call:
            self.calls.take_fields(event.tool_call.call_index, call)
        vendor_fields.go_on(self.fields, fields)

    def take(self, event: text_pb2.TextEvent, kind: str | None) -> None:
        if kind == "text":
            self.text.append(event.text.text)
            if event.text.logprobs:
                self.logprobs += _logprobs(event.text.logprobs)
        elif kind == "reasoning":
            self.reasoning.append(event.reasoning.text)
            self.details.take(event.reasoning)
        elif kind == "tool_call":
            self.calls.take(event.tool_call, self.details.call_id(event.tool_call.id))
        elif kind == "candidate_finished":
            self.finish = _FINISH.get(event.candidate_finished.reason, "stop")
            self.refusal = event.candidate_finished.refusal

    def choice(self, index: int) -> dict[str, Any]:
        text = "".join(self.text)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text if text or not (self.calls or self.refusal) else None,
            "refusal": self.refusal or None,
        }
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        if self.details:
            message["reasoning_details"] = self.details.whole()
        if self.calls:
            message["tool_calls"] = self.calls.whole()
        if self.fields:
            vendor_fields.merge(message, self.fields.get("message", {}))
        choice: Json = {
            "index": index,
            "message": message,
            "logprobs": {"content": self.logprobs, "refusal": None} if self.logprobs else None,
            "finish_reason": self.finish,
        }
        if self.fields:
            vendor_fields.merge(choice, self.fields.get("choice", {}))
        return choice


async def whole(answer: TextAnswer, request_id: str) -> dict[str, Any]:
    """Drain the answer to one `chat.completion`. Raises MoaError when it failed."""
    candidates: defaultdict[int, _Candidate] = defaultdict(_Candidate)
    beside: Json = {}
    while (message := await answer.next()) is not None:
        for event in message.events:
            kind = event.WhichOneof("event")
            if kind == "error":
                raise error_of(event.error)
            if kind in _SHOWN:
                candidates[event.candidate].take(event, kind)
            if event.HasField("vendor"):
                fields = carried.fields_of(event)
                vendor_fields.go_on(beside, fields.pop("answer", {}))
                if fields:
                    candidates[event.candidate].take_fields(fields, event)
    whole: Json = {
        "id": f"chatcmpl-{request_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": beside.pop("model", answer.model.id),
        "choices": [candidates[i].choice(i) for i in sorted(candidates)] or [_Candidate().choice(0)],
        "usage": usage_of(answer.usage),
        "service_tier": beside.pop("service_tier", None),
        "system_fingerprint": beside.pop("system_fingerprint", None),
    }
    if beside:
        vendor_fields.merge(whole, beside)
    return whole


class Chunks:
    """Renders an answer's messages to `chat.completion.chunk` events.

    Text, by far the commonest event, is one byte concatenation around its JSON string.
    """

    def __init__(self, answer: TextAnswer, request_id: str, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._begun: set[int] = set()
        self._details: dict[int, reasoning.Details] = {}
        self._usage_beside: Json = {}
        self._common: dict[str, Any] = {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": answer.model.id,
            "system_fingerprint": None,
        }
        self._head = self._header()
        null_usage = b',"usage":null' if include_usage else b""
        self._text_tail = b'},"logprobs":null,"finish_reason":null}]' + null_usage + b"}\n\n"

    def _header(self) -> bytes:
        return b"data: " + encode(self._common)[:-1] + b',"choices":[{"index":'

    def of(self, message: text_service_pb2.GenerateTextResponse) -> bytes:
        """Render one message; empty when none of its events shows in this dialect."""
        out: list[bytes] = []
        for event in message.events:
            kind = event.WhichOneof("event")
            candidate = event.candidate
            if kind in _SHOWN and candidate not in self._begun:
                self._begun.add(candidate)
                out.append(self._chunk(candidate, {"role": "assistant", "content": "", "refusal": None}))
            if event.HasField("vendor"):
                out.append(self._carrying(event, kind))
            elif kind == "text" and not event.text.logprobs:
                text = encode(event.text.text)
                out.append(b"%b%d%b%b%b" % (self._head, candidate, b',"delta":{"content":', text, self._text_tail))
            elif kind == "finished":
                out.append(self._end(event.finished.usage))
            elif kind == "error":
                out.append(failure(OPENAI, error_of(event.error)))
            elif kind in _SHOWN:
                out.append(self._other(event, kind))
            elif kind == "started":
                # Another model goes on.
                self._common["model"] = event.started.model
                self._head = self._header()
        return b"".join(out)

    def _other(self, event: text_pb2.TextEvent, kind: str) -> bytes:
        if kind == "candidate_finished":
            ended = event.candidate_finished
            refused = {"refusal": ended.refusal} if ended.refusal else {}
            return self._chunk(event.candidate, refused, finish=_FINISH.get(ended.reason, "stop"))
        delta = self._delta(event, kind)
        tokens = event.text.logprobs if kind == "text" else None
        return self._chunk(event.candidate, delta, tokens=tokens) if delta else b""

    def _delta(self, event: text_pb2.TextEvent, kind: str | None) -> Json:
        if kind == "reasoning":
            delta: Json = {"reasoning_content": event.reasoning.text} if event.reasoning.text else {}
            part = self._details.setdefault(event.candidate, reasoning.Details()).take(event.reasoning)
            if part is not None:
                delta["reasoning_details"] = [part]
            return delta
        if kind == "tool_call":
            details = self._details.get(event.candidate)
            call_id = event.tool_call.id
            return {"tool_calls": [_tool_call(event.tool_call, details.call_id(call_id) if details else call_id)]}
        return {"content": event.text.text} if kind == "text" else {}

    def _carrying(self, event: text_pb2.TextEvent, kind: str | None) -> bytes:
        """Render an event with fields of the vendor's own."""
        fields = carried.fields_of(event)
        beside: Json = fields.pop("answer", {})
        vendor_fields.go_on(self._usage_beside, beside.pop("usage", {}))
        for name in ("model", "system_fingerprint", "service_tier"):
            if name in beside:
                self._common[name] = beside.pop(name)
                self._head = self._header()
        if not fields and kind not in _SHOWN:
            return frame({**self._common, "choices": [], **beside}) if beside else b""
        delta = self._delta(event, kind)
        if "call" in fields and "tool_calls" in delta:
            vendor_fields.merge(delta["tool_calls"][0], fields["call"])
        vendor_fields.merge(delta, fields.get("message", {}))
        finish = None
        if kind == "candidate_finished":
            finish = _FINISH.get(event.candidate_finished.reason, "stop")
            if event.candidate_finished.refusal:
                delta["refusal"] = event.candidate_finished.refusal
        tokens = event.text.logprobs if kind == "text" else None
        return self._chunk(
            event.candidate, delta, finish=finish, tokens=tokens, choice=fields.get("choice"), beside=beside
        )

    def _chunk(
        self,
        candidate: int,
        delta: Json,
        *,
        finish: str | None = None,
        tokens: Any = None,
        choice: Json | None = None,
        beside: Json | None = None,
    ) -> bytes:
        made: Json = {
            "index": candidate,
            "delta": delta,
            "logprobs": {"content": _logprobs(tokens), "refusal": None} if tokens else None,
            "finish_reason": finish,
        }
        if choice:
            vendor_fields.merge(made, choice)
        chunk: Json = {**self._common, "choices": [made]}
        if self._include_usage:
            chunk["usage"] = None
        if beside:
            vendor_fields.merge(chunk, beside)
        return frame(chunk)

    def _end(self, usage: usage_pb2.Usage) -> bytes:
        if not self._include_usage:
            return _END
        counts = usage_of(usage)
        vendor_fields.merge(counts, self._usage_beside)
        return frame({**self._common, "choices": [], "usage": counts}) + _END


def _tool_call(piece: text_pb2.ToolCallDelta, call_id: str) -> dict[str, Any]:
    """Return a piece of a call as OpenAI's delta: id, type and name only on the first."""
    kind, words = ("custom", "input") if piece.custom else ("function", "arguments")
    called: dict[str, Any] = {words: piece.arguments_json}
    results: dict[str, Any] = {"index": piece.call_index, kind: called}
    signed = piece.signature and piece.signer == GOOGLE
    if call_id:
        results["id"] = signed_id(call_id, piece.signature) if signed else call_id
        results["type"] = kind
    if signed:
        results["extra_content"] = extra_content(piece.signature)
    if piece.name:
        called["name"] = piece.name
    return results
