"""The documented native API through the real edge, answered by the models that ship."""

from __future__ import annotations

import base64
import json
from io import BytesIO

import pytest
import requests
from PIL import Image

from tests.e2e.conftest import Gateway

CHAT = {"messages": [{"role": "user", "content": "Hello"}], "model_id": "moa-tiny-chat", "provider": "local-text"}
DRAW = {"prompt": "a red circle on a white background", "model_id": "moa-tiny-image", "provider": "local-image"}


def events(answer: requests.Response) -> list[str]:
    """Read an event stream to its end; give the data of each event."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [line[6:].decode() for line in answer.iter_lines() if line.startswith(b"data: ")]


def png(width: int = 64, height: int = 64) -> bytes:
    out = BytesIO()
    Image.new("RGB", (width, height), (240, 240, 240)).save(out, "PNG")
    return out.getvalue()


def pixel(picture: Image.Image, x: int, y: int) -> tuple[int, ...]:
    found = picture.getpixel((x, y))
    assert isinstance(found, tuple)
    return found


def test_a_chat_reply_has_the_documented_form(gateway: Gateway) -> None:
    """The answer, its names and its usage stand where the document puts them; headers tell the rest."""
    answer = gateway.post("/generate/text", CHAT)
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"response", "finish_reason", "model_id", "provider", "usageMetadata"}
    assert body["response"] == "Hello! How can I help you today?"
    usage = body["usageMetadata"]
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["candidatesTokenCount"] > 0
    assert answer.headers["x-moa-model"] == "moa-tiny-chat"
    assert answer.headers["x-moa-provider"] == "local-text"
    assert answer.headers["x-moa-cost"] == f"tokens={usage['totalTokenCount']}"
    assert answer.headers["x-request-id"]
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) > 0


def test_a_korean_question_streams_token_by_token(gateway: Gateway) -> None:
    """Pieces join to what the unary answer says; the last event carries finish reason and usage, then `[DONE]`."""
    ask = {**CHAT, "messages": [{"role": "user", "content": "한국의 수도는 어디야?"}]}
    whole = gateway.post("/generate/text", ask).json()["response"]
    seen = events(gateway.post("/generate/text", {**ask, "stream": True}, stream=True))
    assert seen[-1] == "[DONE]"
    parsed = [json.loads(e) for e in seen[:-1]]
    pieces = [e["response"] for e in parsed if "response" in e]
    assert len(pieces) > 2
    assert "".join(pieces) == whole
    assert "서울" in whole
    assert parsed[-1]["finish_reason"] == "stop"
    assert parsed[-1]["usageMetadata"]["candidatesTokenCount"] >= len(pieces) - 1


def test_a_local_model_calls_a_tool(gateway: Gateway) -> None:
    """A required call stands in `tool_calls`, whole or in a stream's pieces, with arguments of the tool's schema."""
    schema = {"type": "object", "properties": {"days": {"enum": [1, 2]}}, "required": ["days"]}
    function = {"name": "weather", "parameters": {**schema, "additionalProperties": False}}
    tools = [{"type": "function", "function": function}]
    ask = {**CHAT, "tools": tools, "tool_choice": "required", "seed": 3}
    (call,) = gateway.post("/generate/text", ask).json()["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"])["days"] in (1, 2)
    seen = events(gateway.post("/generate/text", {**ask, "stream": True}, stream=True))
    assert seen.pop() == "[DONE]"
    parsed = [json.loads(event) for event in seen]
    assert [event["finish_reason"] for event in parsed if "finish_reason" in event] == ["tool_calls"]
    (streamed,) = (call for event in parsed for call in event.get("tool_calls", ()))
    assert streamed["function"] == call["function"]


def test_a_picture_follows_its_prompt(gateway: Gateway) -> None:
    """A red circle on white is mostly red in the middle and white at the corners."""
    body = gateway.post("/create/image", {**DRAW, "seed": 7}).json()
    assert body["status"] == "success"
    assert body["prompt"] == DRAW["prompt"]
    picture = Image.open(BytesIO(base64.b64decode(body["images"][0]))).convert("RGB")
    assert picture.size == (128, 128)
    red, green, blue = pixel(picture, 64, 64)
    corner = pixel(picture, 3, 3)
    assert red > 150
    assert max(green, blue) < 120
    assert min(corner) > 190


def test_progress_streams_and_ends_with_the_same_object(gateway: Gateway) -> None:
    """Steps count up to the number asked for; the last object is what the unary call gives for the seed."""
    ask = {**DRAW, "num_inference_steps": 6, "seed": 3}
    whole = gateway.post("/create/image", ask).json()
    seen = events(gateway.post("/create/image", {**ask, "stream": True, "preview_every": 3}, stream=True))
    assert seen[-1] == "[DONE]"
    parsed = [json.loads(e) for e in seen[:-1]]
    progress = [e for e in parsed if e["status"] == "progress"]
    assert [e["step"] for e in progress] == sorted(e["step"] for e in progress)
    assert progress[-1]["steps"] == 6
    assert any("preview" in e for e in progress)
    assert parsed[-1] == whole


def test_an_edit_takes_base64_and_data_uris(gateway: Gateway) -> None:
    """`image_data` may be raw base64 or a data: URI whose declared type is wrong."""
    raw = base64.b64encode(png()).decode()
    for given in (raw, "data:image/jpeg;base64," + raw):
        ask = {**DRAW, "image_data": given, "num_inference_steps": 4}
        answer = gateway.post("/generate/image", ask)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["images"]) == 1


def test_the_lists_are_what_the_key_may_use(gateway: Gateway) -> None:
    """Providers without credentials are not listed; models are listed by provider."""
    assert gateway.get("/providers").json() == {"providers": ["local-text", "local-embedding", "local-image"]}
    listed = gateway.get("/models/local-image").json()
    assert listed["models"] == ["moa-tiny-image"]
    assert set(listed["states"]) == {"moa-tiny-image"}
    assert gateway.get("/models/nobody").status_code == 404


@pytest.mark.parametrize("header", ["X-API-Key", "Authorization", "x-goog-api-key", "?key="])
def test_a_key_is_taken_in_every_documented_place(gateway: Gateway, header: str) -> None:
    """Each form of the key is accepted."""
    value = f"Bearer {gateway.key}" if header == "Authorization" else gateway.key
    url = gateway.url + "/providers" + (f"?key={gateway.key}" if header == "?key=" else "")
    headers = {} if header == "?key=" else {header: value}
    assert requests.get(url, headers=headers, timeout=60).status_code == 200


def test_two_different_keys_are_refused(gateway: Gateway) -> None:
    """Nobody can tell which of two keys was meant to be charged."""
    headers = {"X-API-Key": gateway.key, "Authorization": "Bearer moa-other"}
    assert requests.get(gateway.url + "/providers", headers=headers, timeout=60).status_code == 401
