"""Large bodies are read in the helper process, to the same requests and refusals as here."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from google.api import httpbody_pb2

from moa.text.v1 import text_pb2, text_service_pb2
from services.common.errors import InvalidField, MoaError
from services.common.helper_process import LARGE_BYTES, HelperProcess
from services.providers.http.multipart import File, form
from services.router.dialects.google import requests
from services.router.dialects.native import image, text
from services.router.dialects.openai import chat_request, image_request
from services.router.dialects.reading import MANY, Body, Reading, is_large
from services.router.domain.prompt import MOST_PARTS, Prompt
from tests.emulators.pictures import png

pytestmark = pytest.mark.asyncio(loop_scope="module")

PICTURE = png(64, 64) + bytes(LARGE_BYTES)
BASE64 = base64.b64encode(PICTURE).decode()
LONG = 'a "long" 이야기\n' * (LARGE_BYTES // 16)
TURNS = [{"role": "user", "content": "hello"}] * (MANY + 1)
FORM, FORM_TYPE = form([("prompt", "p"), ("image", File(PICTURE, "image/png"))])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def helper() -> AsyncIterator[HelperProcess]:
    made = HelperProcess()
    yield made
    await made.aclose()


def body(data: Any, content_type: str = "application/json") -> Body:
    encoded = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()
    return Body(httpbody_pb2.HttpBody(content_type=content_type, data=encoded))


CASES: dict[str, tuple[Callable[..., Any], Any, dict[str, Any]]] = {
    "openai": (chat_request.read, {"model": "m", "messages": [{"role": "user", "content": LONG}]}, {}),
    "openai, many turns": (chat_request.read, {"model": "m", "messages": TURNS}, {}),
    "openai, edit": (image_request.request_from, FORM, {"content_type": FORM_TYPE, "kind": "edit"}),
    "native": (text.read, {"model_id": "m", "messages": [{"role": "user", "content": LONG}]}, {}),
    "native, edit": (image.request_from, {"model_id": "m", "prompt": "p", "image_data": BASE64}, {"edit": True}),
    "google": (
        requests.asked,
        {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": BASE64}}, {"text": "x"}]}]},
        {"model": "m", "makes": "text", "stream": False},
    ),
    "google, images": (
        requests.asked,
        {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": BASE64}}, {"text": "x"}]}]},
        {"model": "m", "makes": "image", "stream": True},
    ),
    "google, count": (requests.counted, {"contents": [{"parts": [{"text": LONG}]}]}, {"model": "m"}),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_large_body_is_the_same_request_from_the_process_beside(helper: HelperProcess, name: str) -> None:
    """Every dialect's: what is read, what was ignored, and what is told of its prompt."""
    work, data, more = CASES[name]
    assert is_large(body(data).take())
    there = await Reading(helper)(work, body(data), **more)
    assert helper.pid is not None
    assert there == work(body(data).take(), **more)


async def test_its_refusal_names_the_field(helper: HelperProcess) -> None:
    """As a small body's does."""
    wrong = {"model": "m", "messages": [{"role": "user", "content": LONG}], "temperature": 7}
    with pytest.raises(InvalidField) as told:
        await Reading(helper)(chat_request.read, body(wrong))
    assert told.value.param == "temperature"


async def test_a_small_body_is_read_here() -> None:
    """It would take longer to hand it over; and a router that reads none large has no helper process."""
    helper = HelperProcess()
    small = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    read, prompt = await Reading(helper)(chat_request.read, body(small))
    assert helper.pid is None
    assert prompt == Prompt.of(read.request) == await Reading(helper).prompt_of(read.request)
    assert helper.pid is None


@pytest.mark.parametrize("turns", [MANY + 1, 1])
async def test_a_large_typed_prompt_is_looked_through_beside(helper: HelperProcess, turns: int) -> None:
    """By its bytes or by its turns."""
    request = text_service_pb2.GenerateTextRequest(model="m")
    for _ in range(turns):
        request.messages.add(role=text_pb2.ROLE_USER).parts.add(text="x" * (LARGE_BYTES // turns + 1))
    found = await Reading(helper).prompt_of(request)
    assert found == Prompt.of(request, whole=True) != Prompt.of(request)


async def test_a_request_with_too_many_parts_is_refused_by_name() -> None:
    """Each takes time in every process that the request passes."""
    request = text_service_pb2.GenerateTextRequest(model="m")
    for _ in range(MOST_PARTS // 2):
        request.messages.add(role=text_pb2.ROLE_USER).parts.add(text="x")
    Prompt.of(request)
    request.messages.add(role=text_pb2.ROLE_USER)
    with pytest.raises(MoaError, match=f"at most {MOST_PARTS} messages and parts"):
        Prompt.of(request)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (b'{"a": 1}', {"model": "some", "a": 1}),
        (b" {} ", {"model": "some"}),
        (b'{"model": "own"}', {"model": "own"}),
        (b"[1]", [1]),
    ],
)
async def test_a_model_in_the_path_stands_where_the_body_names_none(given: bytes, read: object) -> None:
    """As in Azure's form of OpenAI's paths."""
    body = Body(httpbody_pb2.HttpBody(data=given), model="some")
    assert json.loads(bytes(body.take())) == read
