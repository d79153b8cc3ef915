"""Anthropic's messages: what a body becomes, and what an answer is shown as."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from moa.common.v1 import usage_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common.errors import InvalidField, MoaError, Unsupported, UpstreamBroken
from services.router.dialects.anthropic import message_reply, message_request, thoughts
from services.router.dialects.anthropic.places import as_the_caller_counts
from services.router.dialects.tools import signed_id
from tests.dialects import anthropic
from tests.router.anthropic_events import check_message, check_stream
from tests.router.rig import KEY, Played, called, picture, said, text

PIXELS: Final = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(picture()).decode()}
PDF: Final = {"type": "base64", "media_type": "application/pdf", "data": base64.b64encode(b"%PDF-1").decode()}
HI: Final = [{"role": "user", "content": "hi"}]
TOOL: Final = {"name": "f", "description": "does", "input_schema": {"type": "object"}}


def read(**body: Any) -> text_service_pb2.GenerateTextRequest:
    data = json.dumps({"model": "m", "messages": HI, **body}).encode()
    return message_request.read(data, betas=body.pop("betas", ()))[0].request


class Told:
    """An answer of these messages."""

    def __init__(self, messages: Sequence[text_service_pb2.GenerateTextResponse]) -> None:
        self.model = SimpleNamespace(id="m")
        self.usage = usage_pb2.Usage()
        self._left = list(messages)

    async def next(self) -> text_service_pb2.GenerateTextResponse | None:
        if not self._left:
            return None
        message = self._left.pop(0)
        for event in message.events:
            if event.HasField("finished"):
                self.usage = event.finished.usage
        return message


def whole(messages: Sequence[Any], **how: Any) -> Any:
    answer: Any = Told(messages)
    made = asyncio.run(message_reply.whole(answer, "r", **how))
    check_message(made)
    return made


def streamed(messages: Sequence[Any], **how: Any) -> list[Any]:
    answer: Any = Told(messages)
    events = message_reply.Events(answer, "r", **how)
    made = anthropic.events(b"".join(events.of(message) for message in messages).decode())
    check_stream(made)
    return made


def gathered(events: Sequence[Any]) -> list[Any]:
    """Return the content that a client gathers of a stream."""
    content: list[Any] = []
    for event in events:
        if event["type"] == "content_block_start":
            content.append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            block, delta = content[event["index"]], event["delta"]
            name = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}.get(
                delta["type"], "raw"
            )
            block[name] = block.get(name, "") + delta.get(name, delta.get("partial_json", ""))
    for block in content:
        if raw := block.pop("raw", ""):
            block["input"] = json.loads(raw)
    return content


def thought(piece: str = "", signature: bytes = b"", signer: str = "") -> text_pb2.TextEvent:
    return text_pb2.TextEvent(reasoning=text_pb2.ReasoningDelta(text=piece, signature=signature, signer=signer))


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
        ({"system": [{"type": "image", "source": PIXELS}]}, Unsupported, "system[0]: only text"),
    ],
)
def test_what_is_wrong_is_named(body: Any, kind: type[MoaError], message: str) -> None:
    """By the path that it has in the caller's body."""
    with pytest.raises(kind) as caught:
        read(**body)
    assert message in caught.value.message


# What an answer is shown as.

USAGE: Final = usage_pb2.Usage(
    prompt_tokens=10, completion_tokens=5, cached_tokens=3, cache_write_tokens=2, reasoning_tokens=1, exact=True
)


def finished(reason: Any = text_pb2.FINISH_REASON_STOP, **how: Any) -> Any:
    end = text_pb2.TextEvent(candidate_finished=text_pb2.CandidateFinished(reason=reason, **how))
    return text(end, text_pb2.TextEvent(finished=text_pb2.Finished(usage=USAGE)))


