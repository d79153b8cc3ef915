"""The Google dialect, by the official client through the real edge."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from google import genai
from google.genai import types
from PIL import Image

from moa.common.v1 import media_pb2, usage_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.router.dialects.google import reply
from tests.router.google_clients import SCHEMA, client_of
from tests.router.rig import KEY, Played, ended, picture, said, text

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:google")

IMAGE_MODEL = "google/gemini-2.5-flash-image"


@pytest.fixture(params=[None, "v1beta", "v1"])
def client(request: pytest.FixtureRequest, url: str) -> Iterator[genai.Client]:
    with client_of(url, version=request.param) as made:
        yield made


def test_the_documented_image_call(client: genai.Client, played: Played) -> None:
    """The image comes as inline data, and the usage has its integers."""
    response = client.models.generate_content(model=IMAGE_MODEL, contents="미래 도시의 사이버펑크 고양이")
    assert response.candidates
    blobs = [p.inline_data for c in response.candidates if c.content for p in c.content.parts or ()]
    assert [Image.open(BytesIO(blob.data or b"")).size for blob in blobs if blob] == [(16, 12)]
    usage = response.usage_metadata
    assert usage
    assert usage.prompt_token_count == 3
    assert usage.total_token_count is not None
    assert usage.total_token_count - (usage.prompt_token_count or 0) == 0
    assert [u and u.images for u in played.books.ended()] == [1]


def test_the_documented_edit_with_a_pil_image(client: genai.Client, played: Played) -> None:
    """A PIL image among the contents is the input of an edit."""
    source = Image.open(BytesIO(picture(20, 10)))
    contents: list[Any] = ["파란색 톤으로 변환해주세요", source]
    response = client.models.generate_content(model=IMAGE_MODEL, contents=contents)
    assert response.candidates
    asked = played.pictures[0]
    assert asked.operation == image_pb2.OPERATION_EDIT
    assert asked.prompt == "파란색 톤으로 변환해주세요"
    assert Image.open(BytesIO(asked.images[0].data)).size == (20, 10)


def test_an_image_chat_goes_on_from_its_last_picture(client: genai.Client, played: Played) -> None:
    """A turn without an image of its own changes the newest of the conversation."""
    chat = client.chats.create(model=IMAGE_MODEL)
    chat.send_message("a red cat")
    chat.send_message("now blue")
    first, second = played.pictures
    assert first.operation == image_pb2.OPERATION_GENERATE
    assert second.operation == image_pb2.OPERATION_EDIT
    assert second.prompt == "now blue"
    assert Image.open(BytesIO(second.images[0].data)).size == (16, 12)


def test_image_settings(client: genai.Client, played: Played) -> None:
    """Aspect ratio and modalities are understood; each candidate has its own image."""
    config = types.GenerateContentConfig(
        response_modalities=["TEXT", "IMAGE"],
        image_config=types.ImageConfig(aspect_ratio="16:9"),
        candidate_count=2,
        seed=4,
    )
    response = client.models.generate_content(model=IMAGE_MODEL, contents="x", config=config)
    assert (played.pictures[0].aspect_ratio, played.pictures[0].count, played.pictures[0].seed) == ("16:9", 2, 4)
    assert [c.finish_reason for c in response.candidates or ()] == [types.FinishReason.STOP] * 2


def test_text(client: genai.Client, played: Played) -> None:
    """Text, finish reason, who answered, and the usage: thoughts apart from the candidates, as Google counts."""
    response = client.models.generate_content(model="smart", contents="hi")
    assert response.text == "Hello 안녕"
    assert response.candidates
    assert response.candidates[0].finish_reason == types.FinishReason.STOP
    assert response.model_version == "smart"
    assert response.response_id
    usage = response.usage_metadata
    assert usage
    assert (usage.prompt_token_count, usage.candidates_token_count, usage.thoughts_token_count) == (7, 3, 2)
    assert usage.total_token_count == 12


def test_a_stream(client: genai.Client, played: Played) -> None:
    """Pieces come as they are made, the last with the usage."""
    pieces = list(client.models.generate_content_stream(model="models/smart", contents="hi"))
    assert [p.text for p in pieces if p.text] == ["Hel", "lo 안녕"]
    assert pieces[-1].usage_metadata
    assert pieces[-1].usage_metadata.total_token_count == 12
    assert len({p.response_id for p in pieces}) == 1


async def test_async_and_its_stream(url: str, played: Played) -> None:
    """The asynchronous client does the same."""
    async with client_of(url).aio as client:
        response = await client.models.generate_content(model="smart", contents="hi")
        assert response.text == "Hello 안녕"
        stream = await client.models.generate_content_stream(model="smart", contents="hi")
        assert "".join([piece.text or "" async for piece in stream]) == "Hello 안녕"
        chat = client.chats.create(model="smart")
        await chat.send_message("one")
        await chat.send_message("two")
    roles = [message.role for message in played.texts[-1].messages]
    assert roles == [text_pb2.ROLE_USER, text_pb2.ROLE_ASSISTANT, text_pb2.ROLE_USER]


def test_a_streamed_chat_remembers_its_answers(url: str, played: Played) -> None:
    """The client keeps a streamed answer only if each of its responses has a part, the closing one too."""
    with client_of(url) as client:
        chat = client.chats.create(model="smart")
        list(chat.send_message_stream("one"))
        list(chat.send_message_stream("two"))
    first, *pieces, second = played.texts[-1].messages
    assert [first.role, second.role] == [text_pb2.ROLE_USER] * 2
    assert {piece.role for piece in pieces} == {text_pb2.ROLE_ASSISTANT}
    assert "".join(part.text for piece in pieces for part in piece.parts) == "Hello 안녕"


async def test_the_end_of_a_stream_of_images_has_a_part() -> None:
    """As of a text: else a chat that is streamed forgets the picture."""
    image = image_pb2.ImageEvent()
    image.image.image.mime_type, image.image.image.data = "image/png", b"x"
    end = image_pb2.ImageEvent()
    end.finished.SetInParent()
    left = [image_service_pb2.GenerateImageResponse(events=[event]) for event in (image, end)]

    async def following() -> image_service_pb2.GenerateImageResponse:
        return left.pop(0)

    answer = SimpleNamespace(next=following, model=SimpleNamespace(id="m"), usage=usage_pb2.Usage())
    streamed = reply.ImageReply(answer, "r")  # type: ignore[arg-type]
    assert await streamed.advance()
    assert streamed.render(last=False)
    assert not await streamed.advance()
    closing = streamed.render(last=True)
    assert closing
    assert [each["content"]["parts"] for each in closing["candidates"]] == [[{"text": ""}]]


def test_a_thought_of_no_text_is_taken_back(url: str, played: Played) -> None:
    """Clients that drop a thought's signature send `{"thought": true}` alone."""
    left = types.Content(role="model", parts=[types.Part(thought=True), types.Part(text="Hello")])
    asked = [types.Content(role="user", parts=[types.Part(text=word)]) for word in ("one", "two")]
    with client_of(url) as client:
        client.models.generate_content(model="smart", contents=[asked[0], left, asked[1]])
    kinds = [part.WhichOneof("part") for part in played.texts[-1].messages[1].parts]
    assert kinds == ["reasoning", "text"]


