"""Anthropic's messages: what a body becomes, and what an answer is shown as."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import pytest
import requests

from moa.text.v1 import text_pb2
from services.common.errors import InvalidField, MoaError, RateLimited, Unsupported
from services.router.dialects.anthropic import message_request
from services.router.dialects.anthropic.places import as_the_caller_counts
from services.router.dialects.tools import signed_id
from tests.dialects import anthropic
from tests.dialects.anthropic import RIG
from tests.router.anthropic_events import check_message
from tests.router.anthropic_replies import HI, read
from tests.router.rig import KEY, Played, picture

PIXELS: Final = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(picture()).decode()}
PDF: Final = {"type": "base64", "media_type": "application/pdf", "data": base64.b64encode(b"%PDF-1").decode()}
TOOL: Final = {"name": "f", "description": "does", "input_schema": {"type": "object"}}


# What a body becomes.


def test_instructions_are_a_message_of_their_own() -> None:
    """A string, or texts, the marks of which are kept."""
    assert read(system="be kind").messages[0] == text_pb2.Message(
        role=text_pb2.ROLE_SYSTEM, parts=[text_pb2.Part(text="be kind")]
    )
    marked = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}]
    parts = read(system=marked).messages[0].parts
    assert [(part.text, part.cache, part.HasField("vendor")) for part in parts] == [
        ("a", False, False),
        ("b", True, False),
    ]


def test_settings_are_the_contracts() -> None:
    """Bounds, sampling, stops, the end user, and no need of `max_tokens`."""
    made = read(
        max_tokens=7,
        temperature=0.5,
        top_p=0.25,
        top_k=3,
        stop_sequences=["a"],
        metadata={"user_id": "u"},
        stream=True,
    )
    assert (made.max_tokens, list(made.stop), made.user, made.stream) == (7, ["a"], "u", True)
    assert (made.sampling.temperature, made.sampling.top_p, made.sampling.top_k) == (0.5, 0.25, 3)
    assert not read().HasField("max_tokens")
    assert not read(top_k=0).sampling.HasField("top_k")


def test_a_call_and_its_result_come_back() -> None:
    """Signed calls and reasoning are what they were; a result knows its function, and shows its image behind it."""
    result = [{"type": "text", "text": "seen"}, {"type": "image", "source": PIXELS}]
    turns = [
        *HI,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "redacted_thinking", "data": "secret"},
                {"type": "tool_use", "id": signed_id("c1", b"g"), "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": signed_id("c1", b"g"), "content": result, "is_error": True},
                {"type": "text", "text": "and?"},
            ],
        },
    ]
    made = read(messages=turns, tools=[TOOL])
    assert [text_pb2.Role.Name(m.role)[5:] for m in made.messages] == ["USER", "ASSISTANT", "TOOL", "USER", "USER"]
    open_thought, closed, call = made.messages[1].parts
    assert (open_thought.reasoning.text, open_thought.reasoning.signature) == ("hm", b"sig")
    assert (closed.reasoning.signature, closed.reasoning.signer) == (b"secret", "anthropic")
    assert call.tool_call == text_pb2.ToolCall(
        id="c1", name="f", arguments_json='{"a":1}', signature=b"g", signer="google"
    )
    assert made.messages[2].parts[0].tool_result == text_pb2.ToolResult(
        tool_call_id="c1", name="f", content="seen", is_error=True
    )
    assert made.messages[3].parts[1].image.mime_type == "image/png"
    assert made.messages[4].parts[0].text == "and?"


def test_documents_are_files_or_text() -> None:
    """A PDF is a file, by its bytes or a link; a text is told with its title."""
    content = [
        {"type": "document", "source": PDF, "title": "a.pdf"},
        {"type": "document", "source": {"type": "url", "url": "https://x.org/a.pdf"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}, "title": "T"},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a"}]}},
    ]
    parts = read(messages=[{"role": "user", "content": content}]).messages[0].parts
    assert (parts[0].file.data, parts[0].file.mime_type, parts[0].file.name) == (b"%PDF-1", "application/pdf", "a.pdf")
    assert parts[1].file.url == "https://x.org/a.pdf"
    assert parts[2].text == "<document>\nTitle: T\nwords\n</document>"
    assert parts[3].text == "<document>\na\n</document>"


@pytest.mark.parametrize(
    ("choice", "mode", "parallel"),
    [
        ({"type": "auto", "disable_parallel_tool_use": True}, "MODE_AUTO", False),
        ({"type": "any", "disable_parallel_tool_use": False}, "MODE_REQUIRED", True),
        ({"type": "tool", "name": "f"}, "MODE_NAMED", None),
        ({"type": "none"}, "MODE_NONE", None),
    ],
)
def test_a_choice_of_tools(choice: Any, mode: str, parallel: bool | None) -> None:
    """Each of Anthropic's is one of the contract's, and parallel calls are switched off by their opposite."""
    made = read(tools=[TOOL], tool_choice=choice).tool_choice
    assert text_pb2.ToolChoice.Mode.Name(made.mode) == mode
    assert (made.parallel if made.HasField("parallel") else None) == parallel
    assert made.name == choice.get("name", "")


@pytest.mark.parametrize(
    ("body", "effort", "budget", "include"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "UNSPECIFIED", 2048, True),
        ({"thinking": {"type": "adaptive"}}, "HIGH", 0, True),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "LOW", 0, True),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}}, "NONE", 0, False),
        ({"output_config": {"effort": "max"}}, "XHIGH", 0, False),
        ({}, "UNSPECIFIED", 0, False),
    ],
)
def test_thinking_is_reasoning(body: Any, effort: str, budget: int, include: bool) -> None:
    """Budgets and efforts; what is thought is shown to who asked for thinking."""
    made = read(**body).reasoning
    named = text_pb2.ReasoningOptions.Effort.Name(made.effort).removeprefix("EFFORT_")
    assert (named, made.budget_tokens, made.include) == (effort, budget, include)


@pytest.mark.parametrize("name", ["output_format", "output_config"])
def test_a_schema_is_the_answers_form(name: str) -> None:
    """By its new name, and by the one before."""
    form = {"type": "json_schema", "schema": {"type": "object"}}
    made = read(**{name: form if name == "output_format" else {"format": form}}).response_format
    assert (made.kind, made.schema_json) == (text_pb2.ResponseFormat.KIND_JSON_SCHEMA, '{"type":"object"}')


def test_what_only_anthropic_knows_is_carried() -> None:
    """Hints are named for others; tools and blocks of its own kinds are whole, and refused elsewhere."""
    made = read(
        betas=["b1"],
        container="c",
        service_tier="auto",
        odd=1,
        mcp_servers=[{"url": "https://x.org"}],
        tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}],
        messages=[{"role": "user", "content": [{"type": "search_result", "source": {"a": 1}, "title": "T", "new": 2}]}],
    )
    fields = json.loads(made.vendor.json)
    assert (fields["container"], fields["service_tier"], fields["odd"]) == ("c", "auto", 1)
    assert fields["anthropic-beta"] == ["b1"]
    assert "service_tier" not in made.vendor.names
    assert {"container", "odd", "anthropic-beta"} <= set(made.vendor.names)
    assert [json.loads(tool.vendor.json) for tool in made.tools] == [
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
        {"mcp_servers": [{"url": "https://x.org"}]},
    ]
    (part,) = made.messages[0].parts
    assert part.WhichOneof("part") is None
    assert json.loads(part.vendor.json) == {"type": "search_result", "source": {"a": 1}, "title": "T", "new": 2}
    named = [list(part.vendor.names), *(list(tool.vendor.names) for tool in made.tools)]
    assert named == [["search_result"], ["web_search_20250305"], ["mcp_servers"]]


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ({"max_tokens": 0}, InvalidField, "max_tokens"),
        ({"messages": [{"role": "user", "content": []}]}, InvalidField, "messages[0].content is required"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, InvalidField, "content[0].text is required"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "x"}}]}
                ]
            },
            Unsupported,
            "files by their id",
        ),
        ({"tools": [{"input_schema": {}}]}, InvalidField, "tools[0].name is required"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, InvalidField, "tool_choice.name is required"),
        ({"tool_choice": {"type": "any"}}, InvalidField, "tool_choice: there are no tools"),
        ({"tool_choice": {"type": "tool", "name": "f"}}, InvalidField, "tool_choice: there are no tools"),
        ({"system": [{"type": "image", "source": PIXELS}]}, Unsupported, "system[0]: only text"),
    ],
)
def test_what_is_wrong_is_named(body: Any, kind: type[MoaError], message: str) -> None:
    """By the path that it has in the caller's body."""
    with pytest.raises(kind) as caught:
        read(**body)
    assert message in caught.value.message


