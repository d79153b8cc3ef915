"""OpenAI's images, by the official client through the real edge."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from typing import Any

import pytest
import requests
from openai import (
    APIError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
    PermissionDeniedError,
    RateLimitError,
)
from openai.types import ImagesResponse
from PIL import Image

from moa.common.v1 import error_pb2, media_pb2, usage_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from services.common.errors import QuotaExhausted
from services.router.dialects.openai import image_request
from tests import shipped
from tests.router.rig import KEY, OTHER_KEY, Played, Rig, picture

PROMPT = "귀여운 고양이 🐱"


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=20) as made:
        yield made


@pytest.fixture
async def aclient(url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=20) as made:
        yield made


def opened(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def test_the_documented_call_answers_with_a_link(client: OpenAI, played: Played, url: str) -> None:
    """`data[0].url` is absolute, under the public URL, and opens without a key; the vendor's prefix is taken off."""
    made = client.images.generate(model="google/gemini-2.5-flash-image", prompt=PROMPT, n=1, size="1024x1024")
    assert made.data
    link = made.data[0].url
    assert link
    assert link.startswith(f"{url}/files/acc1_")
    assert opened(requests.get(link, timeout=60).content).size == (1024, 1024)
    assert made.usage
    assert made.usage.total_tokens == 3
    assert (made.size, made.output_format) == ("1024x1024", "png")
    asked = played.pictures[0]
    assert (asked.prompt, asked.count, asked.width, asked.height) == (PROMPT, 1, 1024, 1024)
    assert asked.operation == image_pb2.OPERATION_GENERATE
    assert [usage and usage.images for usage in played.books.ended()] == [1]


@pytest.mark.parametrize("name", ["gpt-image-1", "openai/gpt-image-1", "painter"])
def test_a_model_of_openais_own_answers_with_bytes(client: OpenAI, played: Played, name: str) -> None:
    """As their owner's clients expect it, by whatever name it is asked for; a link is had for the asking."""
    made = client.images.generate(model=name, prompt=PROMPT)
    assert made.data
    assert opened(base64.b64decode(made.data[0].b64_json or "")).size == (16, 12)
    assert made.data[0].url is None
    linked = client.images.generate(model=name, prompt=PROMPT, response_format="url")
    assert linked.data
    assert linked.data[0].url
    assert linked.data[0].b64_json is None


def test_tokens_are_told_by_their_kinds(url: str, played: Played) -> None:
    """Those of images apart from those of text, in OpenAI's words and in Google's."""
    usage = usage_pb2.Usage(
        prompt_tokens=360,
        completion_tokens=1281,
        reasoning_tokens=225,
        prompt_image_tokens=323,
        completion_image_tokens=1056,
    )
    made = image_pb2.ImageEvent(image=image_pb2.Image(image=media_pb2.ImageData(data=b"x", mime_type="image/png")))
    last = image_pb2.ImageEvent(finished=image_pb2.ImageFinished(usage=usage))
    played.script = [image_service_pb2.GenerateImageResponse(events=[made, last])]
    headers = {"Authorization": f"Bearer {KEY}"}
    asked = {"model": "gpt-image-1", "prompt": "x"}
    got = requests.post(f"{url}/v1/images/generations", json=asked, headers=headers, timeout=60).json()["usage"]
    assert got == {
        "input_tokens": 360,
        "input_tokens_details": {"image_tokens": 323, "text_tokens": 37},
        "output_tokens": 1281,
        "output_tokens_details": {"image_tokens": 1056, "text_tokens": 225},
        "total_tokens": 1641,
    }
    contents = {"contents": [{"parts": [{"text": "x"}]}]}
    played.script = [image_service_pb2.GenerateImageResponse(events=[made, last])]
    path = f"{url}/v1beta/models/gemini-2.5-flash-image:generateContent"
    counted = requests.post(path, json=contents, headers=headers, timeout=60).json()["usageMetadata"]
    assert counted["promptTokensDetails"] == [
        {"modality": "TEXT", "tokenCount": 37},
        {"modality": "IMAGE", "tokenCount": 323},
    ]
    assert counted["candidatesTokensDetails"] == [{"modality": "IMAGE", "tokenCount": 1056}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("I can't draw ", "that person. "), "the model made no image and said: I can't draw that person."),
        ((), "the model made no image"),
    ],
)
def test_an_answer_without_an_image_is_no_success(
    client: OpenAI, played: Played, words: tuple[str, ...], told: str, stream: bool
) -> None:
    """What the model said in an image's place is what the caller is told; amid a stream as its last event."""
    said = [image_pb2.ImageEvent(text=image_pb2.ImageText(text=each)) for each in words]
    usage = usage_pb2.Usage(prompt_tokens=3, completion_tokens=len(words))
    last = image_pb2.ImageEvent(finished=image_pb2.ImageFinished(usage=usage))
    played.script = [image_service_pb2.GenerateImageResponse(events=[*said, last])]
    if stream:
        with pytest.raises(APIError, match=re.escape(told)):
            list(client.images.generate(model="gemini-2.5-flash-image", prompt=PROMPT, stream=True))
        return
    with pytest.raises(BadRequestError) as refused:
        client.images.generate(model="gemini-2.5-flash-image", prompt=PROMPT)
    assert refused.value.body == {
        "message": told,
        "type": "invalid_request_error",
        "param": "prompt",
        "code": "content_policy_violation",
    }


