"""Read Gemini's answers, streamed or whole, into events."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, Final

import msgspec

from moa.text.v1.text_pb2 import FinishReason, TextEvent, TokenLogprob
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model
from services.common import errors
from services.providers.counts import Spelling, read_usage
from services.providers.google import errors as failures
from services.providers.google.text.carried import VENDOR, Returned, kind_of, may_lack_words, of_part
from services.providers.google.text.wire import SIGNER, Candidate, Feedback, GeneratedContent, Logprob, Logprobs, Part
from services.providers.http.classify import name_of, words_of
from services.providers.http.sse import EventParser
from services.providers.text.carrying import carried_of
from services.providers.text.embedded_errors import EmbeddedError
from services.providers.text.jsontext import arguments_of
from services.providers.text.reading import BaseReader, Malformed
from services.providers.text.surrogates import value_with_surrogates

_UNSAID: Final = frozenset(("", "FINISH_REASON_UNSPECIFIED"))
"""Finish reasons that say that an answer ends, and not why."""

_decode: Final = msgspec.json.Decoder(GeneratedContent).decode
_decode_any: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode

_STOP: Final = FinishReason.FINISH_REASON_STOP
_FILTERED: Final = FinishReason.FINISH_REASON_CONTENT_FILTER

FINISH_REASONS: Final[Mapping[str, FinishReason.ValueType]] = {
    "STOP": _STOP,
    "MAX_TOKENS": FinishReason.FINISH_REASON_LENGTH,
    "SAFETY": _FILTERED,
    "RECITATION": _FILTERED,
    "LANGUAGE": _FILTERED,
    "BLOCKLIST": _FILTERED,
    "PROHIBITED_CONTENT": _FILTERED,
    "SPII": _FILTERED,
    "MODEL_ARMOR": _FILTERED,
    "IMAGE_SAFETY": _FILTERED,
    "IMAGE_PROHIBITED_CONTENT": _FILTERED,
    "IMAGE_RECITATION": _FILTERED,
    "IMAGE_OTHER": _FILTERED,
    # An image was expected; what is here is the answer.
    "NO_IMAGE": _STOP,
}
"""Every other reason (MALFORMED_FUNCTION_CALL, OTHER, …) is a failure of the model, not an end."""

COUNTS: Final = Spelling(
    prompt=(("promptTokenCount",), ("toolUsePromptTokenCount",)),
    # Thoughts are not part of the candidates' tokens.
    completion=(("candidatesTokenCount",), ("thoughtsTokenCount",)),
    cached=(("cachedContentTokenCount",),),
    reasoning=("thoughtsTokenCount",),
    prompt_audio=("promptTokensDetails", "AUDIO"),
    omits_zeros=True,
)


def reader(request: GenerateTextRequest, model: Model, headers: Mapping[str, str]) -> GeminiReader:
    """Make the reader of an answer."""
    streamed = headers.get("content-type", "").startswith("text/event-stream")
    return GeminiReader(request, streamed=streamed, own_name=model.name)


class GeminiReader(BaseReader):
    """Reads one answer.

    There is no end mark, and some models put a finish reason on every piece: a candidate has ended when the stream has.
    """

    __slots__ = ("_ends", "_returned", "_unsaid")

    def __init__(self, request: GenerateTextRequest, *, streamed: bool, own_name: str = "") -> None:
        super().__init__(request, EventParser() if streamed else None, signer=SIGNER)
        self._ends: dict[int, tuple[str, str]] = {}
        """The latest finish reason and message of each candidate."""
        self._unsaid: set[int] = set()
        """Candidates whose latest piece gave a finish reason that says nothing."""
        self._returned = Returned(own_name) if request.vendor.vendor == VENDOR else None

    def _take(self, payload: bytes) -> None:
        if payload != b"[DONE]":  # proxies' end mark; Google has none
            self._take_whole(payload)

    def _take_whole(self, data: bytes) -> None:
        try:
            answer = _decode(data)
        except msgspec.MsgspecError:
            value = value_with_surrogates(data)
            first = value[0] if isinstance(value, list) and value else value
            if isinstance(first, dict) and not first.get("candidates"):
                self._take_bare(first)
            answer = _answer_of(deepcopy(value))
            self._mended = True
            self._take_answer(answer, value if self._returned is not None else {})
            return
        if not answer.candidates and answer.error is None:
            self._take_bare(_decode_any(data), known=bool(answer.usage_metadata or answer.prompt_feedback))
        seen = self._returned is not None or any(map(_has_others, answer.candidates or ()))
        self._take_answer(answer, _decode_any(data) if seen else {})

    def _take_answer(self, answer: GeneratedContent, piece: dict[str, Any]) -> None:
        if answer.error is not None:
            raise failures.failed(0, answer.error)
        if not self.upstream_id and answer.response_id:
            self.upstream_id = answer.response_id
        if self._returned is not None and (beside := self._returned.of_answer(piece)):
            self._events.append(TextEvent(vendor=carried_of(VENDOR, {"answer": beside})))
        if answer.prompt_feedback is not None and answer.prompt_feedback.block_reason:
            if self._returned is None:
                raise refused_prompt(answer.prompt_feedback)
            # Its own callers know such an answer: one without candidates.
            self._wanted = 0
        given = piece.get("candidates") or ()
        for place, candidate in enumerate(answer.candidates or ()):
            self._take_candidate(candidate, given[place] if given else {})
        self._count(read_usage(answer.usage_metadata, COUNTS))

    def _take_candidate(self, candidate: Candidate, given: dict[str, Any]) -> None:
        content = given.get("content") or {}
        parts = content.get("parts") or ()
        if self._returned is None and given and not parts and may_lack_words(given):
            raise Malformed
        before = len(self._events)
        for place, part in enumerate((candidate.content.parts if candidate.content else None) or ()):
            self._take_part(candidate.index, part, parts[place] if parts else {})
        if candidate.logprobs_result is not None:
            self._take_logprobs(candidate.index, candidate.logprobs_result, before)
        if self._returned is not None and (beside := self._returned.of_candidate(given, candidate.index)):
            fields = carried_of(VENDOR, {"candidate": beside})
            self._events.append(TextEvent(candidate=candidate.index, vendor=fields))
        if candidate.finish_reason is None or candidate.finish_reason in _UNSAID:
            (self._unsaid.discard if candidate.finish_reason is None else self._unsaid.add)(candidate.index)
        else:
            self._ends[candidate.index] = (candidate.finish_reason, candidate.finish_message or "")
            self.ending = len(self._ends) >= self._wanted

    def _take_part(self, candidate: int, part: Part, given: dict[str, Any]) -> None:
        try:
            signature = b64decode(part.thought_signature) if part.thought_signature else b""
        except Base64Error:
            raise Malformed from None
        beside = of_part(given) if self._returned is not None else {}
        if self._returned is None and given and (kind := kind_of(given)):
            raise self._unheard(f"a part of another kind ({name_of(kind)})")
        before = len(self._events)
        if part.function_call is not None:
            self._say_some(candidate, part.text)
            call = part.function_call
            if not call.name:
                raise Malformed
            arguments = arguments_of(call.args)
            index = self._calls_begun(candidate)
            self._call(candidate, index, arguments, call_id=call.id, name=call.name, signature=signature)
        elif part.thought:
            self._reason(candidate, self._text(part.text or "", candidate, "reasoning"), signature)
        else:
            self._say_some(candidate, part.text)
            if signature and not beside:
                # A signature on text proves the reasoning behind it, which may not be shown.
                self._reason(candidate, "", signature)
        if beside:
            fields = carried_of(VENDOR, {"part": beside})
            if len(self._events) > before:
                self._events[-1].vendor.CopyFrom(fields)
            else:
                self._events.append(TextEvent(candidate=candidate, vendor=fields))

    def _say_some(self, candidate: int, text: str | None) -> None:
        if text and (text := self._text(text, candidate, "content")):
            self._say(candidate, text)

    def _take_logprobs(self, candidate: int, given: Logprobs, before: int) -> None:
        """Put the tokens' probabilities on the piece's text, or on a piece of their own."""
        top = given.top_candidates or []
        tokens = [
            _logprob_of(chosen, top[place].candidates or () if place < len(top) else ())
            for place, chosen in enumerate(given.chosen_candidates or ())
        ]
        event = next((event for event in self._events[before:] if event.HasField("text")), None)
        if event is None:
            event = TextEvent(candidate=candidate)
            self._events.append(event)
        event.text.logprobs.extend(tokens)

    @property
    def _is_over(self) -> bool:
        # A finish reason may stand on a piece before the last.
        return False

    def _conclude(self) -> None:
        for candidate, (word, message) in self._ends.items():
            reason = FINISH_REASONS.get(word)
            if reason is None and self._returned is not None:
                # Its own callers know these words, and what came before them is theirs.
                reason = _STOP
            if reason is None:
                raise errors.UpstreamFailed(f"the provider stopped the answer ({name_of(word).lower()})")
            if reason == _STOP and self._calls_begun(candidate):
                reason = FinishReason.FINISH_REASON_TOOL_CALLS
            self._end_candidate(candidate, reason, refusal=message if reason == _FILTERED else "")
        for candidate in sorted(self._spoke - self._ends.keys()):
            # Why is not said; that it ended is, by an empty reason, or by the end of an answer that came whole.
            if self._framing is None or candidate in self._unsaid:
                calls = self._calls_begun(candidate)
                self._end_candidate(candidate, FinishReason.FINISH_REASON_TOOL_CALLS if calls else _STOP)

    def _failed(self, found: EmbeddedError) -> errors.MoaError:
        status = next((code for code in found.codes if code in failures.CODES), "")
        number = next((int(code) for code in found.codes if code.isdigit()), 0)
        return failures.failed(0, failures.Failure(number, found.words, status))


def _answer_of(value: Any) -> GeneratedContent:
    """Return a piece whose texts may hold halves of characters. Raises ValueError for one that cannot be read.

    What is kept as it was written, counts and arguments, is written anew in the value.
    """
    if isinstance(value, dict):
        value["usageMetadata"] = msgspec.Raw(_encode(value.get("usageMetadata")))
        for candidate in _objects_in(value.get("candidates")):
            content = candidate.get("content")
            for part in _objects_in(content.get("parts") if isinstance(content, dict) else None):
                call = part.get("functionCall")
                if isinstance(call, dict) and "args" in call:
                    call["args"] = msgspec.Raw(_encode(call["args"]))
    return msgspec.convert(value, GeneratedContent)


def _objects_in(given: Any) -> list[dict[str, Any]]:
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []


def _has_others(candidate: Candidate) -> bool:
    """Return whether a candidate has no part, or one that is neither text nor a call."""
    parts = candidate.content.parts if candidate.content else None
    return not parts or any(part.text is None and part.function_call is None for part in parts)


def _logprob_of(entry: Logprob, top: Iterable[Logprob] = ()) -> TokenLogprob:
    return TokenLogprob(
        token=entry.token, logprob=entry.log_probability, raw=entry.token.encode(), top=[_logprob_of(t) for t in top]
    )


def refused_prompt(feedback: Feedback) -> errors.ContentPolicy:
    """Return the error of a prompt that was refused."""
    why = name_of(feedback.block_reason).lower()
    words = f": {words_of(feedback.block_reason_message)}" if feedback.block_reason_message else ""
    return errors.ContentPolicy(f"the provider refused the prompt ({why}){words}", param="messages")
