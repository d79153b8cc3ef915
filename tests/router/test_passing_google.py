"""What Google alone knows reaches its own models as it came, and is named everywhere else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from inference.text.turns import turns_from
from moa.image.v1 import image_pb2
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.text.v1.text_pb2 import Message, Part, Role
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Load, Model, Provider
from services.common import vendor_fields
from services.common.errors import InvalidField, Unsupported
from services.image.targets import ADAPTERS as IMAGE_ADAPTERS
from services.providers.google.text import carried as google_carried
from services.providers.google.text import request as gemini
from services.providers.openai.text import request as openai
from services.providers.text.ignored import Ignored
from services.router.dialects.google import requests as google_requests
from services.router.dialects.openai import chat_request
from services.router.dialects.reply import encode
from services.router.operations.image import ImageCall
from services.text import capable
from services.text.targets import ADAPTERS
from tests.router.passing import CHAT, MODEL, Json, to_gemini, to_openai

GOOGLE: Json = {
    "contents": [
        {"role": "user", "parts": [{"text": "hi", "videoMetadata": {"fps": 1}}]},
        {
            "role": "model",
            "parts": [
                {"text": "let me see", "thoughtSignature": "c2ln"},
                {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "c2ln"},
                {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
                {"hologram": {"size": 1}},
            ],
        },
        {"role": "user", "parts": [{"text": "and?"}]},
    ],
    "tools": [
        {"functionDeclarations": [{"name": "f", "behavior": "BLOCKING", "response": {"type": "STRING"}}]},
        {"googleSearch": {"timeRangeFilter": {}}},
        {"codeExecution": {}},
        {"urlContext": {}},
        {"orrery": {}},
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "VALIDATED"}, "retrievalConfig": {"languageCode": "ko"}},
    "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    "labels": {"team": "a"},
    "generationConfig": {
        "temperature": 0.5,
        "mediaResolution": "MEDIA_RESOLUTION_LOW",
        "responseLogprobs": True,
        "logprobs": 2,
        "thinkingConfig": {"thinkingBudget": -1, "includeThoughts": True},
        "nextYears": {"a": 1},
    },
    "nextYears": [1],
}


def test_googles_fields_pass_as_they_came() -> None:
    """Settings, tools, parts of its own kinds in their order, signatures where they stood."""
    ignored = Ignored()
    sent = to_gemini(GOOGLE, ignored)
    assert sent == GOOGLE
    assert ignored.names == []


@pytest.mark.parametrize("name", google_carried.DENIED)
def test_what_is_ours_to_decide_is_not_passed_to_google(name: str) -> None:
    """As with OpenAI."""
    request = GenerateTextRequest(vendor=vendor_fields.envelope("google", {name: "theirs", "other": 1}))
    request.messages.append(Message(role=Role.ROLE_USER, parts=[Part(text="hi")]))
    ignored = Ignored()
    sent = gemini.body_from(request, MODEL, ignored)
    assert sent.get(name) != "theirs"
    assert (sent["other"], ignored.names) == (1, [name])


@pytest.mark.parametrize("name", google_carried.DENIED_CONFIG)
def test_what_is_counted_is_not_passed_to_google(name: str) -> None:
    """A bound or a number of candidates beside the contract's own would cost more than is reserved."""
    fields = {"generationConfig": {name: 99, "other": 1}}
    request = GenerateTextRequest(vendor=vendor_fields.envelope("google", fields), max_tokens=5)
    request.messages.append(Message(role=Role.ROLE_USER, parts=[Part(text="hi")]))
    ignored = Ignored()
    sent = gemini.body_from(request, MODEL, ignored)["generationConfig"]
    assert (sent.get(name) != 99, sent["other"], ignored.names) == (True, 1, [f"generationConfig.{name}"])


@pytest.mark.parametrize("name", ["fileSearch", "retrieval", "googleMaps"])
def test_tools_that_reach_what_is_stored_or_cost_more_are_refused(name: str) -> None:
    """By name: an answer without them would mean something else."""
    with pytest.raises(Unsupported, match=name):
        to_gemini({"contents": GOOGLE["contents"][:1], "tools": [{name: {}}]})


def test_searches_need_the_models_leave() -> None:
    """They are billed by the search: the operator takes the capability away from the row, and they are refused."""
    asked = google_requests.asked(
        encode({"contents": GOOGLE["contents"][:1], "tools": [{"googleSearch": {}}]}), "m", "text", stream=False
    )
    assert asked.text is not None
    with pytest.raises(Unsupported, match="may not search"):
        gemini.body_from(asked.text, Model(id="m", provider="p"), Ignored())


