"""The events of Anthropic's streams by its published types, each field of which is known, and in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

Json = dict[str, Any]
Count = Annotated[int, Meta(ge=0)]
StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal", "model_context_window_exceeded"
]


class _Strict(Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class Details(_Strict):
    """The kinds of an answer's tokens."""

    thinking_tokens: Count


class Usage(_Strict):
    """An answer's tokens."""

    input_tokens: Count
    cache_creation_input_tokens: Count
    cache_read_input_tokens: Count
    output_tokens: Count
    output_tokens_details: Details | None = None
    server_tool_use: Json | None = None
    cache_creation: Json | None = None
    service_tier: Literal["standard", "priority", "batch"] | None = None
    inference_geo: str | None = None
    speed: Literal["standard", "fast"] | None = None


class TextBlock(_Strict, tag_field="type", tag="text"):
    """Text, empty where it begins."""

    text: str
    citations: list[Json] | None = None


class ThinkingBlock(_Strict, tag_field="type", tag="thinking"):
    """Reasoning."""

    thinking: str
    signature: str


class RedactedBlock(_Strict, tag_field="type", tag="redacted_thinking"):
    """Reasoning that only its vendor reads."""

    data: Annotated[str, Meta(min_length=1)]


class CallBlock(_Strict, tag_field="type", tag="tool_use"):
    """A call."""

    id: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]+$")]
    name: Annotated[str, Meta(min_length=1)]
    input: Json
    caller: Json | None = None


class ServerCallBlock(_Strict, tag_field="type", tag="server_tool_use"):
    """A call that runs at Anthropic."""

    id: str
    name: str
    input: Json
    caller: Json | None = None


class SearchBlock(_Strict, tag_field="type", tag="web_search_tool_result"):
    """What it found."""

    tool_use_id: str
    content: Any


Block = TextBlock | ThinkingBlock | RedactedBlock | CallBlock | ServerCallBlock | SearchBlock


class TextDelta(_Strict, tag_field="type", tag="text_delta"):
    """Text goes on."""

    text: str


class ThinkingDelta(_Strict, tag_field="type", tag="thinking_delta"):
    """Reasoning goes on."""

    thinking: str


class SignatureDelta(_Strict, tag_field="type", tag="signature_delta"):
    """Reasoning ends."""

    signature: Annotated[str, Meta(min_length=1)]


class InputDelta(_Strict, tag_field="type", tag="input_json_delta"):
    """A call's arguments go on."""

    partial_json: str


class CitationsDelta(_Strict, tag_field="type", tag="citations_delta"):
    """The text so far is found somewhere."""

    citation: Json


class Message(_Strict):
    """A message, as it begins in a stream, and whole."""

    id: Annotated[str, Meta(pattern="^msg_.")]
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Block]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: Usage
    stop_details: Json | None = None
    container: Json | None = None


class Ended(_Strict):
    """Why an answer ended."""

    stop_reason: StopReason
    stop_sequence: str | None
    stop_details: Json | None = None
    container: Json | None = None


class Start(_Strict, tag_field="type", tag="message_start"):
    """A message begins."""

    message: Message


class BlockStart(_Strict, tag_field="type", tag="content_block_start"):
    """A block begins."""

    index: Count
    content_block: Block


class BlockDelta(_Strict, tag_field="type", tag="content_block_delta"):
    """A block goes on."""

    index: Count
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputDelta | CitationsDelta


class BlockStop(_Strict, tag_field="type", tag="content_block_stop"):
    """A block ends."""

    index: Count


class End(_Strict, tag_field="type", tag="message_delta"):
    """A message ends."""

    delta: Ended
    usage: Usage
    context_management: Json | None = None


class Stop(_Strict, tag_field="type", tag="message_stop"):
    """Nothing follows."""


Event = Start | BlockStart | BlockDelta | BlockStop | End | Stop
_OF_BLOCK = {
    TextBlock: (TextDelta, CitationsDelta),
    ThinkingBlock: (ThinkingDelta, SignatureDelta),
    RedactedBlock: (),
    CallBlock: (InputDelta,),
    ServerCallBlock: (InputDelta,),
    SearchBlock: (),
}


def check_message(message: Any) -> None:
    """Raise where a whole message is none."""
    typed = msgspec.convert(message, Message)
    assert typed.stop_reason is not None
    for block in typed.content:
        assert not isinstance(block, ThinkingBlock) or block.signature


def check_stream(events: Sequence[Any], *, whole: bool = True) -> None:
    """Raise where events are not those of a stream, each of its type and in its place. `whole`: it came to its end."""
    typed = [msgspec.convert(event, Event) for event in events]
    if not typed:
        assert not whole
        return
    start, *rest = typed
    assert isinstance(start, Start)
    assert start.message.content == []
    if whole:
        *rest, end, stop = rest
        assert isinstance(end, End)
        assert isinstance(stop, Stop)
    index, opened, signed = -1, None, False
    for event in rest:
        if isinstance(event, BlockStart):
            assert opened is None
            index, opened, signed = index + 1, event.content_block, False
            assert event.index == index
        elif isinstance(event, BlockDelta):
            assert opened is not None
            assert event.index == index
            assert isinstance(event.delta, _OF_BLOCK[type(opened)])
            assert not signed
            signed = isinstance(event.delta, SignatureDelta)
        else:
            assert isinstance(event, BlockStop)
            assert event.index == index
            assert opened is not None
            assert signed or not isinstance(opened, ThinkingBlock)
            opened = None
    assert opened is None or not whole
