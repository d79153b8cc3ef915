"""Anthropic's dialect."""

from __future__ import annotations

import json
from typing import Any, Final

import requests

from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.router.dialects.anthropic import message_request
from services.router.dialects.anthropic.bodies import MessageBody
from tests.dialects.rig import (
    BASE64,
    LONG,
    NAME,
    RESULT,
    SCHEMA,
    SEEN_URI,
    TURNS,
    AnswerRig,
    Asked,
    Body,
    LargeBody,
    Served,
    StreamForm,
    asked,
    sse,
)

VERSION: Final = {"anthropic-version": "2023-06-01"}
PING: Final = 'event: ping\ndata: {"type":"ping"}\n\n'
TOOL: Final = {"name": NAME, "description": "the weather", "input_schema": SCHEMA}
_SEEN: Final = {"type": "base64", "media_type": "image/png", "data": SEEN_URI.partition(",")[2]}


def _text(model: str, words: str, *, stream: bool = False, max_tokens: int | None = None) -> Asked:
    turns = [{"role": "user", "content": words}]
    body = {"model": model, "messages": turns, "stream": stream or None, "max_tokens": max_tokens}
    return asked("/v1/messages", body)


def create(served: Served, body: dict[str, Any]) -> Any:
    """Return the message of a request, as its clients send it."""
    headers = {"x-api-key": served.key, **VERSION}
    answer = requests.post(f"{served.url}/v1/messages", json={"max_tokens": 100, **body}, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return events(answer.content.decode()) if body.get("stream") else answer.json()


def events(text: str) -> list[Any]:
    """Return the events of a stream but for its pings."""
    return [event for event in sse(text) if event != {"type": "ping"}]


def anthropic_text(served: Served, model: str) -> str:
    made = create(served, {"model": model, "messages": [{"role": "user", "content": "hi"}]})
    assert made["usage"]["output_tokens"] > 0
    assert (made["type"], made["role"], made["stop_reason"]) == ("message", "assistant", "end_turn")
    return text_of(made)


def anthropic_stream(served: Served, model: str) -> str:
    turns = [{"role": "user", "content": "hi"}]
    told = create(served, {"model": model, "messages": turns, "stream": True})
    assert [told[0]["type"], told[-2]["type"], told[-1]["type"]] == ["message_start", "message_delta", "message_stop"]
    deltas = [event["delta"] for event in told if event["type"] == "content_block_delta"]
    return "".join(delta.get("text", "") for delta in deltas)


def anthropic_vision(served: Served, model: str) -> str:
    content = [{"type": "image", "source": _SEEN}, {"type": "text", "text": "what?"}]
    return text_of(create(served, {"model": model, "messages": [{"role": "user", "content": content}]}))


def anthropic_tools(served: Served, model: str) -> tuple[Any, str]:
    turns: list[Any] = [{"role": "user", "content": "날씨?"}]
    asking = {"model": model, "messages": turns, "tools": [TOOL]}
    made = create(served, asking)
    assert made["stop_reason"] == "tool_use"
    (call,) = [block for block in made["content"] if block["type"] == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": json.dumps(RESULT, ensure_ascii=False)}
    turns += [{"role": "assistant", "content": made["content"]}, {"role": "user", "content": [result]}]
    return call["input"], text_of(create(served, asking))


def text_of(message: Any) -> str:
    """Return a message's text."""
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")


_IMAGE: Final = [
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}},
    {"type": "text", "text": "x"},
]

RIG: Final = AnswerRig(
    name="anthropic",
    path="/v1/messages",
    code=lambda body: body["error"]["type"],
    message=lambda body: body["error"]["message"],
    key=lambda key: {"x-api-key": key, **VERSION},
    text=_text,
    texts=(anthropic_text, anthropic_stream),
    visions=(anthropic_vision,),
    tools=anthropic_tools,
    streams={"text": StreamForm(ask=lambda model: _text(model, "x", stream=True), sign=PING, read=events)},
    large={
        "messages": LargeBody(
            read=message_request.read, data={"model": "m", "messages": [{"role": "user", "content": LONG}]}, more={}
        ),
        "an image": LargeBody(
            read=message_request.read, data={"model": "m", "messages": [{"role": "user", "content": _IMAGE}]}, more={}
        ),
        "many turns": LargeBody(read=message_request.read, data={"model": "m", "messages": TURNS}, more={}),
        "count": LargeBody(
            read=message_request.counted, data={"model": "m", "messages": [{"role": "user", "content": LONG}]}, more={}
        ),
    },
    bodies=(
        Body(
            kind=MessageBody,
            request=GenerateTextRequest.DESCRIPTOR,
            unset=frozenset(
                {
                    "candidates",
                    "logit_bias",
                    "logprobs",
                    "top_logprobs",
                    "reasoning.include",
                    "messages[0].name",
                    "tools[0].custom",
                    "response_format.name",
                    "response_format.strict",
                }
            ),
        ),
    ),
)
