"""Large bodies are read in the helper process, to the same requests and refusals as here."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from google.api import httpbody_pb2

from moa.text.v1 import text_pb2, text_service_pb2
from services.common.errors import InvalidField, MoaError
from services.common.helper_process import FEW_VALUES, HelperProcess
from services.common.large import LARGE_BYTES
from services.router.dialects.openai import chat_request, image_request
from services.router.dialects.reading import MANY, Body, Reading, is_large
from services.router.domain.prompt import MOST_PARTS, Prompt
from tests.dialects import ANSWERING
from tests.dialects.rig import LONG
from tests.emulators.pictures import png

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES = {f"{name}, {kind}": body for name, rig in ANSWERING.items() for kind, body in rig.large.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def helper() -> AsyncIterator[HelperProcess]:
    made = HelperProcess()
    yield made
    await made.aclose()


def body(data: Any, content_type: str = "application/json") -> Body:
    encoded = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()
    return Body(httpbody_pb2.HttpBody(content_type=content_type, data=encoded))


@pytest.mark.parametrize("name", CASES)
async def test_a_large_body_is_the_same_request_from_the_process_beside(helper: HelperProcess, name: str) -> None:
    """Every dialect's: what is read, what was ignored, and what is told of its prompt."""
    large = CASES[name]
    data = large.data
    assert is_large(body(data).take())
    there = await Reading(helper)(large.read, body(data), **large.more)
    assert helper.pid is not None
    assert there == large.read(body(data).take(), **large.more)


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


async def test_where_large_requests_are_apart_only_many_values_are_read_beside() -> None:
    """Pictures and forms are read in the router's process, in fewer copies; what takes long is not."""
    helper = HelperProcess(large_only=True)
    reading, large = Reading(helper), "x" * LARGE_BYTES
    chat = {"model": "m", "messages": [{"role": "user", "content": large}]}
    read, _ = await reading(chat_request.read, body(chat))
    assert read.request.messages[0].parts[0].text == large
    with pytest.raises(InvalidField, match="temperature"):
        await reading(chat_request.read, body({**chat, "temperature": 7}))
    form = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na\r\n--b\r\n'
    form += b'Content-Disposition: form-data; name="image"; filename="a"\r\n\r\n%b\r\n--b--\r\n'
    picture = png(1, 1) + b"," * LARGE_BYTES
    kind = "multipart/form-data; boundary=b"
    asked, _ = await reading(image_request.request_from, body(form % picture, kind), kind, "edit")
    assert [image.data for image in asked.images] == [picture]
    assert helper.pid is None
    many = [{"role": "user", "content": "x" * 20}] * FEW_VALUES
    read, _ = await reading(chat_request.read, body({"model": "m", "messages": many}))
    assert len(read.request.messages) == FEW_VALUES
    assert helper.pid is not None
    await helper.aclose()


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
