"""Read Converse's answers, streamed or whole, into events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model
from services.common import errors
from services.providers.aws import errors as failures
from services.providers.aws.eventstream import Frame, FrameParser
from services.providers.aws.text.families import family_of
from services.providers.aws.text.wire import (
    BlockDelta,
    BlockStart,
    Metadata,
    Reasoning,
    Stop,
    Whole,
)
from services.providers.counts import Spelling, read_usage
from services.providers.http.classify import name_of
from services.providers.text import embedded_errors
from services.providers.text.blocks import BlockReader
from services.providers.text.reading import Malformed
from services.providers.text.surrogates import value_with_surrogates

COUNTS: Final = Spelling(
    # What came from the cache, or went into it, is not part of `inputTokens`.
    prompt=(("inputTokens",), ("cacheReadInputTokens",), ("cacheWriteInputTokens",)),
    # Reasoning is part of the output and not told apart.
    completion=(("outputTokens",),),
    cached=(("cacheReadInputTokens",),),
    cache_write=(("cacheWriteInputTokens",),),
)

_QUIET: Final = frozenset(("messageStart", "contentBlockStop"))
"""Events that say nothing."""
_BESIDE: Final = frozenset(("citation", "cachePoint"))
"""Pieces that say something of the text, and are none of it."""

_any: Final = msgspec.json.Decoder(dict[str, Any]).decode
_encode: Final = msgspec.json.Encoder().encode
_start: Final = msgspec.json.Decoder(BlockStart).decode
_delta: Final = msgspec.json.Decoder(BlockDelta).decode
_stop: Final = msgspec.json.Decoder(Stop).decode
_metadata: Final = msgspec.json.Decoder(Metadata).decode
_whole: Final = msgspec.json.Decoder(Whole).decode


def reader(request: GenerateTextRequest, model: Model, headers: Mapping[str, str]) -> BedrockReader:
    """Make the reader of an answer."""
    streamed = headers.get("content-type", "").startswith("application/vnd.amazon.eventstream")
    upstream_id = headers.get("x-amzn-requestid", "")
    return BedrockReader(request, streamed=streamed, upstream_id=upstream_id, signer=family_of(model.name).vendor)


class BedrockReader(BlockReader):
    """Reads one answer. Usage may come before the stop reason or after it; both belong to a whole answer."""

    __slots__ = ()

    # `malformed_tool_use` and others are failures of the model.
    withheld = frozenset(("guardrail_intervened", "content_filtered"))

    def __init__(
        self, request: GenerateTextRequest, *, streamed: bool, upstream_id: str, signer: str = "amazon"
    ) -> None:
        super().__init__(request, FrameParser() if streamed else None, signer=signer)
        self.upstream_id = upstream_id

    def _take(self, payload: Frame) -> None:
        if payload.kind == "exception":
            raise failures.failed(0, payload.name, payload.payload)
        if payload.name == "contentBlockDelta":
            self._take_delta(self._delta_of(payload.payload), payload.payload)
        elif payload.name == "contentBlockStart":
            self._take_start(_start(payload.payload), payload.payload)
        elif payload.name == "messageStop":
            self._stop(_stop(payload.payload).stop_reason)
        elif payload.name == "metadata":
            self._count(read_usage(_metadata(payload.payload).usage, COUNTS), closing=self.ending)
        elif payload.name not in _QUIET:
            self._take_bare(_any(payload.payload))
        if self.ending and self._meter.reported is not None:
            self._finish()

    def _take_start(self, event: BlockStart, data: bytes) -> None:
        begun = event.start.tool_use
        if begun is None:
            self._check_piece(_any(data), "start")
            return
        self._check_tool(begun.type)
        self._begin_streamed_call(event.content_block_index, begun.tool_use_id, begun.name)

    def _check_tool(self, kind: str | None) -> None:
        if kind:
            raise self._unheard(f"a tool that runs at the provider ({name_of(kind)})")

    def _check_piece(self, given: Mapping[str, Any], place: str) -> None:
        """Check what is in an event that holds nothing known. Raises also Malformed, for text beside the place."""
        self._check_kind(given.get(place))
        if embedded_errors.may_speak({name: value for name, value in given.items() if name not in (place, "p")}):
            raise Malformed  # `p` is padding

    def _check_kind(self, given: Any) -> None:
        """Raise Unsupported for a block, or a piece of one, of a kind that no event has a form for."""
        names = [name for name, value in given.items() if value is not None] if isinstance(given, dict) else []
        if kind := next((name for name in names if name not in _BESIDE), ""):
            raise self._unheard(f"a block of another kind ({name_of(kind)})")

    def _delta_of(self, data: bytes) -> BlockDelta:
        try:
            return _delta(data)
        except msgspec.MsgspecError:
            found = msgspec.convert(value_with_surrogates(data), BlockDelta)
            self._mended = True
            return found

    def _take_delta(self, event: BlockDelta, data: bytes) -> None:
        delta = event.delta
        if not delta.is_known:
            self._check_piece(_any(data), "delta")
        if delta.text:
            if text := self._text(delta.text, 0, "content"):
                self._say(0, text)
        elif delta.tool_use is not None and delta.tool_use.input:
            index = self._tools.setdefault(event.content_block_index, len(self._tools))
            self._go_on_with_call(index, delta.tool_use.input)
        elif delta.reasoning_content is not None:
            self._take_reasoning(delta.reasoning_content)

    def _take_reasoning(self, reasoning: Reasoning) -> None:
        if reasoning.reasoning_text is not None:
            self._reason(0, reasoning.reasoning_text.text or "", (reasoning.reasoning_text.signature or "").encode())
        elif reasoning.redacted_content:
            self._reason(0, "", reasoning.redacted_content)
        elif reasoning.text or reasoning.signature:
            text = self._text(reasoning.text or "", 0, "reasoning")
            if text or reasoning.signature:
                self._reason(0, text, (reasoning.signature or "").encode())

    def _take_whole(self, data: bytes) -> None:
        answer = _whole(data)
        for place, block in enumerate(answer.output.message.content):
            if not block.is_known:
                self._check_kind(_any(data)["output"]["message"]["content"][place])
            elif block.text:
                self._say(0, block.text)
            elif block.tool_use is not None:
                call = block.tool_use
                self._check_tool(call.type)
                self._take_whole_call(call.tool_use_id, call.name, call.input)
            elif block.citations_content is not None:
                for cited in block.citations_content.content:
                    if cited.text is None:
                        raise Malformed
                    self._say(0, cited.text)
            elif block.reasoning_content is not None:
                self._take_reasoning(block.reasoning_content)
        self._count(read_usage(answer.usage, COUNTS))
        self._stop(answer.stop_reason)

    def _failed(self, found: embedded_errors.EmbeddedError) -> errors.MoaError:
        named = next((code for code in found.codes if code.lower() in failures.CODES), "")
        return failures.failed(0, named, _encode({"message": found.words}))
