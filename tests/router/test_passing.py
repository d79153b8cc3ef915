"""Same vendor in and out: what no contract types passes from a dialect to its vendor, but what is denied."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from moa.image.v1 import image_pb2
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.text.v1.text_pb2 import Message, Part, Role
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Load, Model, Provider
from services.common import vendor_fields
from services.common.errors import InvalidField, TooLarge, Unsupported
from services.image.targets import ADAPTERS as IMAGE_ADAPTERS
from services.providers.google.text import carried as google_carried
from services.providers.google.text import request as gemini
from services.providers.openai.text import carried as openai_carried
from services.providers.openai.text import request as openai
from services.providers.text.ignored import Ignored
from services.router.dialects.google import requests as google_requests
from services.router.dialects.openai import chat_request
from services.router.dialects.reply import encode
from services.router.operations.image import ImageCall
from services.text import capable
from services.text.targets import ADAPTERS

Json = dict[str, Any]

ABLE = frozenset(
    ("files", "tools", "vision", "json", "json_schema", "seed", "candidates", "reasoning", "logprobs", "search")
)
MODEL = Model(id="m", provider="p", upstream="u", capabilities=ABLE)


def to_openai(body: Json, ignored: Ignored | None = None, *, passes: Any = "all", adapter: str = "openai") -> Json:
    """Return what a provider of OpenAI's protocol is sent for a body of the dialect."""
    request = chat_request.request_from(encode(body)).request
    noted = ignored if ignored is not None else Ignored()
    capable.check(request, MODEL, ADAPTERS[adapter], noted)
    made: Json = json.loads(encode(openai.body_from(request, MODEL, openai.Options(passes=passes), noted)))
    return made


def to_gemini(body: Json, ignored: Ignored | None = None) -> Json:
    """Return what Gemini is sent for a body of the dialect."""
    asked = google_requests.asked(encode(body), "m", "text", stream=False)
    assert asked.text is not None
    noted = ignored if ignored is not None else Ignored()
    capable.check(asked.text, MODEL, ADAPTERS["gemini"], noted)
    made: Json = json.loads(encode(gemini.body_from(asked.text, MODEL, noted)))
    return made


CHAT: Json = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
PASSES: Json = {
    "chat_template_kwargs": {"enable_thinking": False},
    "typical_p": 0.1,
    "repetition_penalty": 1.1,
    "guided_json": {"type": "object", "properties": {"file_id": {"type": "string"}}},
    "prompt_cache_key": "k",
    "service_tier": "flex",
    "verbosity": "low",
    "prediction": {"type": "content", "content": "x"},
    "metadata": {"project": "mine"},
    "next_years_field": [1, {"a": None}],
}


def test_openais_fields_pass_as_they_came() -> None:
    """At every level: of the request, its turns, their parts, calls and tools."""
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
        "extra_content": {"google": {"thought_signature": "c2ln"}},
    }
    part = {"type": "text", "text": "see", "cache_control": {"type": "ephemeral"}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PNG, "detail": "low"}}
    details = [{"type": "reasoning.text", "text": "hm", "format": "unknown"}]
    body = {
        **CHAT,
        **PASSES,
        "messages": [
            {"role": "system", "content": "s", "cache_control": {"type": "ephemeral"}},
            {"role": "user", "content": [part, image], "mood": "glad"},
            {"role": "assistant", "content": "", "tool_calls": [call], "reasoning_details": details},
            {"role": "tool", "tool_call_id": "c1", "content": "1", "cached": True},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "defer": True}, "cache_control": {}}],
    }
    ignored = Ignored()
    sent = to_openai(body, ignored)
    assert ignored.names == []
    assert {name: sent[name] for name in PASSES} == PASSES
    assert sent["messages"] == body["messages"]
    assert sent["tools"] == body["tools"]


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


@pytest.mark.parametrize("name", openai_carried.DENIED)
def test_what_is_ours_to_decide_is_not_passed_to_openai(name: str) -> None:
    """Whoever filled the envelope: what is stored, whose account it is, who answers, what costs more."""
    request = GenerateTextRequest(vendor=vendor_fields.envelope("openai", {name: "theirs", "typical_p": 0.1}))
    request.messages.append(Message(role=Role.ROLE_USER, parts=[Part(text="hi")]))
    ignored = Ignored()
    sent = openai.body_from(request, MODEL, openai.Options(), ignored)
    assert sent.get(name) != "theirs"
    assert (sent["typical_p"], ignored.names) == (0.1, [name])
    with pytest.raises(Unsupported) as refused:
        openai.body_from(request, MODEL, openai.Options(), Ignored(strict=True))
    assert refused.value.param == name


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"service_tier": "priority"}, ["service_tier"]),
        ({"service_tier": "flex"}, []),
        ({"store": True}, ["store"]),
    ],
)
def test_dear_tiers_and_storage_are_named(fields: Json, names: list[str]) -> None:
    """A tier that costs more than what is counted does not pass, a cheaper one does."""
    ignored = Ignored()
    sent = to_openai({**CHAT, **fields}, ignored)
    assert ignored.names == names
    assert (set(fields) & set(sent)) == (set() if names else set(fields))