def test_images_stream_too(client: genai.Client, played: Played) -> None:
    """A stream of an image model gives the image and an end."""
    pieces = list(client.models.generate_content_stream(model=IMAGE_MODEL, contents="x"))
    parts = [p for piece in pieces for c in piece.candidates or () if c.content for p in c.content.parts or ()]
    assert [bool(p.inline_data) for p in parts] == [True]
    assert [u and u.images for u in played.books.ended()] == [1]


def test_every_setting_arrives(client: genai.Client, played: Played) -> None:
    """System instruction, sampling, schema, thinking and logprobs arrive where the contract keeps them."""
    config = types.GenerateContentConfig(
        system_instruction="be brief",
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        candidate_count=2,
        max_output_tokens=50,
        stop_sequences=["x", "y"],
        seed=-3,
        presence_penalty=0.1,
        frequency_penalty=-0.2,
        response_logprobs=True,
        logprobs=3,
        response_mime_type="application/json",
        response_schema=types.Schema(
            type=types.Type.OBJECT,
            properties={"a": types.Schema(type=types.Type.INTEGER, nullable=True)},
            required=["a"],
            property_ordering=["a"],
        ),
        thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_budget=100),
        safety_settings=[
            types.SafetySetting(
                category=types.HarmCategory.HARM_CATEGORY_HARASSMENT,
                threshold=types.HarmBlockThreshold.BLOCK_NONE,
            )
        ],
    )
    played.script = [text(said("{}"), said("[]", 1)), ended(candidates=2)]
    response = client.models.generate_content(model="smart", contents="hi", config=config)
    assert len(response.candidates or ()) == 2
    assert response.sdk_http_response
    assert (response.sdk_http_response.headers or {})["x-moa-ignored"] == "safetySettings"
    asked = played.texts[0]
    assert asked.messages[0].role == text_pb2.ROLE_SYSTEM
    assert asked.messages[0].parts[0].text == "be brief"
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0.5, 0.9, 40, -3)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.1, -0.2)
    assert (sampling.logprobs, sampling.top_logprobs, asked.candidates) == (True, 3, 2)
    assert list(asked.stop) == ["x", "y"]
    assert asked.reasoning.include
    assert asked.reasoning.budget_tokens == 100
    assert asked.response_format.kind == text_pb2.ResponseFormat.KIND_JSON_SCHEMA
    assert json.loads(asked.response_format.schema_json) == SCHEMA


