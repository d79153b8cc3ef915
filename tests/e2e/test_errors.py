"""Bad input and failures through the real edge: the right status, in the caller's own envelope."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import pytest
import requests

from tests.e2e.conftest import Gateway
from tests.e2e.test_native import CHAT, DRAW, png


def bomb() -> bytes:
    """A PNG header that claims 30000x30000 pixels, with a tiny body."""
    head = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def edit(data: bytes) -> dict[str, Any]:
    return {**DRAW, "image_data": base64.b64encode(data).decode()}


HUGE = {**CHAT, "messages": [{"role": "user", "content": "hello there " * 1_500_000}]}
LONG = {**CHAT, "messages": [{"role": "user", "content": "a b " * 3000}]}

NATIVE: dict[str, tuple[str, Any, int, str]] = {
    "empty body": ("/generate/text", b"", 400, "malformed"),
    "no JSON": ("/generate/text", b"{nope", 400, "malformed"),
    "missing": ("/generate/text", {"messages": []}, 422, "invalid_field"),
    "wrong type": ("/generate/text", {**CHAT, "messages": "hi"}, 422, "invalid_field"),
    "NaN": ("/generate/text", json.dumps({**CHAT, "temperature": float("nan")}).encode(), 422, "invalid_field"),
    "negative": ("/generate/text", {**CHAT, "max_tokens": -5}, 422, "invalid_field"),
    "unknown model": ("/generate/text", {**CHAT, "model_id": "gpt-99"}, 404, "model_not_found"),
    "unknown provider": ("/generate/text", {**CHAT, "provider": "nobody"}, 404, "not_found"),
    "unconfigured": (
        "/generate/text",
        {**CHAT, "model_id": "gpt-4o-mini", "provider": "openai-text"},
        404,
        "provider_not_configured",
    ),
    "image model for text": (
        "/generate/text",
        {**CHAT, "model_id": "moa-tiny-image", "provider": ""},
        422,
        "unsupported",
    ),
    "no vision": ("/generate/text", {**CHAT, "image_data": base64.b64encode(png()).decode()}, 422, "unsupported"),
    "context": (
        "/generate/text",
        LONG,
        400,
        "context_too_long",
    ),
    "18 MB of prompt": ("/generate/text", HUGE, 400, "context_too_long"),
    "empty prompt": ("/create/image", {**DRAW, "prompt": "  "}, 422, "invalid_field"),
    "odd size": ("/create/image", {**DRAW, "width": 2000, "height": 64}, 422, "invalid_field"),
    "no steps": ("/create/image", {**DRAW, "num_inference_steps": 0}, 422, "invalid_field"),
    "not an image": ("/generate/image", edit(b"GIF? no."), 415, "unsupported_media"),
    "truncated png": ("/generate/image", edit(png()[:60]), 415, "unsupported_media"),
    "too wide": ("/generate/image", edit(png(5000, 10)), 422, "invalid_field"),
    "bomb": ("/generate/image", edit(bomb()), 422, "invalid_field"),
    "10 MB": ("/generate/image", edit(png() + b"\0" * (10 << 20)), 413, "too_large"),
    "no such path": ("/generate/nothing", {}, 404, "not_found"),
}


@pytest.mark.parametrize(("path", "body", "status", "code"), NATIVE.values(), ids=NATIVE.keys())
def test_native_errors(gateway: Gateway, path: str, body: Any, status: int, code: str) -> None:
    """Every kind of bad input has its documented status and a constant code, in the native envelope."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = requests.post(gateway.url + path, data=data, headers={"X-API-Key": gateway.key}, timeout=60)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"detail", "code"}
    assert answer.json()["code"] == code
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]


def test_a_body_over_the_limit_is_413_in_the_dialect(gateway: Gateway) -> None:
    """More than 20 MiB of JSON is refused in the native and in the OpenAI envelope."""
    big = b'{"model":"' + b"x" * (21 << 20) + b'"}'
    native = requests.post(gateway.url + "/generate/text", data=big, headers={"X-API-Key": gateway.key}, timeout=60)
    assert (native.status_code, native.json()["code"]) == (413, "too_large")
    chat = requests.post(gateway.url + "/v1/chat/completions", data=big, headers={"X-API-Key": gateway.key}, timeout=60)
    assert (chat.status_code, chat.json()["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize("key", ["", "moa-wrong", "x" * 5000, "한글"], ids=["none", "wrong", "long", "korean"])
def test_a_bad_key_is_401_and_tells_nothing_of_the_catalogue(gateway: Gateway, key: str) -> None:
    """Without a valid key a wrong model name is not told apart from a right one."""
    for model in ("moa-tiny-chat", "no-such-model"):
        headers = {"X-API-Key": key.encode()} if key else {}
        answer = requests.post(
            gateway.url + "/generate/text", json={**CHAT, "model_id": model}, headers=headers, timeout=60
        )
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


def test_a_wrong_method_is_405_and_cors_needs_no_key(gateway: Gateway) -> None:
    """The edge's own answers wear the dialect's envelope; a preflight is answered without a key."""
    assert requests.get(gateway.url + "/generate/text", timeout=60).status_code == 405
    asked = {
        "Origin": "https://example.com",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key,content-type",
    }
    preflight = requests.options(gateway.url + "/generate/text", headers=asked, timeout=60)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"]


def test_internal_headers_from_outside_are_stripped(gateway: Gateway) -> None:
    """A caller cannot speak as a service."""
    answer = requests.get(gateway.url + "/providers", headers={"x-moa-service": "x", "x-moa-account": "y"}, timeout=60)
    assert answer.status_code == 401