def test_an_enum_passes_to_google_with_what_is_said_of_it() -> None:
    """Google's mode for one of several words, with the schema as it came."""
    schema = {"type": "STRING", "format": "enum", "enum": ["Brass", "현악기"], "description": "a family", "title": "F"}
    config = {"responseMimeType": "text/x.enum", "responseSchema": schema}
    ignored = Ignored()
    sent = to_gemini({"contents": GOOGLE["contents"][:1], "generationConfig": config}, ignored)
    assert sent["generationConfig"] == config
    assert ignored.names == []


def test_pieces_of_a_stream_are_one_turn() -> None:
    """Google's clients keep each as a content of the model, which templates that take turns strictly refuse."""
    pieces = [
        {"role": "model", "parts": [part]} for part in ({"text": "Hel"}, {"text": "lo", "thoughtSignature": "c2ln"})
    ]
    turns = [GOOGLE["contents"][0], *pieces, {"role": "user", "parts": [{"text": "and?"}]}]
    sent = to_gemini({"contents": turns})
    assert [content["role"] for content in sent["contents"]] == ["user", "model", "user"]
    assert sent["contents"][1]["parts"] == [part for piece in pieces for part in piece["parts"]]
    asked = google_requests.asked(encode({"contents": turns}), "m", "text", stream=False)
    assert asked.text is not None
    assert [turn.content for turn in turns_from(asked.text.messages)] == ["hi", "Hello", "and?"]


FILES: list[Json] = [
    {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
    {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}},
    {"fileData": {"fileUri": "https://www.youtube.com/watch?v=1"}, "videoMetadata": {"fps": 1}},
    {"fileData": {"fileUri": "https://a.example/b.mp4", "mimeType": "video/mp4"}},
]


def test_files_pass_to_google() -> None:
    """Documents, sounds and videos, in the request or by a public link, between the texts."""
    parts = [{"text": "look"}, *FILES, {"text": "and say"}]
    sent = to_gemini({"contents": [{"role": "user", "parts": parts}]})
    assert sent["contents"] == [{"role": "user", "parts": parts}]


@pytest.mark.parametrize(
    "uri",
    [
        "https://generativelanguage.googleapis.com/v1beta/files/abc",
        "https://storage.googleapis.com/bucket/a.pdf",
        "gs://bucket/a.pdf",
        "http://a.example/b.pdf",
        "files/abc",
    ],
)
def test_files_that_are_stored_at_google_are_refused(uri: str) -> None:
    """They are the operator's; what is no public link, too."""
    part = {"fileData": {"fileUri": uri, "mimeType": "application/pdf"}}
    with pytest.raises((Unsupported, InvalidField)):
        to_gemini({"contents": [{"role": "user", "parts": [part]}]})


def test_files_of_openais_form_pass_to_either() -> None:
    """A document and a sound: in Gemini's words, and in OpenAI's own."""
    document = {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}}
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    body = {**CHAT, "messages": [{"role": "user", "content": [document, sound]}]}
    assert to_openai(body)["messages"] == body["messages"]
    request = chat_request.request_from(encode(body)).request
    sent = json.loads(encode(gemini.body_from(request, MODEL, Ignored())))
    assert sent["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
        {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}},
    ]


def test_a_model_without_files_says_what_it_can_do() -> None:
    """By the capability of its row."""
    asked = google_requests.asked(encode({"contents": [{"parts": [FILES[0]]}]}), "m", "text", stream=False)
    assert asked.text is not None
    with pytest.raises(Unsupported, match="it can do: tools"):
        capable.check(
            asked.text, Model(id="m", provider="p", capabilities=frozenset({"tools"})), ADAPTERS["gemini"], Ignored()
        )


def test_another_vendor_refuses_what_it_does_not_know() -> None:
    """Tools and parts of Google's own are what an answer is made of; hints are named."""
    hints = {"contents": GOOGLE["contents"][:1], "safetySettings": [], "generationConfig": {"mediaResolution": "LOW"}}
    asked = google_requests.asked(encode(hints), "m", "text", stream=False)
    assert asked.text is not None
    ignored = Ignored()
    capable.check(asked.text, MODEL, ADAPTERS["openai"], ignored)
    assert ignored.names == ["safetySettings", "generationConfig.mediaResolution"]
    assert "safetySettings" not in openai.body_from(asked.text, MODEL, openai.Options(), ignored)
    essential: list[Json] = [{"tools": [{"codeExecution": {}}]}, {"contents": GOOGLE["contents"]}]
    for more in essential:
        asked = google_requests.asked(encode({**hints, **more}), "m", "text", stream=False)
        assert asked.text is not None
        with pytest.raises(Unsupported):
            capable.check(asked.text, MODEL, ADAPTERS["openai"], Ignored())


