"""Fields of generations that nobody here knows: left out and named, or refused where the caller says so."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from moa.text.v1 import text_pb2
from services.common.errors import InvalidField
from services.router.dialects.google import bodies
from services.router.dialects.google import requests as requests_of_google
from services.router.dialects.google.spelling import parse_either, respelled
from services.router.dialects.openai import chat_request, image_request
from services.router.dialects.openai.bodies import ChatBody
from services.router.dialects.unknown import MOST_NAMED, parse_liberally
from tests.router.rig import KEY, Played, ended, said, text

Json = dict[str, Any]

CHAT: Json = {
    "model": "m",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": "", "tool_calls": [], "tool_call": 1, "provider_specific_fields": {}},
        {"role": "user", "content": "and?", "tool_call": 2},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"anything": 1}}, "cache_control": {}}],
    "typical_p": 0.1,
    "chat_template_kwargs": {"enable_thinking": False},
    "store": True,
}


def test_unknown_fields_are_carried_and_named() -> None:
    """At every depth, each path once; what is free-form stays as it is."""
    request = chat_request.request_from(json.dumps(CHAT).encode()).request
    assert request.vendor.vendor == "openai"
    assert request.vendor.names == [
        "store",
        "messages[].tool_call",
        "messages[].provider_specific_fields",
        "typical_p",
        "chat_template_kwargs",
    ]
    assert json.loads(request.vendor.json) == {
        "typical_p": 0.1,
        "chat_template_kwargs": {"enable_thinking": False},
        "store": True,
    }
    assert json.loads(request.messages[1].vendor.json) == {"tool_call": 1, "provider_specific_fields": {}}
    part = request.messages[0].parts[0]
    assert (part.text, part.cache) == ("hi", True)
    assert json.loads(part.vendor.json) == {"cache_control": {"type": "ephemeral"}}
    assert request.tools[0].parameters_json == '{"anything":1}'
    assert (request.tools[0].cache, json.loads(request.tools[0].vendor.json)) == (True, {"cache_control": {}})


def test_a_known_field_is_checked_all_the_same() -> None:
    """Beside an unknown one too."""
    with pytest.raises(InvalidField, match="temperature"):
        chat_request.request_from(json.dumps({**CHAT, "temperature": 9}).encode())


def test_biases_are_read_beside_an_unknown_field() -> None:
    """Their names are numbers, which JSON writes as texts."""
    body = {**CHAT, "logit_bias": {"50256": -100}}
    assert dict(chat_request.request_from(json.dumps(body).encode()).request.sampling.logit_bias) == {50256: -100}


HELLO: Json = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    "given",
    [
        {"max_tokens": -1},
        {"max_tokens": -1, "max_completion_tokens": -1},
        {"top_k": -1},
        {"top_k": 0},
        {"top_logprobs": 0},
    ],
)
def test_the_ways_to_say_none_are_none(given: Json) -> None:
    """LM Studio's clients send no bound as -1, vLLM's and llama.cpp's no top_k as -1 or 0."""
    request = chat_request.request_from(json.dumps({**HELLO, **given}).encode()).request
    assert request == chat_request.request_from(json.dumps(HELLO).encode()).request


@pytest.mark.parametrize("given", [{"max_tokens": 0}, {"max_tokens": -2}, {"max_completion_tokens": 0}, {"top_k": -2}])
def test_what_says_nothing_is_refused(given: Json) -> None:
    """An answer of no tokens, and numbers that no server gives a meaning."""
    with pytest.raises(InvalidField, match=next(iter(given))):
        chat_request.request_from(json.dumps({**HELLO, **given}).encode())


