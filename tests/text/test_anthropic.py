"""What is Anthropic's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from moa.text.v1.text_pb2 import (
    FinishReason,
    Message,
    Part,
    ReasoningOptions,
    ReasoningPart,
    ResponseFormat,
    Role,
    Sampling,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from services.common import errors
from services.providers.anthropic.text.request import body_from
from services.providers.aws.text.request import body_from as converse_from
from services.providers.text.ignored import Ignored
from tests.emulators.anthropic import AnthropicEmulator
from tests.emulators.anthropic_requests import KEY, OPUS, SIGNATURE, SONNET
from tests.emulators.script import Call, Counts, Script
from tests.text.anthropic_played import ABLE, OVER, STOP, THINKER, delta, read, read_whole, sent, start
from tests.text.harness import Failed, Row, TextClient, chat, ending_of, ignored_of, reasoning_of, text_of, text_service

Json = dict[str, Any]

ENVIRONMENT = {"ANTHROPIC_API_KEY": KEY}
MODELS: list[Row] = [
    {"id": "m", "provider": "p", "upstream": SONNET, "capabilities": ABLE, "default_max_tokens": 8192},
    {"id": "opus", "provider": "p", "upstream": OPUS, "capabilities": ABLE, "limits": {"thinking": "adaptive"}},
]


@pytest.fixture
async def upstream() -> AsyncIterator[AnthropicEmulator]:
    async with AnthropicEmulator() as emulator:
        yield emulator


@pytest.fixture
async def service(upstream: AnthropicEmulator, tmp_path: Path) -> AsyncIterator[TextClient]:
    credentials = {"api_key": "ANTHROPIC_API_KEY"}
    row: Row = {
        "id": "p",
        "makes": "text",
        "adapter": "anthropic",
        "base_url": upstream.url,
        "credentials": credentials,
    }
    async with text_service(tmp_path, [row], MODELS, ENVIRONMENT) as client:
        yield client


@pytest.mark.parametrize("stream", [True, False])
async def test_thinking_goes_round_with_its_signature(
    service: TextClient, upstream: AnthropicEmulator, stream: bool
) -> None:
    """The signed reasoning of a tool turn is taken back; the service checks that it is its own."""
    upstream.scripts.append(Script(reasoning=("hm", "!"), text=(), calls=(Call("t1", "look", ("{}",)),)))
    asked = ReasoningOptions(include=True, effort=ReasoningOptions.EFFORT_LOW)
    request = chat("look", tools=[Tool(name="look")], reasoning=asked)
    request.stream = stream
    events = await service.ask(request)
    (signature,) = [e.reasoning.signature for e in events if e.reasoning.signature]
    assert (signature, reasoning_of(events)) == (SIGNATURE.encode(), "hm!")
    thought = ReasoningPart(text="hm!", signature=signature, signer="anthropic")
    call = ToolCall(id="t1", name="look", arguments_json="{}")
    request.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=[Part(reasoning=thought), Part(tool_call=call)]))
    result = ToolResult(tool_call_id="t1", content="seen", is_error=True)
    request.messages.append(Message(role=Role.ROLE_TOOL, parts=[Part(tool_result=result)]))
    assert text_of(await service.ask(request))
    body = upstream.seen[-1].body
    assert body["thinking"]["type"] == "enabled"
    assert body["messages"][1]["content"][0] == {"type": "thinking", "thinking": "hm!", "signature": SIGNATURE}
    assert body["messages"][2]["content"][0]["is_error"] is True
    assert upstream.refused == []


def test_redacted_thinking_goes_round() -> None:
    """What only Claude can read comes as a signature without text, and is given back as it came."""
    events, _ = read(start(0, type="redacted_thinking", data="b3BhcXVl"), delta(1, "text_delta", text="hi"), STOP, OVER)
    whole, _ = read_whole(content=[{"type": "redacted_thinking", "data": "b3BhcXVl"}, {"type": "text", "text": "hi"}])
    for given in (events, whole):
        (thought,) = [each.reasoning for each in given if each.HasField("reasoning")]
        assert (thought.text, thought.signature, thought.signer) == ("", b"b3BhcXVl", "anthropic")
    request = chat("look")
    part = Part(reasoning=ReasoningPart(signature=thought.signature, signer=thought.signer))
    request.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=[part, Part(text="so")]))
    blocks = body_from(request, THINKER, Ignored())["messages"][1]["content"]
    assert blocks[0] == {"type": "redacted_thinking", "data": "b3BhcXVl"}


def test_a_thought_whose_text_was_left_out_goes_round_as_one() -> None:
    """Newer models show the signature alone unless asked for more: it is no thought that only Claude can read."""
    signed = delta(0, "signature_delta", signature="c2ln")
    begins = start(0, type="thinking", thinking="", signature="")
    streamed, _ = read(begins, signed, delta(1, "text_delta", text="hi"), STOP)
    whole, _ = read_whole(
        content=[{"type": "thinking", "thinking": "", "signature": "c2ln"}, {"type": "text", "text": "hi"}]
    )
    for given in (streamed, whole):
        (thought,) = [each.reasoning for each in given if each.HasField("reasoning")]
        assert thought.text == ""
        request = chat("look")
        part = Part(reasoning=ReasoningPart(signature=thought.signature, signer=thought.signer))
        request.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=[part, Part(text="so")]))
        blocks = body_from(request, THINKER, Ignored())["messages"][1]["content"]
        assert blocks[0] == {"type": "thinking", "thinking": "", "signature": "c2ln"}
        at_bedrock = converse_from(request, THINKER, Ignored())["messages"][1]["content"]
        assert at_bedrock[0] == {"reasoningContent": {"reasoningText": {"text": "", "signature": "c2ln"}}}


@pytest.mark.parametrize("text", ["hm", ""])
@pytest.mark.parametrize("of", [body_from, converse_from], ids=["anthropic", "bedrock"])
def test_a_signature_of_any_bytes_is_the_providers_to_refuse(of: Callable[..., Json], text: str) -> None:
    """Callers give whatever they like as one: it is sent as text, and fails nothing here."""
    request = chat("look")
    part = Part(reasoning=ReasoningPart(text=text, signature=b"\xff\x00"))
    request.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=[part, Part(text="so")]))
    assert "/wA=" in json.dumps(of(request, THINKER, Ignored()))


async def test_newer_models_think_by_effort_and_show_it_when_asked(
    service: TextClient, upstream: AnthropicEmulator
) -> None:
    """They decide how much, and leave the text out unless it is asked for."""
    for include in (False, True):
        request = chat("hi", reasoning=ReasoningOptions(include=include, effort=ReasoningOptions.EFFORT_MEDIUM))
        request.model = "opus"
        await service.ask(request)
        body = upstream.seen[-1].body
        shown = {"display": "summarized"} if include else {}
        assert (body["thinking"], body["output_config"]) == ({"type": "adaptive", **shown}, {"effort": "medium"})
    assert upstream.refused == []


async def test_an_effort_and_a_schema_go_together(service: TextClient, upstream: AnthropicEmulator) -> None:
    """Both stand in one object."""
    schema = '{"type": "object", "properties": {}, "additionalProperties": false}'
    form = ResponseFormat(kind=ResponseFormat.KIND_JSON_SCHEMA, name="reply", schema_json=schema)
    request = chat("hi", reasoning=ReasoningOptions(effort=ReasoningOptions.EFFORT_LOW), response_format=form)
    request.model = "opus"
    await service.ask(request)
    wanted = {"effort": "low", "format": {"type": "json_schema", "schema": json.loads(schema)}}
    assert upstream.seen[-1].body["output_config"] == wanted


async def test_sampling_gives_way_to_thinking(service: TextClient, upstream: AnthropicEmulator) -> None:
    """Claude takes no other sampling while it thinks; what has no effect is named."""
    asked = ReasoningOptions(effort=ReasoningOptions.EFFORT_LOW)
    events = await service.ask(chat(reasoning=asked, sampling=Sampling(temperature=0.2, top_p=0.3, top_k=4)))
    assert ignored_of(events) == ["temperature", "top_k", "top_p"]
    assert upstream.refused == []


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (ToolChoice(), None),
        (ToolChoice(mode=ToolChoice.MODE_AUTO), {"type": "auto"}),
        (ToolChoice(mode=ToolChoice.MODE_REQUIRED), {"type": "any"}),
        (ToolChoice(mode=ToolChoice.MODE_NAMED, name="look"), {"type": "tool", "name": "look"}),
        (ToolChoice(mode=ToolChoice.MODE_NONE, parallel=False), {"type": "none"}),
        (ToolChoice(parallel=True), None),
        (ToolChoice(parallel=False), {"type": "auto", "disable_parallel_tool_use": True}),
        (
            ToolChoice(mode=ToolChoice.MODE_REQUIRED, parallel=False),
            {"type": "any", "disable_parallel_tool_use": True},
        ),
    ],
)
async def test_every_tool_choice_is_said(
    service: TextClient, upstream: AnthropicEmulator, choice: ToolChoice, wanted: Json | None
) -> None:
    """In Anthropic's words, one call in a turn too."""
    await service.ask(chat(tools=[Tool(name="look")], tool_choice=choice))
    assert upstream.seen[-1].body.get("tool_choice") == wanted
    assert upstream.refused == []