async def test_the_documented_async_call_needs_no_more_than_a_prompt(aclient: AsyncOpenAI, played: Played) -> None:
    """The model is the documented default."""
    made = await aclient.images.generate(prompt="수채화 스타일의 봄꽃 정원")
    assert made.data
    assert made.data[0].url
    assert played.pictures[0].model == "gemini-2.5-flash-image"


def test_the_documented_extras(client: OpenAI, played: Played) -> None:
    """`aspect_ratio` and a base64 `image` in the extra body arrive; an image makes it an edit."""
    client.images.generate(prompt=PROMPT, extra_body={"aspect_ratio": "16:9"})
    encoded = base64.b64encode(picture()).decode()
    client.images.generate(prompt=PROMPT, extra_body={"image": encoded})
    client.images.generate(prompt=PROMPT, extra_body={"image": f"data:image/jpeg;base64,{encoded}"})
    assert played.pictures[0].aspect_ratio == "16:9"
    for asked in played.pictures[1:]:
        assert asked.operation == image_pb2.OPERATION_EDIT
        assert asked.images[0].data == picture()


def test_every_documented_parameter_arrives(client: OpenAI, played: Played) -> None:
    """All of them are taken; several images come in order, in the file format asked for."""
    made = client.images.generate(
        prompt=PROMPT,
        model="gemini-2.5-flash-image",
        background="opaque",
        moderation="low",
        n=3,
        output_compression=40,
        output_format="jpeg",
        quality="hd",
        response_format="b64_json",
        size="auto",
        style="vivid",
        user="u1",
        extra_body={"negative_prompt": "dogs", "seed": 5, "colors": ["#FF9800", "#0000ff"]},
    )
    asked = played.pictures[0]
    assert (asked.count, asked.background, asked.quality) == (3, image_pb2.BACKGROUND_OPAQUE, image_pb2.QUALITY_HIGH)
    assert (asked.moderation, asked.style, asked.user, asked.seed) == ("low", "vivid", "u1", 5)
    assert asked.output_format == image_pb2.OUTPUT_FORMAT_JPEG
    assert not asked.HasField("width")
    assert asked.negative_prompt == "dogs"
    assert list(asked.colors) == ["#FF9800", "#0000ff"]
    assert made.data
    pictures = [opened(base64.b64decode(d.b64_json or "")) for d in made.data]
    assert [p.format for p in pictures] == ["JPEG"] * 3
    reds = [p.getpixel((0, 0))[0] > 100 for p in pictures]  # type: ignore[index]
    assert reds == [True, False, True]
    assert made.output_format == "jpeg"


def test_edits_by_form(client: OpenAI, played: Played) -> None:
    """Several images and a mask arrive by multipart, numbers as numbers."""
    made = client.images.edit(
        image=[("a.png", picture()), ("b.webp", picture(9, 9, "WEBP")), ("c.jpg", picture(5, 5, "JPEG"))],
        mask=("m.png", picture(colour="white")),
        prompt="파란색 톤으로",
        n=2,
        size="64x32",
        response_format="b64_json",
        quality="low",
        input_fidelity="high",
    )
    asked = played.pictures[0]
    assert asked.operation == image_pb2.OPERATION_EDIT
    assert [i.mime_type for i in asked.images] == ["image/png", "image/webp", "image/jpeg"]
    assert asked.images[0].data == picture()
    assert asked.mask.data == picture(colour="white")
    assert (asked.prompt, asked.count, asked.width, asked.quality) == ("파란색 톤으로", 2, 64, image_pb2.QUALITY_LOW)
    assert made.data
    assert len(made.data) == 2