# Through the edge.


def test_a_count_and_headers(url: str, played: Played) -> None:
    """The prompt's tokens; what has no effect, what is left of limits, and the request's id have this API's names."""
    headers = {"x-api-key": KEY, **anthropic.VERSION, "anthropic-beta": "one, two"}
    body = {"model": "smart", "messages": HI, "container": "c"}
    counted = requests.post(f"{url}/v1/messages/count_tokens", json=body, headers=headers, timeout=60)
    assert counted.json() == {"input_tokens": 42}
    made = requests.post(f"{url}/v1/messages", json=body, headers=headers, timeout=60)
    check_message(made.json())
    assert made.headers["x-moa-ignored"] == "container, anthropic-beta"
    assert made.headers["request-id"] == made.headers["x-request-id"]
    assert int(made.headers["anthropic-ratelimit-tokens-limit"]) == int(made.headers["x-ratelimit-limit-tokens"])
    assert made.headers["anthropic-ratelimit-tokens-reset"].endswith("Z")
    assert json.loads(played.texts[-1].vendor.json)["anthropic-beta"] == ["one", "two"]


def test_a_refusal_tells_what_is_left_of_limits_in_anthropics_names(url: str, played: Played) -> None:
    """Beside the names that every dialect has; resets are times there."""
    refusal = RateLimited("slow down", retry_after_s=7)
    refusal.headers = (("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "60s"))
    played.refusal = refusal
    asked = RIG.text("smart", "x")
    answer = requests.post(url + asked.path, headers={"x-api-key": KEY}, timeout=60, **asked.how)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert answer.headers["anthropic-ratelimit-requests-reset"].endswith("Z")


def test_models_in_anthropics_form(url: str) -> None:
    """Those that make text, by pages forwards and backwards; the header decides, not the key."""
    headers = {"x-api-key": KEY, **anthropic.VERSION}

    def page(**asked: Any) -> Any:
        return requests.get(f"{url}/v1/models", params=asked, headers=headers, timeout=60).json()

    everything = page(limit=1000)
    names = [model["id"] for model in everything["data"]]
    assert "smart" in names
    assert not {"gemini-2.5-flash-image", "encoder"} & set(names)
    assert (everything["has_more"], everything["first_id"], everything["last_id"]) == (False, names[0], names[-1])
    first = page(limit=2)
    assert ([model["id"] for model in first["data"]], first["has_more"]) == (names[:2], True)
    second = page(limit=2, after_id=first["last_id"])
    assert [model["id"] for model in second["data"]] == names[2:4]
    back = page(limit=2, before_id=second["first_id"])
    assert ([model["id"] for model in back["data"]], back["has_more"]) == (names[:2], False)
    assert page(after_id="absent")["error"]["type"] == "invalid_request_error"
    assert page(limit=0)["error"]["message"] == page(limit=1001)["error"]["message"] == "limit must be from 1 to 1000"
    for limit in ("many", "", "2.5"):
        error = page(limit=limit)["error"]
        assert (error["type"], "limit must be a whole number" in error["message"]) == ("invalid_request_error", True)
    one = requests.get(f"{url}/v1/models/smart", headers=headers, timeout=60).json()
    assert (one["type"], one["created_at"], one["max_input_tokens"]) == ("model", "2023-11-14T22:13:20Z", 1000)
    assert one["capabilities"]["image_input"] == one["capabilities"]["batch"] == {"supported": True}
    assert requests.get(f"{url}/v1/models", headers={"x-api-key": KEY}, timeout=60).json()["object"] == "list"


@pytest.mark.parametrize(
    ("param", "told"),
    [
        ("messages[0].parts[0]", "system"),
        ("messages[1].parts[0].text", "messages[0].parts[0].text"),
        ("messages[2].parts[0]", "messages[1].parts[0]"),
        ("messages[3].parts[1].image", "messages[1].parts[0].image"),
        ("messages[4].parts[0]", "messages[1].parts[1]"),
        ("messages[4]", "messages[1]"),
        ("messages[9]", "messages[9]"),
        ("stop", "stop"),
    ],
)
def test_an_error_names_the_callers_turn_and_block(param: str, told: str) -> None:
    """Whatever turns were split, and added, on the way to the contract."""
    result = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "image", "source": PIXELS}]}
    body = {"system": "s", "messages": [*HI, {"role": "user", "content": [result, {"type": "text", "text": "and?"}]}]}
    (made, _) = message_request.read(json.dumps({"model": "m", **body}).encode())
    with pytest.raises(InvalidField) as caught, as_the_caller_counts(made.places):
        raise InvalidField(f"{param}: no", param=param)
    assert (caught.value.param, caught.value.message) == (told, f"{told}: no")