async def test_a_history_with_calls_keeps_its_tools(service: TextClient, upstream: AnthropicEmulator) -> None:
    """Tools that are offered no more are declared, and none may be called."""
    request = chat("look")
    call = ToolCall(id="functions.look:0", name="look.up", arguments_json="{}")
    request.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=[Part(text=" "), Part(tool_call=call)]))
    request.messages.append(Message(role=Role.ROLE_TOOL, parts=[Part(tool_result=ToolResult(tool_call_id=call.id))]))
    request.messages.append(Message(role=Role.ROLE_SYSTEM, parts=[Part(text="be brief")]))
    assert text_of(await service.ask(request))
    body = upstream.seen[-1].body
    assert (len(body["tools"]), body["tool_choice"]) == (1, {"type": "none"})
    assert body["messages"][2]["content"][1]["text"] == "<system>\nbe brief\n</system>"
    assert upstream.refused == []


async def test_marks_are_put_where_callers_put_them(service: TextClient, upstream: AnthropicEmulator) -> None:
    """On instructions, parts and tools, at most four, and none on thinking, which takes none."""
    request = chat("look", tools=[Tool(name="look", cache=True)])
    request.messages.insert(0, Message(role=Role.ROLE_SYSTEM, parts=[Part(text="Be brief.", cache=True)]))
    thought = Part(reasoning=ReasoningPart(text="hm", signature=SIGNATURE.encode(), signer="anthropic"), cache=True)
    request.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=[thought, Part(text="a", cache=True)]))
    request.messages.append(Message(role=Role.ROLE_USER, parts=[Part(text=word, cache=True) for word in "bcd"]))
    upstream.scripts.append(Script(counts=Counts(prompt=50, cached=40)))
    usage = (await service.ask(request))[-1].finished.usage
    assert (usage.prompt_tokens, usage.cached_tokens) == (50, 40)
    body = upstream.seen[-1].body
    assert body["system"][0]["cache_control"] == {"type": "ephemeral"}
    marked = [b for m in body["messages"] for b in m["content"] if "cache_control" in b]
    assert [block["text"] for block in marked] == ["a", "b", "c"]
    assert upstream.refused == []