IMAGES: Json = {
    "contents": [{"role": "user", "parts": [{"text": "a cat"}]}],
    "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    "generationConfig": {
        "temperature": 0.5,
        "thinkingConfig": {"includeThoughts": True},
        "imageConfig": {"aspectRatio": "1:1", "imageSize": "2K"},
        "nextYears": 1,
    },
    "labels": {"team": "a"},
}


def painter(**limits: Any) -> Model:
    """Return a model that makes images."""
    row = {"id": "m", "provider": "p", "upstream": "u", "capabilities": ["quality", "aspect_ratio"], "limits": limits}
    return msgspec.convert(row, Model)


PROVIDER = Provider(id="p", adapter="gemini", makes="image", base_url="https://x")
PAINTER = painter(ratios=["1:1"], qualities={"medium": "2K"})


def test_what_only_google_knows_passes_to_its_image_models() -> None:
    """Settings and steering come as they came; the size is the quality that the row says."""
    asked = google_requests.asked(encode(IMAGES), "m", "image", stream=False)
    assert asked.image is not None
    assert asked.image.quality == image_pb2.QUALITY_MEDIUM
    (call,) = IMAGE_ADAPTERS["gemini"].calls_from(asked.image, PAINTER, PROVIDER)
    sent = json.loads(bytes(call.outgoing.body))
    assert sent["generationConfig"].pop("responseModalities") == ["TEXT", "IMAGE"]
    assert sent == IMAGES
    assert list(IMAGE_ADAPTERS["gemini"].ignored(asked.image, PAINTER, PROVIDER)) == []


def test_googles_smallest_images_pass_to_its_models() -> None:
    """512, below every quality, with the ratio; others make what they make when nothing is said, and name it."""
    body: Json = {"contents": [{"parts": [{"text": "a cat"}]}]}
    body |= {"generationConfig": {"imageConfig": {"imageSize": "512", "aspectRatio": "1:1"}}}
    asked = google_requests.asked(encode(body), "m", "image", stream=False)
    assert asked.image is not None
    (call,) = IMAGE_ADAPTERS["gemini"].calls_from(asked.image, PAINTER, PROVIDER)
    sent = json.loads(bytes(call.outgoing.body))["generationConfig"]
    assert sent["imageConfig"] == {"imageSize": "512", "aspectRatio": "1:1"}
    assert list(IMAGE_ADAPTERS["gemini"].ignored(asked.image, PAINTER, PROVIDER)) == []
    name = "generationConfig.imageConfig.imageSize"
    assert list(IMAGE_ADAPTERS["openai"].ignored(asked.image, PAINTER, PROVIDER)) == [name]


def test_other_image_models_name_what_only_google_knows() -> None:
    """Every vendor but Google, and Google's Imagen, which takes another body."""
    asked = google_requests.asked(encode(IMAGES), "m", "image", stream=False)
    assert asked.image is not None
    names = [
        "safetySettings",
        "labels",
        "generationConfig.temperature",
        "generationConfig.thinkingConfig",
        "generationConfig.nextYears",
    ]
    imagen = painter(method="predict")
    assert list(IMAGE_ADAPTERS["gemini"].ignored(asked.image, imagen, PROVIDER)) == names
    assert list(IMAGE_ADAPTERS["openai"].ignored(asked.image, PAINTER, PROVIDER)) == names
    stored = GenerateImageRequest(vendor=vendor_fields.envelope("google", {"store": True, "labels": {}}, ["store"]))
    assert list(IMAGE_ADAPTERS["gemini"].ignored(stored, PAINTER, PROVIDER)) == ["store"]


def test_strict_callers_of_own_image_models_are_refused() -> None:
    """These know no vendor's fields, and say nothing of them."""
    asked = google_requests.asked(encode(IMAGES), "m", "image", stream=False, strict=True)
    assert asked.image is not None
    own = msgspec.convert({"id": "m", "provider": "p", "capabilities": ["quality", "aspect_ratio"]}, Model)
    ImageCall(asked.image).check_able(own)
    own = msgspec.structs.replace(own, load=Load(source="x"))
    with pytest.raises(Unsupported, match="safetySettings"):
        ImageCall(asked.image).check_able(own)
