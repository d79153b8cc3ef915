"""Same vendor in and out: what no contract types passes from a dialect to its vendor, but what is denied."""

from __future__ import annotations

import json

import pytest

from moa.text.v1.text_pb2 import Message, Part, Role
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common import vendor_fields
from services.common.errors import InvalidField, TooLarge, Unsupported
from services.providers.google.text import carried as google_carried
from services.providers.openai.text import carried as openai_carried
from services.providers.openai.text import request as openai
from services.providers.text.ignored import Ignored
from services.router.dialects.google import requests as google_requests
from services.router.dialects.openai import chat_request
from services.router.dialects.reply import encode
from tests.router.passing import CHAT, MODEL, Json, to_openai

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


@pytest.mark.parametrize(
    "fields", [{"store": False}, {"service_tier": "auto"}, {"verbosity": "medium"}, {"metadata": {}}]
)
def test_what_openai_takes_for_granted_is_no_wish(fields: Json) -> None:
    """Its clients write such values of themselves: nothing is ignored at anybody, and strict requests are done."""
    request = chat_request.request_from(encode({**CHAT, **fields})).request
    assert list(request.vendor.names) == []
    strict = Ignored(strict=True)
    assert ("store" in to_openai({**CHAT, **fields}, strict)) is False
    assert strict.names == []


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
        "cache_control",
        "chat_template_kwargs",
        "typical_p",
        "repetition_penalty",
        "guided_json",
        "next_years_field",
    ]


def test_a_repetition_penalty_of_one_is_no_wish() -> None:
    """It changes nothing: it passes to servers that know it, and is neither named nor refused elsewhere."""
    body = {**CHAT, "repetition_penalty": 1.0}
    assert to_openai(body, Ignored(strict=True))["repetition_penalty"] == 1.0
    assert "repetition_penalty" not in to_openai(body, Ignored(strict=True), passes="documented")
    assert not chat_request.request_from(encode(body)).request.vendor.names
    for other in (1.1, True):
        request = chat_request.request_from(encode({**body, "repetition_penalty": other})).request
        assert request.vendor.names == ["repetition_penalty"]


@pytest.mark.parametrize("options", [{}, {"search_context_size": "low"}])
def test_a_web_search_is_refused_with_what_there_is(options: object) -> None:
    """An answer without it would be another one."""
    with pytest.raises(Unsupported, match="a function of your own in tools") as caught:
        chat_request.request_from(encode({**CHAT, "web_search_options": options}))
    assert caught.value.param == "web_search_options"


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


def test_the_denylists_hold_what_reaches_the_operators_account() -> None:
    """Storage, stored files and caches by id, batches, organisations and projects, and what costs more."""
    ours = {"store", "previous_response_id", "file_ids", "vector_store_ids", "cached_content", "batch", "organization"}
    assert {*ours, "project", "models", "best_of", "web_search_options", "plugins"} <= openai_carried.DENIED.keys()
    assert {"store", "cachedContent", "batch"} <= google_carried.DENIED.keys()
    assert {"candidateCount", "maxOutputTokens"} <= google_carried.DENIED_CONFIG.keys()
    assert {"fileSearch", "retrieval", "googleMaps"} <= google_carried.DENIED_TOOLS.keys()
