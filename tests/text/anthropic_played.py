"""Pieces of Messages' answers, and what is read of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from moa.text.v1.text_pb2 import (
    ReasoningOptions,
    TextEvent,
)
from services.catalogue import Model
from services.providers.anthropic.text.read import AnthropicReader
from services.providers.anthropic.text.request import body_from
from services.providers.text.ignored import Ignored
from tests.emulators.anthropic import event
from tests.text.harness import chat

Json = dict[str, Any]

ABLE = ["tools", "reasoning", "vision", "json_schema"]
THINKER = Model(id="m", provider="p", capabilities=frozenset(ABLE))
STOP = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
OVER = {"type": "message_stop"}


def read(*given: Mapping[str, Any], **asked: Any) -> tuple[list[TextEvent], AnthropicReader]:
    """Return the events of a stream, and its reader."""
    reader = AnthropicReader(chat(reasoning=ReasoningOptions(include=True), **asked), streamed=True)
    events = reader.feed(b"".join(map(event, given)))
    return (events if reader.failure is not None else [*events, *reader.end()]), reader


def read_whole(**answer: Any) -> tuple[list[TextEvent], AnthropicReader]:
    """Return the events of a whole answer, and its reader."""
    reader = AnthropicReader(chat(reasoning=ReasoningOptions(include=True)), streamed=False)
    reader.feed(json.dumps({"type": "message", "id": "msg_1", **answer}).encode())
    return reader.end(), reader


def start(place: int, **block: Any) -> Json:
    return {"type": "content_block_start", "index": place, "content_block": block}


def delta(place: int, kind: str, **fields: Any) -> Json:
    return {"type": "content_block_delta", "index": place, "delta": {"type": kind, **fields}}


def begun(**usage: Any) -> Json:
    return {"type": "message_start", "message": {"id": "msg_1", "usage": usage}}


def sent(model: Model = THINKER, **asked: Any) -> Json:
    """Return the body of a request."""
    return body_from(chat("look", **asked), model, Ignored())