def test_a_stored_file_is_not_passed_to_openai() -> None:
    """By its id, in whatever part it stands."""
    request = GenerateTextRequest()
    fields = {"type": "file", "file": {"file_id": "file-1"}}
    part = Part(text="hi", vendor=vendor_fields.envelope("openai", {**fields, "file_id": "file-1"}))
    request.messages.append(Message(role=Role.ROLE_USER, parts=[part]))
    ignored = Ignored()
    sent = openai.body_from(request, MODEL, openai.Options(), ignored)
    assert "file-1" not in json.dumps(sent)
    assert ignored.names == ["messages[].content[].file", "messages[].content[].file_id"]


def test_openai_itself_is_sent_what_it_documents() -> None:
    """It refuses what it does not know: the rest is named."""
    ignored = Ignored()
    body = {**CHAT, **PASSES, "messages": [{"role": "user", "content": "hi", "cache_control": {}, "mood": 1}]}
    sent = to_openai(body, ignored, passes="documented")
    assert sent["verbosity"] == "low"
    assert sent["messages"] == CHAT["messages"]
    assert ignored.names == [
        "messages[].mood",
        "messages[].cache_control",
        "chat_template_kwargs",
        "typical_p",
        "repetition_penalty",
        "guided_json",
        "next_years_field",
    ]


def test_what_is_typed_is_never_changed() -> None:
    """An envelope that contradicts the request loses."""
    request = GenerateTextRequest(vendor=vendor_fields.envelope("openai", {"temperature": 2, "seed": 1}))
    request.sampling.temperature = 0.5
    request.messages.append(Message(role=Role.ROLE_USER, parts=[Part(text="hi")]))
    sent = openai.body_from(request, MODEL, openai.Options(), Ignored())
    assert (sent["temperature"], sent["seed"]) == (0.5, 1)


@pytest.mark.parametrize("broken", [b"{", b"[1]", b"1", b'{"a": 1', b"\xff", b"[" * 100_000])
def test_an_envelope_holds_an_object(broken: bytes) -> None:
    """A caller of the typed API is told."""
    request = GenerateTextRequest()
    request.vendor.vendor = "openai"
    request.vendor.json = broken
    request.messages.append(Message(role=Role.ROLE_USER, parts=[Part(text="hi")]))
    with pytest.raises(InvalidField, match="vendor"):
        openai.body_from(request, MODEL, openai.Options(), Ignored())


def test_the_fields_have_a_bound() -> None:
    """All of a request's together."""
    turns = [{"role": "user", "content": "hi", "x": "a" * 100_000} for _ in range(3)]
    with pytest.raises(TooLarge):
        chat_request.request_from(encode({"model": "m", "messages": turns}))
    parts = [{"text": "hi", "videoMetadata": {"x": "a" * 300_000}}]
    with pytest.raises(TooLarge):
        google_requests.asked(encode({"contents": [{"parts": parts}]}), "m", "text", stream=False)


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
    bound = sent["generationConfig"].pop("maxOutputTokens")
    assert bound == MODEL.default_max_tokens
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


PAINTER = painter(ratios=["1:1"], qualities={"medium": "2K"})


def test_what_only_google_knows_passes_to_its_image_models() -> None:
    """Settings and steering come as they came; the size is the quality that the row says."""
    asked = google_requests.asked(encode(IMAGES), "m", "image", stream=False)
    assert asked.image is not None
    assert asked.image.quality == image_pb2.QUALITY_MEDIUM
    provider = Provider(id="p", adapter="gemini", makes="image", base_url="https://x")
    (call,) = IMAGE_ADAPTERS["gemini"].calls_from(asked.image, PAINTER, provider)
    sent = json.loads(call.outgoing.body)
    assert sent["generationConfig"].pop("responseModalities") == ["TEXT", "IMAGE"]
    assert sent == IMAGES
    assert list(IMAGE_ADAPTERS["gemini"].ignored(asked.image, PAINTER)) == []


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
    assert list(IMAGE_ADAPTERS["gemini"].ignored(asked.image, imagen)) == names
    assert list(IMAGE_ADAPTERS["openai"].ignored(asked.image, PAINTER)) == names
    stored = GenerateImageRequest(vendor=vendor_fields.envelope("google", {"store": True, "labels": {}}, ["store"]))
    assert list(IMAGE_ADAPTERS["gemini"].ignored(stored, PAINTER)) == ["store"]


def test_strict_callers_of_own_image_models_are_refused() -> None:
    """These know no vendor's fields, and say nothing of them."""
    asked = google_requests.asked(encode(IMAGES), "m", "image", stream=False, strict=True)
    assert asked.image is not None
    own = msgspec.convert({"id": "m", "provider": "p", "capabilities": ["quality", "aspect_ratio"]}, Model)
    ImageCall(asked.image).check_able(own)
    own = msgspec.structs.replace(own, load=Load(source="x"))
    with pytest.raises(Unsupported, match="safetySettings"):
        ImageCall(asked.image).check_able(own)


def test_the_denylists_hold_what_reaches_the_operators_account() -> None:
    """Storage, stored files and caches by id, batches, organisations and projects, and what costs more."""
    ours = {"store", "previous_response_id", "file_ids", "vector_store_ids", "cached_content", "batch", "organization"}
    assert {*ours, "project", "models", "best_of", "web_search_options", "plugins"} <= openai_carried.DENIED.keys()
    assert {"store", "cachedContent", "batch"} <= google_carried.DENIED.keys()
    assert {"candidateCount", "maxOutputTokens"} <= google_carried.DENIED_CONFIG.keys()
    assert {"fileSearch", "retrieval", "googleMaps"} <= google_carried.DENIED_TOOLS.keys()