@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_without_arguments_is_an_empty_object(
    service: TextClient, upstream: AnthropicEmulator, stream: bool
) -> None:
    """The stream says nothing where the whole answer says `{}`."""
    upstream.scripts.append(Script(text=(), calls=(Call("t1", "look", () if stream else ("{}",)),)))
    request = chat("look", tools=[Tool(name="look")])
    request.stream = stream
    events = await service.ask(request)
    assert "".join(each.tool_call.arguments_json for each in events) == "{}"
    assert ending_of(events) == FinishReason.FINISH_REASON_TOOL_CALLS


async def test_a_broken_stream_tells_what_the_prompt_cost(service: TextClient, upstream: AnthropicEmulator) -> None:
    """The counts of the beginning stand when the end does not come."""
    upstream.scripts.append(Script(counts=Counts(prompt=123, cached=23), cut_at=2))
    with pytest.raises(Failed) as failed:
        await service.ask(chat())
    (usage,) = [each.usage for each in failed.value.before if each.HasField("usage")][-1:]
    assert (usage.prompt_tokens, usage.cached_tokens) == (123, 23)


def test_json_without_a_schema_is_refused_by_name() -> None:
    """Anthropic holds answers to schemas alone."""
    with pytest.raises(errors.Unsupported) as refused:
        sent(response_format=ResponseFormat(kind=ResponseFormat.KIND_JSON_OBJECT))
    assert refused.value.param == "response_format.kind"


def test_who_asks_is_told_by_the_id_that_callers_give() -> None:
    """And nothing where they give none."""
    assert sent(user="ann")["metadata"] == {"user_id": "ann"}
    assert "metadata" not in sent()
