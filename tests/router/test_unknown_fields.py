"""Fields of generations that nobody here knows: left out and named, or refused where the caller says so."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidField
from services.router.dialects.google import bodies
from services.router.dialects.google.spelling import parse_either, respelled
from services.router.dialects.openai import chat_request, image_request
from services.router.dialects.openai.bodies import ChatBody
from services.router.dialects.unknown import MOST_NAMED, parse_liberally
from tests.router.rig import KEY, Played

Json = dict[str, Any]

CHAT: Json = {
    "model": "m",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": "", "tool_calls": [], "tool_call": 1, "provider_specific_fields": {}},
        {"role": "user", "content": "and?", "tool_call": 2},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"anything": 1}}, "cache_control": {}}],
    "min_p": 0.1,
    "chat_template_kwargs": {"enable_thinking": False},
    "store": False,
}


def test_unknown_fields_are_left_out_and_named() -> None:
    """At every depth, each path once; what is free-form stays as it is."""
    read = chat_request.request_from(json.dumps(CHAT).encode())
    assert read.ignored == [
        "store",
        "messages[].content[].cache_control",
        "messages[].tool_call",
        "messages[].provider_specific_fields",
        "tools[].cache_control",
        "min_p",
        "chat_template_kwargs",
    ]
    assert read.request.messages[0].parts[0].text == "hi"
    assert read.request.tools[0].parameters_json == '{"anything":1}'


def test_a_known_field_is_checked_all_the_same() -> None:
    """Beside an unknown one too."""
    with pytest.raises(InvalidField, match="temperature"):
        chat_request.request_from(json.dumps({**CHAT, "temperature": 9}).encode())


@pytest.mark.parametrize("more", [{"store": False}, {"min_p": 0.1}, {"tools": CHAT["tools"]}])
def test_a_strict_caller_is_refused(more: Json) -> None:
    """What would have no effect is refused by name, whether it is known or not."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}
    assert chat_request.request_from(json.dumps(body).encode()).ignored
    with pytest.raises(InvalidField) as refused:
        chat_request.request_from(json.dumps(body).encode(), strict=True)
    assert refused.value.param in ("store", "min_p", "tools[0].cache_control")


def test_image_bodies_are_read_alike() -> None:
    """The image paths of the same dialect follow the same rule."""
    body = b'{"prompt":"a cat","cfg_scale":7}'
    assert image_request.request_from(body, "application/json", "generation")[1].ignored == ["cfg_scale"]
    with pytest.raises(InvalidField, match="cfg_scale"):
        image_request.request_from(body, "application/json", "generation", strict=True)


_GOOGLE = msgspec.json.Decoder(bodies.Body)


@pytest.mark.parametrize("config", ["generation_config", "generationConfig"])
def test_google_bodies_are_read_in_either_spelling(config: str) -> None:
    """Unknown fields hide no field that is known in its other spelling."""
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}], "mood": 1}], config: {"topQ": 1, "top_p": 0.5}}
    read, ignored = parse_liberally(
        json.dumps(body).encode(), _GOOGLE, strict=False, parse=parse_either, respell=respelled
    )
    assert ignored == ["contents[].mood", "generationConfig.topQ"]
    assert read.generation_config is not None
    assert read.generation_config.top_p == 0.5


@pytest.mark.parametrize(
    "body",
    [
        {"contents": [{"role": "user", "parts": [{"text": "hi", "hologram": {}}]}]},
        {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "tools": [{"mcpServers": []}]},
    ],
)
def test_what_an_answer_is_made_of_is_refused(body: Json) -> None:
    """A kind of part or of tool that nobody knows changes what the answer means."""
    with pytest.raises(InvalidField, match=r"hologram|mcpServers"):
        parse_liberally(json.dumps(body).encode(), _GOOGLE, strict=False, parse=parse_either, respell=respelled)


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text(), max_size=50))
def test_any_fields_are_named_for_a_header(fields: Json) -> None:
    """However they are called, and no more than a header should hold."""
    body = {**fields, "model": "m", "messages": [{"role": "user", "content": "hi"}]}
    known = set(ChatBody.__struct_encode_fields__)
    body = {k: v for k, v in body.items() if k not in known or k in ("model", "messages")}
    ignored = chat_request.request_from(json.dumps(body).encode()).ignored
    assert len(ignored) == min(MOST_NAMED, len({_shown(name) for name in body} - {"model", "messages"}))
    ", ".join(ignored).encode("ascii")
    assert all(name.isprintable() for name in ignored)


def _shown(name: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() and c != "," else "?" for c in name[:100])


def test_the_wish_is_a_header(url: str, played: Played) -> None:
    """`moa-parameters: strict` over HTTP, named in the answer without it; another wish is refused by name."""
    body = {"model": "smart", "messages": [{"role": "user", "content": "hi"}], "min_p": 0.1}
    ask = {"headers": {"x-api-key": KEY}, "json": body, "timeout": 10}
    told = requests.post(f"{url}/v1/chat/completions", **ask)  # type: ignore[arg-type]
    assert (told.status_code, told.headers["x-moa-ignored"]) == (200, "min_p")
    for wish, words in (("strict", "min_p"), ("loose", "moa-parameters may only be strict")):
        ask["headers"] = {"x-api-key": KEY, "moa-parameters": wish}
        refused = requests.post(f"{url}/v1/chat/completions", **ask)  # type: ignore[arg-type]
        assert refused.status_code == 400
        assert words in refused.json()["error"]["message"]