def test_variations(client: OpenAI, played: Played) -> None:
    """A variation needs an image and no prompt."""
    with pytest.warns(DeprecationWarning, match="deprecated"):  # the client's own
        made = client.images.create_variation(image=picture(), n=1, size="256x256", model="gemini-2.5-flash-image")
    assert made.data
    assert made.data[0].url
    assert played.pictures[0].operation == image_pb2.OPERATION_VARIATION


def test_a_json_edit(url: str, played: Played) -> None:
    """The newer JSON form takes images as data URIs."""
    image = "data:image/png;base64," + base64.b64encode(picture()).decode()
    body = {"prompt": "x", "images": [{"image_url": image}], "mask": {"image_url": image}}
    got = requests.post(f"{url}/v1/images/edits", json=body, headers={"x-api-key": KEY}, timeout=60)
    assert got.status_code == 200, got.text
    assert played.pictures[0].images[0].data == picture()
    assert played.pictures[0].HasField("mask")


def test_a_stream_gives_partial_images_and_the_end(client: OpenAI, played: Played) -> None:
    """The events are those that the client parses; as many partial images as were asked for, spread evenly."""
    with client.images.generate(prompt=PROMPT, stream=True, partial_images=2, n=2, size="32x16") as stream:
        events = list(stream)
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"] * 2
    assert [e.partial_image_index for e in events if e.type == "image_generation.partial_image"] == [0, 1]
    assert played.pictures[0].preview_every == 4
    last = events[-1]
    assert last.type == "image_generation.completed"
    assert opened(base64.b64decode(last.b64_json)).size == (32, 16)
    assert (last.size, last.output_format, last.usage.total_tokens) == ("32x16", "png", 3)
    assert [usage and usage.images for usage in played.books.ended()] == [2]


def test_an_edit_streams_with_its_own_events(client: OpenAI, played: Played) -> None:
    """The names of an edit's events are its own."""
    with client.images.edit(image=picture(), prompt=PROMPT, stream=True, partial_images=1) as stream:
        kinds = [event.type for event in stream]
    assert kinds == ["image_edit.partial_image", "image_edit.completed"]


def test_a_stream_that_fails_ends_with_an_error(client: OpenAI, played: Played) -> None:
    """A failure after the first event is the client's APIError with the reason, and costs nothing."""
    failed = error_pb2.ErrorDetail(reason=error_pb2.REASON_UPSTREAM_FAILED, message="the model failed")
    queued = image_pb2.ImageEvent(queued=image_pb2.Queued())
    played.script = [
        image_service_pb2.GenerateImageResponse(events=[queued]),
        image_service_pb2.GenerateImageResponse(events=[image_pb2.ImageEvent(error=failed)]),
    ]
    with (
        pytest.raises(APIError, match="the model failed"),
        client.images.generate(prompt=PROMPT, stream=True) as stream,
    ):
        list(stream)
    assert played.books.ended() == [None]


def test_styles_and_moderation_are_hints(url: str, played: Played) -> None:
    """OpenAI's own clients send them to every model: one without them ignores them by name."""
    ask = {"model": "painter", "prompt": PROMPT, "style": "vivid", "moderation": "low"}
    told = requests.post(f"{url}/v1/images/generations", json=ask, headers={"x-api-key": KEY}, timeout=60)
    assert (told.status_code, told.headers["x-moa-ignored"]) == (200, "style, moderation")
    assert [(asked.style, asked.moderation) for asked in played.pictures] == [("", "")]


@pytest.mark.parametrize(
    ("asked", "told", "becomes"),
    [
        ("low", ["quality=medium"], image_pb2.QUALITY_MEDIUM),
        ("standard", [], image_pb2.QUALITY_MEDIUM),
        ("hd", [], image_pb2.QUALITY_HIGH),
    ],
)
def test_a_quality_that_is_not_made_becomes_the_nearest(asked: str, told: list[str], becomes: int) -> None:
    """Of those that the model's row says."""
    model = shipped.catalogue().find("dall-e-3")
    request, _ = image_request.request_from(
        json.dumps({"prompt": "x", "quality": asked}).encode(), "application/json", "generation"
    )
    assert image_request.drop_hints(request, model) == told
    assert request.quality == becomes


