"""Between callers who speak Anthropic's API and Anthropic: all comes through as it was, but for what is denied."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, Final

import pytest

from moa.text.v1.text_service_pb2 import CountTokensRequest
from services.catalogue import Model, Provider
from services.catalogue._limits import Limits
from services.common.errors import TooLarge, Unsupported, UpstreamBroken
from services.common.vendor_fields import MOST_BYTES
from services.providers.anthropic.text.request import count_request_from, request_from
from services.providers.text.ignored import Ignored
from services.providers.text.searches import SEARCHED
from services.router.dialects.anthropic import message_request
from services.text.capable import check
from services.text.targets import ADAPTERS
from tests.counters import count_of
from tests.router.anthropic_events import check_message, check_stream
from tests.router.passage import outcome
from tests.router.recordings import Recording, Said
from tests.router.rig import picture

ABLE: Final = frozenset({"vision", "tools", "reasoning", "json_schema", "files", "search"})
CLAUDE: Final = Model(id="m", provider="p", capabilities=ABLE, limits=Limits(thinking="adaptive"))
OLDER: Final = Model(id="m", provider="p", capabilities=ABLE)
PROVIDER: Final = Provider(id="p", adapter="anthropic", makes="text", base_url="https://x.org")
PNG: Final = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(picture()).decode()}
PDF: Final = {"type": "base64", "media_type": "application/pdf", "data": base64.b64encode(b"%PDF-1").decode()}
MARK: Final = {"type": "ephemeral"}
Json = dict[str, Any]


def user(*content: Json) -> Json:
    return {"role": "user", "content": list(content)}


HI: Final = user({"type": "text", "text": "hi"})
TOOL: Final = {"name": "f", "description": "does", "input_schema": {"type": "object", "properties": {}}}
TURNS: Final = [
    HI,
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "ZGF0YQ=="},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
        ],
    },
    user(
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "no", "is_error": True},
        {"type": "text", "text": "and?"},
    ),
]
PASSING: Final[dict[str, Json]] = {
    "settings": {"stop_sequences": ["a"], "top_k": 3, "top_p": 0.5, "temperature": 0.25, "metadata": {"user_id": "u"}},
    "a stream": {"stream": True},
    "instructions": {"system": [{"type": "text", "text": "a", "cache_control": MARK}, {"type": "text", "text": "b"}]},
    "turns": {"messages": TURNS, "tools": [{**TOOL, "strict": True, "cache_control": MARK}]},
    "choices": {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}},
    "pictures": {"messages": [user({"type": "image", "source": PNG, "cache_control": MARK})]},
    "documents": {
        "messages": [
            user(
                {"type": "document", "source": PDF, "title": "T", "context": "C", "citations": {"enabled": True}},
                {"type": "document", "source": {"type": "url", "url": "https://x.org/a.pdf"}},
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "some words"},
                    "title": "T",
                    "context": "C",
                    "citations": {"enabled": True},
                    "cache_control": MARK,
                },
                {
                    "type": "document",
                    "source": {"type": "content", "content": [{"type": "text", "text": each} for each in ("a", "bc")]},
                },
            )
        ]
    },
    "adaptive": {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "max"}},
    "no thinking": {"thinking": {"type": "disabled"}},
    "between tools": {"thinking": {"type": "between_tools"}, "output_config": {"effort": "low"}},
    "an effort": {"output_config": {"effort": "xhigh"}},
    "a form": {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
    "its own": {
        "container": "c",
        "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
        "service_tier": "standard_only",
        "cache_control": MARK,
        "next_years": {"a": [1]},
        "mcp_servers": [{"type": "url", "url": "https://x.org/mcp", "name": "x"}],
        "tools": [
            TOOL,
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
            {"type": "bash_20250124", "name": "bash"},
            {"name": "g", "input_schema": {"type": "object"}, "defer_loading": True, "input_examples": [{"a": 1}]},
        ],
        "messages": [
            user(
                {"type": "search_result", "source": "s", "title": "T", "content": [{"type": "text", "text": "x"}]},
                {"type": "container_upload", "file_id": "f"},
            ),
            {
                "role": "assistant",
                "content": [
                    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
                    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"encrypted": "e"}]},
                    {"type": "text", "text": "so", "citations": [{"type": "web_search_result_location"}]},
                ],
            },
            HI,
        ],
    },
}


def passed(body: Json, *, betas: tuple[str, ...] = (), model: Model = CLAUDE) -> tuple[Json, Json, list[str]]:
    """Return the body and the headers that Anthropic is sent, and what was ignored."""
    data = json.dumps({"model": "m", "max_tokens": 4096, "messages": [HI], **body}).encode()
    request = message_request.read(data, betas=betas)[0].request
    ignored = Ignored.of(request)
    check(request, model, ADAPTERS["anthropic"], ignored)
    made = request_from(request, model, PROVIDER, ignored)
    return json.loads(bytes(made.body)), dict(made.headers), ignored.names


@pytest.mark.parametrize("name", PASSING)
def test_what_is_sent_is_what_the_caller_said(name: str) -> None:
    """To the letter: what the contract types, and what it does not."""
    asked = {"model": "m", "max_tokens": 4096, "messages": [HI], **PASSING[name]}
    body, _, ignored = passed(PASSING[name])
    assert body == asked
    assert ignored == []


def test_a_budget_is_passed_to_models_that_take_budgets() -> None:
    """With what the caller says of how thoughts are shown."""
    thinking = {"type": "enabled", "budget_tokens": 2048, "display": "omitted"}
    assert passed({"thinking": thinking}, model=OLDER)[0]["thinking"] == thinking


def test_betas_are_asked_for_in_the_header() -> None:
    """But for those that cost more, which are named."""
    _, headers, ignored = passed({}, betas=("context-management-2025-06-27", "fast-mode-2026-02-01"))
    assert headers == {"anthropic-beta": "context-management-2025-06-27"}
    assert ignored == ["anthropic-beta"]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"speed": "fast"}, "speed"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"cache_control": {**MARK, "ttl": "1h"}}, "cache_control.ttl"),
        ({"system": [{"type": "text", "text": "a", "cache_control": {**MARK, "ttl": "1h"}}]}, "cache_control.ttl"),
    ],
)
def test_what_costs_more_than_is_counted_does_not_pass(body: Json, name: str) -> None:
    """And is named."""
    sent, _, ignored = passed(body)
    assert ignored == [name]
    assert "1h" not in json.dumps(sent)
    assert not {"speed", "inference_geo"} & set(sent)


def test_searches_need_a_model_that_may_search() -> None:
    """Anthropic bills them apart."""
    tool = {"type": "web_search_20260209", "name": "web_search"}
    with pytest.raises(Unsupported, match="does not search the web"):
        passed({"tools": [tool]}, model=Model(id="m", provider="p", capabilities=ABLE - {"search"}))


@pytest.mark.parametrize("adapter", ["openai", "gemini", "bedrock"])
def test_other_vendors_refuse_its_own_tools_and_blocks_and_ignore_the_rest(adapter: str) -> None:
    """What changes the answer's meaning by name, hints with their names."""
    own: list[Json] = [{"tools": PASSING["its own"]["tools"]}, {"messages": PASSING["its own"]["messages"]}]
    own.append({"mcp_servers": PASSING["its own"]["mcp_servers"]})
    for body in own:
        data = json.dumps({"model": "m", "messages": [HI], **body}).encode()
        request = message_request.read(data)[0].request
        with pytest.raises(Unsupported, match=r"anthropic"):
            check(request, CLAUDE, ADAPTERS[adapter], Ignored())
    hints = {"container": "c", "context_management": {}, "next_years": 1}
    request = message_request.read(json.dumps({"model": "m", "messages": [HI], **hints}).encode(), betas=["b"])[
        0
    ].request
    ignored = Ignored()
    check(request, CLAUDE, ADAPTERS[adapter], ignored)
    assert ignored.names == ["container", "context_management", "next_years", "anthropic-beta"]


