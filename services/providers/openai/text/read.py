"""Read OpenAI's answers, streamed or whole, into events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from moa.text.v1.text_pb2 import FinishReason, TokenLogprob
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model
from services.common import errors
from services.providers.counts import Spelling, read_usage
from services.providers.http.sse import EventParser
from services.providers.openai import errors as failures
from services.providers.openai.text.wire import Call, Choice, Chunk, Logprob, Said
from services.providers.text.reading import BaseReader

_decode: Final = msgspec.json.Decoder(Chunk).decode

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
    cached=("prompt_tokens_details", "cached_tokens"),
    reasoning=("completion_tokens_details", "reasoning_tokens"),
)

_FAILED_FINISHES: Final[Mapping[str, type[errors.MoaError]]] = {
    "error": errors.UpstreamFailed,
    "insufficient_system_resource": errors.UpstreamOverloaded,  # DeepSeek
}


def reader(request: GenerateTextRequest, model: Model, headers: Mapping[str, str]) -> OpenAIReader:
    """Make the reader of an answer. A server may answer a stream request whole: its content type decides."""
    streamed = headers.get("content-type", "").startswith("text/event-stream")
    return OpenAIReader(request, streamed=streamed)


class OpenAIReader(BaseReader):
    """Reads one answer."""

    __slots__ = ("_refusals",)

    def __init__(self, request: GenerateTextRequest, *, streamed: bool) -> None:
        super().__init__(request, EventParser() if streamed else None)
        self._refusals: dict[int, str] = {}

    def _take(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            self._finish()
        else:
            self._take_chunk(_decode(payload))

    def _take_whole(self, data: bytes) -> None:
        self._take_chunk(_decode(data))

    def _take_chunk(self, chunk: Chunk) -> None:
        if chunk.error is not None:
            failure = chunk.error if isinstance(chunk.error, failures.Failure) else failures.Failure(chunk.error)
            raise failures.failed(0, failure)
        if not self.upstream_id and chunk.id:
            self.upstream_id = chunk.id
        counts = read_usage(chunk.usage, COUNTS)
        if counts is not None:
            self._meter.reported = counts
        for choice in chunk.choices or ():
            said = choice.delta or choice.message
            if said is not None:
                self._take_said(choice, said)
            if choice.finish_reason:
                self._take_end(choice.index, choice.finish_reason)
        if self.ending and counts is not None:
            self._finish()

    def _take_said(self, choice: Choice, said: Said) -> None:
        candidate = choice.index
        reasoning = said.reasoning_content or said.reasoning
        if reasoning:
            self._reason(candidate, reasoning)
        logprobs = choice.logprobs.content if choice.logprobs is not None else None
        if said.content or logprobs:
            self._say(candidate, said.content or "")
            if logprobs:
                self._events[-1].text.logprobs.extend(map(logprob_of, logprobs))
        if said.refusal:
            self._refusals[candidate] = self._refusals.get(candidate, "") + said.refusal
            self._meter.saw(said.refusal)
        for call in said.tool_calls or ():
            self._take_call(candidate, call)

    def _take_call(self, candidate: int, call: Call) -> None:
        function = call.function
        name = function.name if function else None
        index = call.index
        if index is None:
            # Without indices, an id or a name begins a call; else the piece belongs to the latest one.
            begun = self._calls_begun(candidate)
            index = begun if call.id or name else max(0, begun - 1)
        arguments = (function.arguments if function else None) or ""
        self._call(candidate, index, arguments, call_id=call.id, name=name)

    def _take_end(self, candidate: int, word: str) -> None:
        failed = _FAILED_FINISHES.get(word)
        if failed is not None:
            raise failed("the provider gave the answer up")
        reason = FINISH_REASONS.get(word, FinishReason.FINISH_REASON_STOP)
        self._end_candidate(candidate, reason, refusal=self._refusals.get(candidate, ""))


def logprob_of(entry: Logprob) -> TokenLogprob:
    """Return a token's probability as the contract says it."""
    raw = bytes(entry.bytes) if entry.bytes is not None else entry.token.encode()
    return TokenLogprob(
        token=entry.token,
        logprob=entry.logprob,
        raw=raw,
        top=[logprob_of(other) for other in entry.top_logprobs or ()],
    )