def test_vision(client: genai.Client, played: Played) -> None:
    """An image before a text model is part of the message, in order."""
    contents: list[Any] = [Image.open(BytesIO(picture())), "what is it?"]
    client.models.generate_content(model="smart", contents=contents)
    parts = played.texts[0].messages[0].parts
    assert [part.WhichOneof("part") for part in parts] == ["image", "text"]
    assert parts[0].image.mime_type == "image/png"


async def test_every_response_of_a_stream_has_a_candidate() -> None:
    """Clients read `candidates[0]` of each, also of that with the usage, however late the provider tells it."""
    left = [text(event) for event in (said("Hel"), said("lo"), *ended().events)]

    async def following() -> text_service_pb2.GenerateTextResponse:
        return left.pop(0)

    answer = SimpleNamespace(next=following, model=SimpleNamespace(id="m"), usage=usage_pb2.Usage())
    streamed, shown, more = reply.TextReply(answer, "r", thoughts=False), [], True  # type: ignore[arg-type]
    while more:
        more = await streamed.advance()
        response = streamed.render(last=not more)
        shown += [response] if response else []
    assert [len(each["candidates"]) for each in shown] == [1, 1, 1]
    assert [each["candidates"][0].get("finishReason") for each in shown] == [None, None, "STOP"]
    told = [each["candidates"][0]["content"]["parts"] for each in shown]
    assert told == [[{"text": "Hel"}], [{"text": "lo"}], [{"text": ""}]]
    assert ["usageMetadata" in each for each in shown] == [False, False, True]


def test_count_tokens(client: genai.Client, played: Played) -> None:
    """The count is whoever answers' own."""
    assert client.models.count_tokens(model="smart", contents="hi").total_tokens == 42
    assert played.counts[0].messages[0].parts[0].text == "hi"