def test_usage_tells_the_cache_apart() -> None:
    """The prompt's count is without what came from a cache or went into one."""
    made = whole([text(said("x")), finished()])
    assert made["usage"] == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 2,
        "cache_read_input_tokens": 3,
        "output_tokens": 5,
        "output_tokens_details": {"thinking_tokens": 1},
    }
    assert streamed([text(said("x")), finished()])[-2]["usage"] == made["usage"]


@pytest.mark.parametrize(
    ("how", "reason", "sequence"),
    [
        ({}, "end_turn", None),
        ({"reason": text_pb2.FINISH_REASON_LENGTH}, "max_tokens", None),
        ({"reason": text_pb2.FINISH_REASON_TOOL_CALLS}, "tool_use", None),
        ({"reason": text_pb2.FINISH_REASON_CONTENT_FILTER}, "refusal", None),
        ({"stop_sequence": "END"}, "stop_sequence", "END"),
        ({"refusal": "I will not"}, "refusal", None),
    ],
)
def test_why_an_answer_ended(how: Any, reason: str, sequence: str | None) -> None:
    """The contract's reasons in Anthropic's words, whole and streamed; a refusal is told with its words."""
    for told in (whole([finished(**how)]), streamed([finished(**how)])[-2]["delta"]):
        assert (told["stop_reason"], told["stop_sequence"]) == (reason, sequence)
        if "refusal" in how:
            assert told["stop_details"] == {"type": "refusal", "category": None, "explanation": "I will not"}


@pytest.mark.parametrize("signer", ["anthropic", "google", "openai", ""])
@pytest.mark.parametrize("words", ["", "hm"])
def test_reasoning_survives_a_round_trip(signer: str, words: str) -> None:
    """Whoever signed it: what a client gives back as it came is what the model had said."""
    signature = b"sig" if signer else b""
    if not words and not signature:
        return
    made = [text(thought(words), thought("", signature, signer), said("x")), finished()]
    content = whole(made)["content"]
    assert content == gathered(streamed(made))
    block = content[0]
    assert block["type"] == ("thinking" if words else "redacted_thinking")
    back = read(messages=[*HI, {"role": "assistant", "content": content}]).messages[1].parts[0].reasoning
    assert back == text_pb2.ReasoningPart(text=words, signature=signature, signer=signer)


def test_a_thought_whose_text_was_left_out_keeps_its_form() -> None:
    """It is a thought without words, no redacted one, and comes back as such."""
    (block, _) = whole([text(thought("", thoughts.OMITTED + b"sig", "anthropic"), said("x")), finished()])["content"]
    assert block == {"type": "thinking", "thinking": "", "signature": "sig"}
    assert thoughts.part_from("", "sig").signature == thoughts.OMITTED + b"sig"


@pytest.mark.parametrize("signer", ["anthropic", "openai", ""])
def test_text_of_reasoning_is_left_out_where_that_is_asked_for(signer: str) -> None:
    """Its signature is not, and holds it: the model has the whole thought back."""
    signature = b"sig" if signer else b""
    made = [text(thought("h"), thought("m"), thought("", signature, signer), said("x")), finished()]
    content = whole(made, omits=True)["content"]
    assert (content[0]["type"], content[0]["thinking"]) == ("thinking", "")
    assert gathered(streamed(made, omits=True)) == content
    back = read(messages=[*HI, {"role": "assistant", "content": content}]).messages[1].parts[0].reasoning
    assert back == text_pb2.ReasoningPart(text="hm", signature=signature, signer=signer)


def test_calls_whose_pieces_are_mixed_come_one_after_another() -> None:
    """A later call waits for the end of the one before, and loses nothing."""
    pieces = [
        called(0, "f", '{"a"', "c0"),
        called(1, "g", "{", "c1"),
        called(0, arguments=": 1}"),
        called(1, arguments='"b": 2}'),
        called(2, "h", "", "c2"),
    ]
    made = [text(piece) for piece in pieces] + [finished(text_pb2.FINISH_REASON_TOOL_CALLS)]
    content = whole(made)["content"]
    assert [(block["id"], block["input"]) for block in content] == [("c0", {"a": 1}), ("c1", {"b": 2}), ("c2", {})]
    assert gathered(streamed(made)) == content