def test_what_is_carried_has_a_bound() -> None:
    """Of a request together."""
    with pytest.raises(TooLarge, match="fields of Anthropic's own"):
        passed({"next_years": "x" * MOST_BYTES})


def test_a_count_is_asked_of_all_of_the_prompt() -> None:
    """Tools and blocks of Anthropic's own kinds are counted too."""
    asked = {"model": "m", "messages": TURNS, "tools": [TOOL, {"type": "bash_20250124", "name": "bash"}]}
    request = message_request.counted(json.dumps(asked).encode()).request
    assert isinstance(request, CountTokensRequest)
    assert json.loads(bytes(count_request_from(request, CLAUDE, PROVIDER).body)) == asked


SOURCE: Final = {"type": "web_search_result_location", "url": "https://x.org", "cited_text": "so"}
USAGE: Final = {
    "input_tokens": 5,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 7,
    "server_tool_use": {"web_search_requests": 2},
    "service_tier": "standard",
}
BLOCKS: Final[list[Json]] = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"type": "web_search_result"}]},
    {"type": "text", "text": "It is "},
    {"type": "text", "text": "so", "citations": [SOURCE]},
    {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}, "caller": {"type": "direct"}},
]
MESSAGE: Final[Json] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": BLOCKS,
    "stop_reason": "pause_turn",
    "stop_sequence": None,
    "container": {"id": "c", "expires_at": "2026-12-01T00:00:00Z"},
    "usage": USAGE,
}


