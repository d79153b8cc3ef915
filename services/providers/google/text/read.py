"""Read Gemini's answers, streamed or whole, into events."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from typing import Final

import msgspec

from moa.text.v1.text_pb2 import FinishReason
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model
from services.common import errors
from services.providers.counts import Spelling, count_in, read_usage
from services.providers.google import errors as failures
from services.providers.google.text.wire import SIGNER, Answer, Candidate, Feedback, Part
from services.providers.http.classify import name_of, words_of
from services.providers.http.sse import EventParser
from services.providers.text.reading import BaseReader, Malformed

_decode: Final = msgspec.json.Decoder(Answer).decode

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
}
"""Every other reason (MALFORMED_FUNCTION_CALL, OTHER, …) is a failure of the model, not an end."""

COUNTS: Final = Spelling(
    prompt=(("promptTokenCount",), ("toolUsePromptTokenCount",)),
    # Thoughts are not part of the candidates' tokens.
    completion=(("candidatesTokenCount",), ("thoughtsTokenCount",)),
    cached=("cachedContentTokenCount",),
    reasoning=("thoughtsTokenCount",),
    omits_zeros=True,
)


def reader(request: GenerateTextRequest, model: Model, headers: Mapping[str, str]) -> GeminiReader:
    """Make the reader of an answer."""
    return GeminiReader(request, streamed=headers.get("content-type", "").startswith("text/event-stream"))


def count_from(body: bytes) -> int:
    """Read the answer of `countTokens`."""
    count = count_in(body, ("totalTokens",))
    if count is None:
        raise errors.UpstreamBroken("the provider's answer cannot be read")
    return count


class GeminiReader(BaseReader):
    """Reads one answer.

    There is no end mark, and some models put a finish reason on every piece: a candidate has ended when the stream has.
    """

    __slots__ = ("_ends",)

    def __init__(self, request: GenerateTextRequest, *, streamed: bool) -> None:
        super().__init__(request, EventParser() if streamed else None, signer=SIGNER)
        self._ends: dict[int, tuple[str, str]] = {}
        """The latest finish reason and message of each candidate."""

    def _take(self, payload: bytes) -> None:
        if payload != b"[DONE]":  # proxies' end mark; Google has none
            self._take_answer(_decode(payload))

    def _take_whole(self, data: bytes) -> None:
        self._take_answer(_decode(data))

    def _take_answer(self, answer: Answer) -> None:
        if answer.error is not None:
            raise failures.failed(0, answer.error)
        if answer.prompt_feedback is not None and answer.prompt_feedback.block_reason:
            raise refused_prompt(answer.prompt_feedback)
        if not self.upstream_id and answer.response_id:
            self.upstream_id = answer.response_id
        for candidate in answer.candidates or ():
            self._take_candidate(candidate)
        counts = read_usage(answer.usage_metadata, COUNTS)
        if counts is not None and counts != self._meter.reported:
            self._meter.reported = counts
            if self._framing is not None:
                self._events.append(self.usage_so_far())

    def _take_candidate(self, candidate: Candidate) -> None:
        for part in (candidate.content.parts if candidate.content else None) or ():
            self._take_part(candidate.index, part)
        if candidate.finish_reason and candidate.finish_reason != "FINISH_REASON_UNSPECIFIED":
            self._ends[candidate.index] = (candidate.finish_reason, candidate.finish_message or "")
            self.ending = len(self._ends) >= self._wanted

    def _take_part(self, candidate: int, part: Part) -> None:
        try:
            signature = b64decode(part.thought_signature) if part.thought_signature else b""
        except Base64Error:
            raise Malformed from None
        if part.function_call is not None:
            call = part.function_call
            arguments = bytes(call.args).decode()
            index = self._calls_begun(candidate)
            self._call(candidate, index, arguments, call_id=call.id, name=call.name, signature=signature)
            return
        if part.thought:
            self._reason(candidate, part.text or "", signature)
            return
        if part.text:
            self._say(candidate, part.text)
        if signature:
            # A signature on text proves the reasoning behind it, which may not be shown.
            self._reason(candidate, "", signature)

    @property
    def _is_over(self) -> bool:
        # A finish reason may stand on a piece before the last.
        return False

    def _conclude(self) -> None:
        for candidate, (word, message) in self._ends.items():
            reason = FINISH_REASONS.get(word)
            if reason is None:
                raise errors.UpstreamFailed(f"the provider gave the answer up ({name_of(word).lower()})")
            if reason == _STOP and self._calls_begun(candidate):
                reason = FinishReason.FINISH_REASON_TOOL_CALLS
            self._end_candidate(candidate, reason, refusal=message if reason == _FILTERED else "")


def refused_prompt(feedback: Feedback) -> errors.ContentPolicy:
    """Return the error of a prompt that was refused."""
    why = name_of(feedback.block_reason).lower()
    words = f": {words_of(feedback.block_reason_message)}" if feedback.block_reason_message else ""
    return errors.ContentPolicy(f"the provider refused the prompt ({why}){words}", param="messages")