@pytest.mark.parametrize(
    ("arguments", "kept"), [('{"a":1}', '{"a":1}'), ({"a": 1}, '{"a":1}'), ("", ""), (None, ""), ({}, "{}")]
)
def test_a_call_given_back_has_its_arguments_in_any_form(arguments: Any, kept: str) -> None:
    """Some clients send the object instead of its text, or nothing for no arguments."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    turns = [*HELLO["messages"], {"role": "assistant", "content": None, "tool_calls": [call]}]
    request = chat_request.request_from(json.dumps({**HELLO, "messages": turns}).encode()).request
    assert request.messages[1].parts[0].tool_call.arguments_json == kept


def test_an_answer_without_words_is_taken_back() -> None:
    """What was cut before its first word has no content."""
    turns = [*HELLO["messages"], {"role": "assistant", "content": None}, *HELLO["messages"]]
    request = chat_request.request_from(json.dumps({**HELLO, "messages": turns}).encode()).request
    assert [part.text for part in request.messages[1].parts] == [""]


def test_image_bodies_are_read_alike() -> None:
    """The image paths of the same dialect follow the same rule; whoever answers says what is ignored, or refuses it."""
    body = b'{"prompt":"a cat","cfg_scale":7}'
    for strict in (False, True):
        request, wanted = image_request.request_from(body, "application/json", "generation", strict=strict)
        assert (list(request.vendor.names), request.strict, wanted.ignored) == (["cfg_scale"], strict, [])


_GOOGLE = msgspec.json.Decoder(bodies.GenerateContentBody)


@pytest.mark.parametrize("config", ["generation_config", "generationConfig"])
def test_google_bodies_are_read_in_either_spelling(config: str) -> None:
    """Unknown fields hide no field that is known in its other spelling."""
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}], "mood": 1}], config: {"topQ": 1, "top_p": 0.5}}
    read, ignored, extra = parse_liberally(json.dumps(body).encode(), _GOOGLE, parse=parse_either, respell=respelled)
    assert ignored == ["contents[].mood", "generationConfig.topQ"]
    assert extra == {"contents": {0: {"mood": 1}}, "generationConfig": {"topQ": 1}}
    assert read.generation_config is not None
    assert getattr(read.generation_config, "top_p") == 0.5  # noqa: B009  # a field that is made of the contract


def test_what_an_answer_is_made_of_is_not_left_out() -> None:
    """A kind of part or of tool that nobody knows is Google's own: a part and a tool, not a hint."""
    body = {
        "contents": [{"role": "user", "parts": [{"text": "hi"}, {"hologram": {"size": 1}}]}],
        "tools": [{"orrery": {}}],
    }
    asked = requests_of_google.asked(json.dumps(body).encode(), "m", "text", stream=False)
    assert asked.text is not None
    _, part = asked.text.messages[0].parts
    assert (part.WhichOneof("part"), json.loads(part.vendor.json)) == (None, {"hologram": {"size": 1}})
    (tool,) = asked.text.tools
    assert (tool.name, json.loads(tool.vendor.json)) == ("", {"orrery": {}})


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text(), max_size=50))
def test_any_fields_are_named_for_a_header(fields: Json) -> None:
    """However they are called, and no more than a header should hold."""
    body = {**fields, "model": "m", "messages": [{"role": "user", "content": "hi"}]}
    known = set(ChatBody.__struct_encode_fields__)
    body = {k: v for k, v in body.items() if k not in known or k in ("model", "messages")}
    ignored = list(chat_request.request_from(json.dumps(body).encode()).request.vendor.names)
    assert len(ignored) == min(MOST_NAMED, len({_shown(name) for name in body} - {"model", "messages"}))
    ", ".join(ignored).encode("ascii")
    assert all(name.isprintable() for name in ignored)


def _shown(name: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() and c != "," else "?" for c in name[:100])


def test_the_wish_is_a_header(url: str, played: Played) -> None:
    """`moa-parameters: strict` over HTTP reaches whoever answers; without it the header names what had no effect."""
    body = {"model": "smart", "messages": [{"role": "user", "content": "hi"}], "typical_p": 0.1}
    ask = {"headers": {"x-api-key": KEY}, "json": body, "timeout": 10}
    told = requests.post(f"{url}/v1/chat/completions", **ask)  # type: ignore[arg-type]
    assert (told.status_code, told.headers["x-moa-ignored"]) == (200, "typical_p")
    ask["headers"] = {"x-api-key": KEY, "moa-parameters": "strict"}
    requests.post(f"{url}/v1/chat/completions", **ask)  # type: ignore[arg-type]
    assert [request.strict for request in played.texts] == [False, True]
    ask["headers"] = {"x-api-key": KEY, "moa-parameters": "loose"}
    refused = requests.post(f"{url}/v1/chat/completions", **ask)  # type: ignore[arg-type]
    assert refused.status_code == 400
    assert "moa-parameters may only be strict" in refused.json()["error"]["message"]


def test_the_header_names_what_whoever_answers_ignored(url: str, played: Played) -> None:
    """In the caller's words, instead of all that only a vendor knows; a nearest value with the value."""
    started = text_pb2.Started(ignored=["reasoning.effort=high", "tool_choice.parallel", "temperature"])
    played.script = [text(text_pb2.TextEvent(started=started), said("hi")), ended()]
    body = {"model": "smart", "messages": [{"role": "user", "content": "hi"}], "typical_p": 0.1}
    told = requests.post(f"{url}/v1/chat/completions", json=body, headers={"x-api-key": KEY}, timeout=60)
    assert told.headers["x-moa-ignored"] == "reasoning_effort=high, parallel_tool_calls, temperature"
    assert told.json()["choices"][0]["message"]["content"] == "hi"
