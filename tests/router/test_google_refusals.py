"""What Google's dialect refuses, and how it says so."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from google.genai import errors

from moa.common.v1 import error_pb2
from moa.text.v1 import text_pb2
from services.common.errors import QuotaExhausted, UpstreamFailed
from tests.router.google_clients import client_of
from tests.router.rig import KEY, OTHER_KEY, Played, said, text

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:google")


def test_a_stream_that_breaks_raises(url: str, played: Played) -> None:
    """A failure after the first piece is the client's error with Google's status; the array form stays valid JSON."""
    failed = text_pb2.TextEvent(
        error=error_pb2.ErrorDetail(reason=error_pb2.REASON_UPSTREAM_FAILED, message="the model failed")
    )
    played.script = [text(said("a")), text(failed)]
    with client_of(url) as client, pytest.raises(errors.APIError) as caught:
        list(client.models.generate_content_stream(model="smart", contents="x"))
    assert (caught.value.code, caught.value.status) == (502, "UNAVAILABLE")
    played.script = [text(said("a")), UpstreamFailed("the model failed")]
    body = {"contents": [{"parts": [{"text": "x"}]}]}
    headers = {"x-goog-api-key": KEY}
    got = requests.post(f"{url}/v1/models/smart:streamGenerateContent", json=body, headers=headers, timeout=60)
    assert got.json()[-1]["error"]["message"] == "the model failed"


def test_what_comes_together_with_a_failure_is_shown(url: str, played: Played) -> None:
    """A word in the same message as the error that ends the answer."""
    failed = text_pb2.TextEvent(
        error=error_pb2.ErrorDetail(reason=error_pb2.REASON_UPSTREAM_FAILED, message="the model failed")
    )
    played.script = [text(said("a")), text(said("b"), failed)]
    body = {"contents": [{"parts": [{"text": "x"}]}]}
    headers = {"x-goog-api-key": KEY}
    got = requests.post(f"{url}/v1/models/smart:streamGenerateContent", json=body, headers=headers, timeout=60).json()
    assert [piece["candidates"][0]["content"]["parts"] for piece in got[:-1]] == [[{"text": "a"}], [{"text": "b"}]]
    assert got[-1]["error"]["message"] == "the model failed"


def test_errors_are_the_clients_own(url: str, played: Played) -> None:
    """Each refusal has its code, status and reason in Google's envelope."""

    def attempt(key: str = KEY, model: str = "smart") -> errors.ClientError:
        with client_of(url, key) as client, pytest.raises(errors.ClientError) as caught:
            client.models.generate_content(model=model, contents="x")
        return caught.value

    unknown = attempt("wrong")
    assert (unknown.code, unknown.status) == (401, "UNAUTHENTICATED")
    assert unknown.details["error"]["details"][0]["reason"] == "API_KEY_INVALID"
    assert (attempt(OTHER_KEY).code, attempt(model="none").status) == (403, "NOT_FOUND")
    played.refusal = QuotaExhausted("the day's tokens are spent", retry_after_s=90)
    assert (attempt().code, attempt().status) == (429, "RESOURCE_EXHAUSTED")
    stray = requests.get(f"{url}/v1beta/nothing", timeout=60)
    assert stray.json()["error"]["status"] == "NOT_FOUND"


HI: dict[str, Any] = {"contents": [{"parts": [{"text": "x"}]}]}
BAD: dict[str, tuple[Any, str]] = {
    "no contents": ({}, "contents"),
    "empty contents": ({"contents": []}, "contents"),
    "empty parts": ({"contents": [{"parts": []}]}, "contents[0].parts"),
    "an empty part": ({"contents": [{"parts": [{}]}]}, "contents[0].parts[0]"),
    "two kinds": (
        {"contents": [{"parts": [{"text": "a", "functionCall": {"name": "f"}}]}]},
        "contents[0].parts[0]",
    ),
    "hot": ({**HI, "generationConfig": {"temperature": 3}}, "generationConfig.temperature"),
    "audio": ({**HI, "generationConfig": {"responseModalities": ["AUDIO"]}}, "generationConfig.responseModalities"),
    "cache": ({**HI, "cachedContent": "cachedContents/1"}, "cachedContent"),
    "result of no call": (
        {"contents": [{"parts": [{"functionResponse": {"name": "f", "response": {}}}]}]},
        "contents[0].parts[0].functionResponse",
    ),
    "no image": (
        {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "aGVsbG8="}}]}]},
        "contents[0].parts[0].inlineData.data",
    ),
    "a bucket": (
        {"contents": [{"parts": [{"fileData": {"fileUri": "gs://a/b"}}]}]},
        "contents[0].parts[0].fileData.fileUri",
    ),
}


@pytest.mark.parametrize(("body", "field"), BAD.values(), ids=BAD.keys())
def test_bad_bodies_name_their_field(url: str, played: Played, body: Any, field: str) -> None:
    """What is wrong is INVALID_ARGUMENT with the field's path among the details; no model is asked."""
    headers = {"x-goog-api-key": KEY}
    got = requests.post(f"{url}/v1beta/models/smart:generateContent", json=body, headers=headers, timeout=60)
    error = got.json()["error"]
    assert (got.status_code, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert error["details"][0]["metadata"] == {"field": field}
    assert played.texts == []


def test_models_for_the_gateways_own_use_are_not_there(url: str, played: Played) -> None:
    """A model that makes neither text nor images is nowhere to be found, in any dialect."""
    headers = {"x-api-key": KEY}
    body = {"model_id": "eye", "messages": [{"role": "user", "content": "x"}]}
    for path in ("/v1/models", "/v1beta/models", "/providers"):
        got = requests.get(url + path, headers=headers, timeout=60)
        assert got.status_code == 200
        assert "eye" not in got.text
        assert "p-vision" not in got.text
    for path in ("/v1/models/eye", "/v1beta/models/eye"):
        assert requests.get(url + path, headers=headers, timeout=60).status_code == 404
    contents = {"contents": [{"parts": [{"text": "x"}]}]}
    for path, asked in (("/generate/text", body), ("/v1beta/models/eye:generateContent", contents)):
        assert requests.post(url + path, json=asked, headers=headers, timeout=60).status_code == 404
