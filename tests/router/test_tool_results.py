"""Images in a tool's result reach every vendor, in the turn behind the results."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import requests

from moa.text.v1.text_pb2 import Role
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model, Provider
from services.common.errors import InvalidField
from services.providers.text.ignored import Ignored
from services.router.dialects.google import requests as google
from services.router.dialects.openai import chat_request
from services.text.targets import ADAPTERS
from tests.emulators.pictures import png
from tests.router.rig import KEY, Played

Json = dict[str, Any]

PICTURE = base64.b64encode(png()).decode()
URI = f"data:image/png;base64,{PICTURE}"


CALLS = [{"id": name, "type": "function", "function": {"name": "look", "arguments": "{}"}} for name in ("a", "b")]
SHOWN = [{"type": "text", "text": "seen"}, {"type": "image_url", "image_url": {"url": URI}}]
BODY: Json = {
    "model": "m",
    "messages": [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": None, "tool_calls": CALLS},
        {"role": "tool", "tool_call_id": "a", "content": SHOWN},
        {"role": "tool", "tool_call_id": "b", "content": "nothing"},
        {"role": "user", "content": "go on"},
    ],
}


def _openai() -> GenerateTextRequest:
    return chat_request.request_from(json.dumps(BODY).encode()).request


def _google() -> GenerateTextRequest:
    calls: list[Json] = [{"functionCall": {"name": "look", "id": name, "args": {}}} for name in ("a", "b")]
    shown = {"inlineData": {"mimeType": "image/png", "data": PICTURE}}
    results = [
        {"functionResponse": {"name": "look", "id": "a", "response": {"output": "seen"}, "parts": [shown]}},
        {"functionResponse": {"name": "look", "id": "b", "response": {"output": "nothing"}}},
    ]
    contents = [
        {"role": "user", "parts": [{"text": "look"}]},
        {"role": "model", "parts": calls},
        {"role": "user", "parts": results},
        {"role": "user", "parts": [{"text": "go on"}]},
    ]
    return google_request({"contents": contents})


def google_request(body: Json) -> GenerateTextRequest:
    """Return what Google's body asks of a text model."""
    asked = google.asked(json.dumps(body).encode(), "m", "text", stream=False, strict=False)
    assert asked.text is not None
    return asked.text


@pytest.mark.parametrize("request_of", [_openai, _google])
def test_an_image_in_a_result_is_shown_behind_the_results(request_of: Any) -> None:
    """With the name of the call that it belongs to, and before what the caller says next."""
    turns = request_of().messages
    roles = [turn.role for turn in turns]
    assert roles[:2] == [Role.ROLE_USER, Role.ROLE_ASSISTANT]
    results = [part.tool_result for turn in turns for part in turn.parts if part.HasField("tool_result")]
    assert [result.tool_call_id for result in results] == ["a", "b"]
    shown, last = turns[-2], turns[-1]
    assert (shown.role, shown.parts[0].text) == (Role.ROLE_USER, "Of the result of a:")
    assert shown.parts[1].image.data == png()
    assert last.parts[0].text == "go on"


@pytest.mark.parametrize("request_of", [_openai, _google])
def test_every_vendor_takes_it(request_of: Any) -> None:
    """In its own form: results directly behind the calls, then the image."""
    provider = Provider(id="p", adapter="x", makes="text", base_url="http://x")
    for name, upstream in (("openai", "m"), ("gemini", "m"), ("bedrock", "anthropic.m")):
        model = Model(id="m", provider="p", upstream=upstream, capabilities=frozenset({"tools", "vision"}))
        sent = json.loads(bytes(ADAPTERS[name].request_from(request_of(), model, provider, Ignored()).body))
        told = json.dumps(sent)
        assert told.index('"b"') < told.index("Of the result of a:") < told.index(PICTURE) < told.index("go on")


@pytest.mark.parametrize(
    ("place", "told"), [(0, 0), (3, 3), (4, 3), (5, 4)], ids=["before", "the last result", "what is shown", "behind"]
)
def test_errors_count_the_callers_messages(url: str, played: Played, place: int, told: int) -> None:
    """Not the turn that shows what results hold: what is wrong in that is wrong in a result."""
    played.refusal = InvalidField(f"messages[{place}].parts[0]: no", param=f"messages[{place}].parts[0]")
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = requests.post(f"{url}/v1/chat/completions", json=BODY | {"model": "smart"}, headers=headers, timeout=20)
    error = answer.json()["error"]
    assert error["param"].startswith(f"messages[{told}].")
    assert error["message"].startswith(f"messages[{told}].")


def test_an_empty_part_of_a_result_is_named() -> None:
    """By its place."""
    result = {"functionResponse": {"name": "look", "id": "a", "response": {}, "parts": [{}]}}
    calls = [{"functionCall": {"name": "look", "id": "a"}}]
    with pytest.raises(InvalidField) as refused:
        google_request({"contents": [{"role": "model", "parts": calls}, {"parts": [result]}]})
    assert refused.value.param == "contents[1].parts[0].functionResponse.parts[0]"
