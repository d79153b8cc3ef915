"""What readers of answers in content blocks have in common: Anthropic's Messages and Amazon's Converse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

from moa.text.v1.text_pb2 import FinishReason
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common import errors
from services.providers.http.classify import name_of
from services.providers.text.jsontext import arguments_of
from services.providers.text.names import rewritten
from services.providers.text.reading import BaseReader, Framing, Malformed

_FINISH_REASONS: Final[Mapping[str, FinishReason.ValueType]] = {
    "end_turn": FinishReason.FINISH_REASON_STOP,
    "stop_sequence": FinishReason.FINISH_REASON_STOP,
    "tool_use": FinishReason.FINISH_REASON_TOOL_CALLS,
    "max_tokens": FinishReason.FINISH_REASON_LENGTH,
    "model_context_window_exceeded": FinishReason.FINISH_REASON_LENGTH,
}


class BlockReader(BaseReader):
    """A `BaseReader` of one candidate, whose calls are content blocks.

    Args:
        request: What was asked.
        framing: Splits a streamed answer; None for a whole one.
        signer: The vendor that makes the signatures of reasoning and calls.
    """

    __slots__ = ("_names", "_silent", "_tools")

    withheld: ClassVar[frozenset[str]] = frozenset()
    """Reasons of an end by which the answer was withheld. Every other unknown one is a failure of the model, no end."""

    def __init__(self, request: GenerateTextRequest, framing: Framing | None, *, signer: str) -> None:
        super().__init__(request, framing, signer=signer)
        self._names = rewritten(request)
        self._tools: dict[int, int] = {}
        """Content block → which call it is."""
        self._silent: set[int] = set()
        """Calls of which no arguments have come."""

    def _begin_streamed_call(self, place: int, call_id: str | None, name: str | None) -> None:
        """Take the beginning of a call, whose arguments come later. Raises Malformed."""
        if not name:
            raise Malformed
        index = self._tools[place] = len(self._tools)
        self._silent.add(index)
        self._call(0, index, "", call_id=call_id, name=self._names.get(name, name))

    def _go_on_with_call(self, index: int, arguments: str) -> None:
        self._silent.discard(index)
        self._call(0, index, self._text(arguments, 0, f"call {index}"))

    def _take_whole_call(self, call_id: str | None, name: str | None, given: msgspec.Raw) -> None:
        """Take a call whose arguments have come with it. Raises Malformed."""
        if not name:
            raise Malformed
        self._call(0, self._calls_begun(0), arguments_of(given), call_id=call_id, name=self._names.get(name, name))

    def _stop(self, word: str | None, *, refusal: str = "", stop_sequence: str = "") -> None:
        """End the answer for a reason; without one, for the usual."""
        if not word and not self._spoke:
            raise errors.UpstreamBroken("the provider ended the answer without a word or a reason")
        if word in self.withheld:
            reason: FinishReason.ValueType | None = FinishReason.FINISH_REASON_CONTENT_FILTER
        else:
            reason = _FINISH_REASONS.get(word or ("tool_use" if self._calls_begun(0) else "end_turn"))
        if reason is None:
            raise errors.UpstreamFailed(f"the provider stopped the answer ({name_of(word)})")
        for index in sorted(self._silent):
            # In a stream, a call without arguments has none, not even braces.
            self._call(0, index, "{}")
        self._end_candidate(0, reason, refusal=refusal, stop_sequence=stop_sequence)