def test_models(client: genai.Client, played: Played) -> None:
    """The list is paged as the client pages; one model is found by a name that holds dots and colons."""
    pager = client.models.list(config={"page_size": 2})
    names = [model.name for model in pager]
    assert names == [
        "models/smart",
        "models/anthropic.smart-v1:0",
        "models/plain",
        "models/gemini-2.5-flash-image",
        "models/gpt-image-1",
        "models/encoder",
        "models/plain-encoder",
        "models/ending",
    ]
    model = client.models.get(model="anthropic.smart-v1:0")
    assert model.name == "models/anthropic.smart-v1:0"
    assert client.models.get(model="smart").input_token_limit == 1000
    response = client.models.generate_content(model="anthropic.smart-v1:0", contents="hi")
    assert response.model_version == "anthropic.smart-v1:0"


def test_models_are_in_openais_form_for_openais_callers(url: str, played: Played) -> None:
    """The same path answers by which vendor's header the key is in; `?key=` counts as Google's."""
    ours = requests.get(f"{url}/v1/models", headers={"authorization": f"Bearer {KEY}"}, timeout=60).json()
    assert ours["object"] == "list"
    theirs = requests.get(f"{url}/v1/models?key={KEY}&pageSize=1", timeout=60).json()
    assert theirs == {"models": theirs["models"], "nextPageToken": "1"}
    assert requests.get(f"{url}/v1/models/smart?key={KEY}", timeout=60).json()["name"] == "models/smart"
    assert requests.get(f"{url}/v1/models/smart", headers={"x-api-key": KEY}, timeout=60).json()["id"] == "smart"
    refused = requests.get(f"{url}/v1/models", headers={"x-goog-api-key": "wrong"}, timeout=60)
    assert (refused.status_code, refused.json()["error"]["status"]) == (401, "UNAUTHENTICATED")


def test_the_array_form(url: str, played: Played) -> None:
    """Without `alt=sse` a stream is one JSON array; snake case is understood as camel case is."""
    body = {
        "contents": [
            {"parts": [{"inline_data": {"mime_type": "x", "data": base64.urlsafe_b64encode(picture()).decode()}}]}
        ],
        "generation_config": {"max_output_tokens": 9, "thinking_config": {"include_thoughts": True}},
        "tools": [{"function_declarations": [{"name": "f", "parameters": {"type": "OBJECT", "max_items": {}}}]}],
    }
    path = f"{url}/v1beta/models/smart:streamGenerateContent?key={KEY}"
    got = requests.post(path, json=body, timeout=60)
    assert got.headers["content-type"] == "application/json"
    pieces = got.json()
    assert "".join(p["text"] for r in pieces for c in r["candidates"] for p in c["content"]["parts"]) == "Hello 안녕"
    assert pieces[-1]["usageMetadata"]["totalTokenCount"] == 12
    asked = played.texts[0]
    assert asked.max_tokens == 9
    assert asked.reasoning.include
    assert asked.messages[0].parts[0].image.data == picture()


def test_several_images_of_one_candidate_stay_one_candidate(url: str, played: Played) -> None:
    """What a model made in the place of one image is its parts, beside those of the next."""
    image = image_pb2.Image(image=media_pb2.ImageData(data=b"made", mime_type="image/png"))
    events = [
        image_pb2.ImageEvent(index=0, image=image),
        image_pb2.ImageEvent(index=2, candidate=0, image=image),
        image_pb2.ImageEvent(index=1, image=image),
        image_pb2.ImageEvent(finished=image_pb2.ImageFinished(usage=usage_pb2.Usage(images=3))),
    ]
    played.script = [image_service_pb2.GenerateImageResponse(events=events)]
    body = {"contents": [{"parts": [{"text": "two boats"}]}], "generationConfig": {"candidateCount": 2}}
    path = "/v1beta/models/gemini-2.5-flash-image:generateContent"
    told = requests.post(url + path, json=body, headers={"x-goog-api-key": KEY}, timeout=60).json()
    assert [len(each["content"]["parts"]) for each in told["candidates"]] == [2, 1]
    assert [usage and usage.images for usage in played.books.ended()] == [3]
