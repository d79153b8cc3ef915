"""The native API through the real edge: what the unit tests of its bodies cannot show."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import requests

from moa.text.v1 import text_pb2
from tests.router.rig import KEY, Played, called, ended, picture, text

HEADERS = {"X-API-Key": KEY}
IMAGE = base64.b64encode(picture()).decode()


def post(url: str, path: str, body: dict[str, Any]) -> requests.Response:
    return requests.post(url + path, json=body, headers=HEADERS, timeout=60)


def frames(got: requests.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in got.content.decode().split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_a_model_that_makes_text_looks_at_the_image(url: str, played: Played) -> None:
    """`/generate/image` with such a model answers no images and what it said, as the document has it."""
    body = {"prompt": "무엇이 보이나요?", "image_data": IMAGE, "model_id": "smart", "provider": "p-text"}
    got = post(url, "/generate/image", body).json()
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12}
    assert got == {
        "status": "success",
        "images": [],
        "prompt": "무엇이 보이나요?",
        "response": "Hello 안녕",
        "finish_reason": "stop",
        "model_id": "smart",
        "provider": "p-text",
        "usageMetadata": usage,
    }
    parts = played.texts[0].messages[0].parts
    assert [part.WhichOneof("part") for part in parts] == ["image", "text"]
    streamed = frames(post(url, "/generate/image", {**body, "stream": True}))
    assert "".join(frame.get("response", "") for frame in streamed) == "Hello 안녕"


def test_an_image_model_edits(url: str, played: Played) -> None:
    """The same path with an image model gives an image."""
    body = {"prompt": "x", "image_data": f"data:image/jpeg;base64,{IMAGE}", "model_id": "gemini-2.5-flash-image"}
    got = post(url, "/generate/image", body).json()
    assert (got["status"], len(got["images"])) == ("success", 1)


@pytest.mark.parametrize("stream", [False, True])
def test_tools(url: str, played: Played, stream: bool) -> None:
    """A call comes back whole, streamed or not, and its result is taken in the next turn."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    played.script = [
        text(called(0, "f", '{"a"', "c1")),
        text(called(0, arguments=":1}")),
        ended(text_pb2.FINISH_REASON_TOOL_CALLS),
    ]
    first = {"role": "user", "content": "x"}
    body = {"model_id": "smart", "messages": [first], "tools": [tool], "tool_choice": "required", "stream": stream}
    got = post(url, "/generate/text", body)
    if stream:
        calls, last = frames(got)
        assert last["finish_reason"] == "tool_calls"
    else:
        calls = got.json()
    assert calls["tool_calls"] == [call]
    assert played.texts[0].tool_choice.mode == text_pb2.ToolChoice.MODE_REQUIRED
    turns = [first, {"role": "assistant", "tool_calls": [call]}]
    turns.append({"role": "tool", "tool_call_id": "c1", "content": "42"})
    post(url, "/generate/text", {**body, "messages": turns, "stream": False})
    said, answered = played.texts[1].messages[1:]
    assert said.parts[0].tool_call.arguments_json == '{"a":1}'
    assert (answered.parts[0].tool_result.tool_call_id, answered.parts[0].tool_result.content) == ("c1", "42")


def test_a_linked_image_in_image_data(url: str, played: Played, site: str) -> None:
    """Where base64 is taken, a link is too."""
    body = {"model_id": "smart", "messages": [{"role": "user", "content": "x"}], "image_data": f"{site}/picture.png"}
    assert post(url, "/generate/text", body).ok
    assert played.texts[0].messages[0].parts[0].image.data == picture(30, 20)