@pytest.mark.parametrize("quality", [None, "auto", "high", "hd"])
def test_a_whole_answer_fits_the_published_type(url: str, played: Played, quality: str | None) -> None:
    """A client that checks answers takes it: the type has no `auto`, which the events of a stream have."""
    ask = {"model": "gemini-2.5-flash-image", "prompt": PROMPT, "quality": quality}
    told = requests.post(f"{url}/v1/images/generations", json=ask, headers={"x-api-key": KEY}, timeout=60)
    assert told.status_code == 200, told.text
    made = ImagesResponse.model_validate(told.json(), strict=True)
    assert (made.background, made.quality) == (None, "high" if quality in ("high", "hd") else None)


def test_a_quality_is_a_hint(url: str, played: Played) -> None:
    """A model that offers no choice ignores it and says so, unless the request is strict; another one takes it."""
    ask = {"model": "painter", "prompt": PROMPT, "quality": "hd"}
    told = requests.post(f"{url}/v1/images/generations", json=ask, headers={"x-api-key": KEY}, timeout=60)
    assert (told.status_code, told.headers["x-moa-ignored"], told.json().get("quality")) == (200, "quality", None)
    assert [asked.quality for asked in played.pictures] == [image_pb2.QUALITY_UNSPECIFIED]
    strict = {"x-api-key": KEY, "moa-parameters": "strict"}
    refused = requests.post(f"{url}/v1/images/generations", json=ask, headers=strict, timeout=60)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "quality")
    able = requests.post(
        f"{url}/v1/images/generations", json=ask | {"model": "gemini-2.5-flash-image"}, headers=strict, timeout=60
    )
    assert (able.status_code, able.json()["quality"]) == (200, "high")
    assert [asked.quality for asked in played.pictures[1:]] == [image_pb2.QUALITY_HIGH]


REFUSED: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": " "},
    "n": {"prompt": "x", "n": 11},
    "size": {"prompt": "x", "size": "5000x10"},
    "quality": {"prompt": "x", "quality": "best"},
    "partial_images": {"prompt": "x", "partial_images": 1},
    "output_compression": {"prompt": "x", "output_compression": 5},
    "svg": {"prompt": "x", "svg": {}},
    "image": {"prompt": "x", "image": "***"},
    "mask": {"prompt": "x", "mask": base64.b64encode(picture()).decode()},
}


@pytest.mark.parametrize(("param", "body"), REFUSED.items(), ids=REFUSED.keys())
def test_bad_bodies_name_their_field(client: OpenAI, played: Played, param: str, body: dict[str, Any]) -> None:
    """What is wrong is BadRequestError with the field's name; nothing is asked of a model."""
    with pytest.raises(BadRequestError) as caught:
        client.post("/images/generations", body=body, cast_to=object)
    assert caught.value.param == param
    assert played.pictures == []


def test_the_client_raises_its_own_classes(url: str, played: Played) -> None:
    """Each status is the class that the documentation tells callers to catch, with the time to wait on 429."""

    def attempt(key: str = KEY, **given: Any) -> None:
        with OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=20) as client:
            client.images.generate(prompt="x", **given)

    with pytest.raises(AuthenticationError) as unknown:
        attempt("wrong")
    assert unknown.value.code == "invalid_api_key"
    assert unknown.value.request_id
    with pytest.raises(PermissionDeniedError):
        attempt(OTHER_KEY)
    with pytest.raises(NotFoundError):
        attempt(model="no-such-model")
    with pytest.raises(BadRequestError):
        attempt(model="smart")
    played.refusal = QuotaExhausted("the day's images are spent", retry_after_s=90)
    with pytest.raises(RateLimitError) as spent:
        attempt()
    assert spent.value.response.headers["retry-after"] == "90"


def test_storage_that_fails_costs_nothing(client: OpenAI, rig: Rig, played: Played) -> None:
    """An image that cannot be stored is not delivered: 500 in the envelope, and no charge."""
    with rig.storage_broken(), pytest.raises(InternalServerError) as caught:
        client.images.generate(prompt="x")
    assert caught.value.code == "storage_failed"
    assert played.books.ended() == [None]


def test_the_answer_tells_who_made_it_and_what_it_cost(url: str, played: Played) -> None:
    """Headers name provider, model, cost and what is left."""
    body = json.dumps({"prompt": "x", "n": 2})
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    got = requests.post(f"{url}/v1/images/generations", data=body, headers=headers, timeout=60)
    assert got.headers["x-moa-provider"] == "p-image"
    assert got.headers["x-moa-model"] == "gemini-2.5-flash-image"
    assert got.headers["x-moa-cost"] == "images=2"
    assert got.headers["x-ratelimit-remaining-images"] == "4"