def test_a_call_that_goes_on_behind_its_end_is_a_broken_answer() -> None:
    """What cannot be shown is not dropped."""
    pieces = [called(0, "f", "{}", "c0"), called(1, "g", "{}", "c1"), called(0, arguments="more")]
    with pytest.raises(UpstreamBroken):
        whole([text(*pieces), finished()])


PIECES: Final = st.lists(
    st.one_of(
        st.text(max_size=3).map(said),
        st.text(min_size=1, max_size=3).map(thought),
        st.sampled_from(["anthropic", "google", "openai"]).map(lambda signer: thought("", b"s", signer)),
        st.just(thought("", thoughts.OMITTED + b"s", "anthropic")),
        st.tuples(st.integers(0, 2), st.sampled_from(["", "[1", ", 2]", '{"a": 1}'])),
    ),
    max_size=12,
)


@given(PIECES)
def test_every_stream_is_valid_and_gathers_to_the_whole(pieces: Sequence[Any]) -> None:
    """Whatever a model gives in whatever order: by the published types, in their order, and nothing is lost."""
    begun: set[int] = set()
    events = []
    for piece in pieces:
        if isinstance(piece, tuple):
            index, arguments = piece
            new = index not in begun
            begun.add(index)
            piece = called(index, "f" if new else "", arguments, f"c{index}" if new else "")
        events.append(text(piece))
    try:
        made = whole([*events, finished()])
    except UpstreamBroken:
        return
    shown = gathered_raw(streamed([*events, finished()]))
    assert [block["type"] for block in shown] == [block["type"] for block in made["content"]]
    said_text = "".join(event.text.text for each in events for event in each.events)
    assert "".join(block.get("text", "") for block in shown) == said_text
    assert "".join(block.get("text", "") for block in made["content"]) == said_text


def gathered_raw(events: Sequence[Any]) -> list[Any]:
    """As `gathered`, without reading arguments, which may be none."""
    return gathered([event for event in events if event.get("delta", {}).get("type") != "input_json_delta"])


# Through the edge.


def test_a_count_and_headers(url: str, played: Played) -> None:
    """The prompt's tokens; what has no effect, what is left of limits, and the request's id have this API's names."""
    headers = {"x-api-key": KEY, **anthropic.VERSION, "anthropic-beta": "one, two"}
    body = {"model": "smart", "messages": HI, "container": "c"}
    counted = requests.post(f"{url}/v1/messages/count_tokens", json=body, headers=headers, timeout=10)
    assert counted.json() == {"input_tokens": 42}
    made = requests.post(f"{url}/v1/messages", json=body, headers=headers, timeout=10)
    check_message(made.json())
    assert made.headers["x-moa-ignored"] == "container, anthropic-beta"
    assert made.headers["request-id"] == made.headers["x-request-id"]
    assert int(made.headers["anthropic-ratelimit-tokens-limit"]) == int(made.headers["x-ratelimit-limit-tokens"])
    assert made.headers["anthropic-ratelimit-tokens-reset"].endswith("Z")
    assert json.loads(played.texts[-1].vendor.json)["anthropic-beta"] == ["one", "two"]


def test_models_in_anthropics_form(url: str) -> None:
    """Those that make text, by pages forwards and backwards; the header decides, not the key."""
    headers = {"x-api-key": KEY, **anthropic.VERSION}

    def page(**asked: Any) -> Any:
        return requests.get(f"{url}/v1/models", params=asked, headers=headers, timeout=10).json()

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
    one = requests.get(f"{url}/v1/models/smart", headers=headers, timeout=10).json()
    assert (one["type"], one["created_at"], one["max_input_tokens"]) == ("model", "2023-11-14T22:13:20Z", 1000)
    assert one["capabilities"]["image_input"] == {"supported": True}
    assert requests.get(f"{url}/v1/models", headers={"x-api-key": KEY}, timeout=10).json()["object"] == "list"


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