def streamed() -> list[Json]:
    """Return the message as the events of a stream."""
    begun = {**MESSAGE, "content": [], "stop_reason": None, "usage": {**USAGE, "output_tokens": 0}}
    del begun["container"]
    events: list[Json] = [{"type": "message_start", "message": begun}]
    for place, block in enumerate(BLOCKS):
        start, deltas = dict(block), []
        if block["type"] == "text":
            start = {"type": "text", "text": ""}
            deltas = [{"type": "citations_delta", "citation": each} for each in block.get("citations", ())]
            deltas.insert(0, {"type": "text_delta", "text": block["text"]})
        elif block["type"] == "server_tool_use":
            start["input"] = {}
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ('{"query"', ': "q"}')]
        events.append({"type": "content_block_start", "index": place, "content_block": start})
        events += [{"type": "content_block_delta", "index": place, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": place})
    ended = {"stop_reason": "pause_turn", "stop_sequence": None, "container": MESSAGE["container"]}
    last = {"type": "message_delta", "delta": ended, "usage": USAGE}
    return [*events, last, {"type": "message_stop"}]


RECORDINGS: Final = {
    "whole": Recording("anthropic", [MESSAGE], streamed=False, says=Said("")),
    "streamed": Recording("anthropic", streamed(), says=Said("")),
}


@pytest.mark.parametrize("form", RECORDINGS)
def test_an_answer_comes_through_as_it_was(form: str) -> None:
    """Searches, citations, containers, counts and pauses, whole and streamed, but for the answer's id."""
    before = count_of(SEARCHED.labels("m"))
    shown, error = asyncio.run(outcome(RECORDINGS[form], "anthropic", stream=False))
    assert error is None
    (message,) = shown
    check_message(message)
    # A call without arguments has none in a stream.
    assert message == {**MESSAGE, "id": "msg_r"}
    assert count_of(SEARCHED.labels("m")) == before + 2
    events, error = asyncio.run(outcome(RECORDINGS[form], "anthropic", stream=True))
    assert error is None
    check_stream(events)
    if form == "streamed":
        expected = streamed()
        # What the prompt came to is told once the first piece is in hand.
        expected[0]["message"] |= {"id": "msg_r", "usage": events[0]["message"]["usage"]}
        told = [event for event in events if event.get("delta", {}).get("partial_json") != "{}"]
        assert told == expected


@pytest.mark.parametrize(
    ("adapter", "sent"),
    [
        ("openai", '"file_data":"data:application/pdf;base64,JVBERi0x"'),
        ("gemini", '"inlineData":{"mimeType":"application/pdf","data":"JVBERi0x"}'),
        ("anthropic", '"source":{"type":"base64","media_type":"application/pdf","data":"JVBERi0x"}'),
    ],
)
def test_a_document_reaches_every_vendor_that_takes_files(adapter: str, sent: str) -> None:
    """In its own form; a document that is text reaches all others as text."""
    words = {"type": "text", "media_type": "text/plain", "data": "some words"}
    content = [{"type": "document", "source": PDF}, {"type": "document", "source": words, "title": "T"}]
    data = json.dumps({"model": "m", "messages": [user(*content)]}).encode()
    request = message_request.read(data)[0].request
    check(request, CLAUDE, ADAPTERS[adapter], Ignored())
    made = bytes(ADAPTERS[adapter].request_from(request, CLAUDE, PROVIDER, Ignored()).body).decode()
    assert sent in made.replace(": ", ":").replace(", ", ",")
    assert "some words" in made
    with pytest.raises(Unsupported, match="files"):
        check(request, Model(id="m", provider="p", capabilities=ABLE - {"files"}), ADAPTERS[adapter], Ignored())


@pytest.mark.parametrize(
    "piece",
    [
        {"type": "message_delta", "delta": {"stop_reason": ["end_turn"]}, "usage": []},
        {"type": "content_block_start", "index": 0, "content_block": {"type": ["text"]}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "x", "citations": "y"}},
    ],
)
def test_a_piece_of_other_types_is_read_or_is_a_broken_answer(piece: Json) -> None:
    """Whatever Anthropic answers, nothing of it is an error of this gateway's own."""
    recording = Recording("anthropic", [*streamed()[:5], piece, *streamed()[5:]], says=Said(""))
    for stream in (True, False):
        _, error = asyncio.run(outcome(recording, "anthropic", stream=stream))
        assert error is None or isinstance(error, UpstreamBroken)
