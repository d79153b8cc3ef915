"""The words of requests and of events, whatever the operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moa.embedding.v1.embedding_service_pb2 import EmbedTextsRequest
from moa.image.v1.image_pb2 import ImageEvent
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common.estimate import words_of_tool


def texts_of(request: Any) -> Iterator[str]:
    """Return what a request says in words: of turns, calls, results and tools.

    Not what is in pictures, files and lists of tokens, and in fields that only a vendor knows.
    """
    if isinstance(request, GenerateTextRequest):
        for message in request.messages:
            yield from _of_message(message)
        for tool in request.tools:
            yield from words_of_tool(tool)
        yield request.response_format.schema_json
    elif isinstance(request, GenerateImageRequest):
        yield request.prompt
        yield request.negative_prompt
    elif isinstance(request, EmbedTextsRequest):
        yield request.title
        yield from request.texts


def _of_message(message: text_pb2.Message) -> Iterator[str]:
    """Return a turn's words; its parts of text as one, as a model reads them."""
    yield message.name
    yield "".join(part.text for part in message.parts)
    for part in message.parts:
        kind = part.WhichOneof("part")
        if kind == "tool_call":
            yield from (part.tool_call.name, part.tool_call.arguments_json)
        elif kind == "tool_result":
            yield part.tool_result.content
        elif kind == "reasoning":
            yield part.reasoning.text


def text_of(event: Any) -> str:
    """Return what an event says in words."""
    kind = event.WhichOneof("event")
    if kind == "text":
        return str(event.text.text)
    if isinstance(event, ImageEvent):
        return event.image.revised_prompt if kind == "image" else ""
    if kind == "reasoning":
        return str(event.reasoning.text)
    return str(event.tool_call.arguments_json) if kind == "tool_call" else ""


def shortened(event: Any, size: int) -> Any | None:
    """Return an event with so many of its first characters alone; None where nothing would be left."""
    kind = event.WhichOneof("event")
    if size <= 0 or kind not in ("text", "reasoning", "tool_call") or isinstance(event, ImageEvent):
        return None
    result = text_pb2.TextEvent(candidate=event.candidate)
    getattr(result, kind).CopyFrom(getattr(event, kind))
    if kind == "tool_call":
        result.tool_call.arguments_json = event.tool_call.arguments_json[:size]
    else:
        getattr(result, kind).text = text_of(event)[:size]
        result.text.ClearField("logprobs") if kind == "text" else result.reasoning.ClearField("signature")
    return result
