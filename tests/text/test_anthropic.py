"""What is Anthropic's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
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
    TextEvent,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from services.catalogue import Model
from services.common import errors
from services.providers.anthropic.text.read import AnthropicReader
from services.providers.anthropic.text.request import body_from
from services.providers.aws.text.request import body_from as converse_from
from services.providers.text.ignored import Ignored
from tests.emulators.anthropic import KEY, OPUS, SIGNATURE, SONNET, AnthropicEmulator, event
from tests.emulators.script import Call, Counts, Script
from tests.text.harness import Failed, Row, TextClient, chat, ending_of, ignored_of, reasoning_of, text_of, text_service

Json = dict[str, Any]

ENVIRONMENT = {"ANTHROPIC_API_KEY": KEY}
ABLE = ["tools", "reasoning", "vision", "json_schema"]
MODELS: list[Row] = [
    {"id": "m", "provider": "p", "upstream": SONNET, "capabilities": ABLE, "default_max_tokens": 8192},
    {"id": "opus", "provider": "p", "upstream": OPUS, "capabilities": ABLE, "limits": {"thinking": "adaptive"}},
]
THINKER = Model(id="m", provider="p", capabilities=frozenset(ABLE))
STOP = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
OVER = {"type": "message_stop"}


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


def read(*given: Mapping[str, Any], **asked: Any) -> tuple[list[TextEvent], AnthropicReader]:
    """Return the events of a stream, and its reader."""
    reader = AnthropicReader(chat(reasoning=ReasoningOptions(include=True), **asked), streamed=True)
    events = reader.feed(b"".join(map(event, given)))
    return (events if reader.failure is not None else [*events, *reader.end()]), reader


def read_whole(**answer: Any) -> tuple[list[TextEvent], AnthropicReader]:
    """Return the events of a whole answer, and its reader."""
    reader = AnthropicReader(chat(reasoning=ReasoningOptions(include=True)), streamed=False)
    reader.feed(json.dumps({"type": "message", "id": "msg_1", **answer}).encode())
    return reader.end(), reader


def start(place: int, **block: Any) -> Json:
    return {"type": "content_block_start", "index": place, "content_block": block}


def delta(place: int, kind: str, **fields: Any) -> Json:
    return {"type": "content_block_delta", "index": place, "delta": {"type": kind, **fields}}


def begun(**usage: Any) -> Json:
    return {"type": "message_start", "message": {"id": "msg_1", "usage": usage}}


def sent(model: Model = THINKER, **asked: Any) -> Json:
    """Return the body of a request."""
    return body_from(chat("look", **asked), model, Ignored())


def test_the_counts_of_both_ends_are_one_usage() -> None:
    """The beginning tells the prompt and what its cache gave and took; the end the completion, and may correct all."""
    first = begun(input_tokens=10, cache_read_input_tokens=70, cache_creation_input_tokens=20, output_tokens=1)
    word = delta(0, "text_delta", text="hi")
    details = {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}, "input_tokens": None}
    events, reader = read(first, word, {**STOP, "usage": details}, OVER)
    usage = events[-1].finished.usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.cache_write_tokens) == (100, 70, 20)
    assert (usage.completion_tokens, usage.reasoning_tokens, usage.exact) == (9, 4, True)
    assert reader.upstream_id == "msg_1"
    corrected, _ = read(first, word, {**STOP, "usage": {"input_tokens": 11, "output_tokens": 9}}, OVER)
    assert corrected[-1].finished.usage.prompt_tokens == 101


def test_a_caller_who_leaves_owes_the_prompt_that_was_told() -> None:
    """Its counts come with the first piece, and the completion so far is estimated until the end tells it."""
    events, _ = read(
        begun(input_tokens=10, cache_read_input_tokens=90, output_tokens=1), delta(0, "text_delta", text="hi")
    )
    (told,) = [each.usage for each in events if each.HasField("usage")]
    assert (told.prompt_tokens, told.cached_tokens, told.exact) == (100, 90, False)
    assert told.completion_tokens > 0


def test_a_wrong_count_at_the_end_leaves_the_prompts() -> None:
    """What was told right is kept."""
    for wrong in ("many", [1], -1):
        first = begun(input_tokens=12, output_tokens=1)
        events, reader = read(
            first, delta(0, "text_delta", text="hi"), {**STOP, "usage": {"output_tokens": wrong}}, OVER
        )
        assert reader.failure is None
        usage = events[-1].finished.usage
        assert (usage.prompt_tokens, usage.exact) == (12, False)
        assert 0 < usage.completion_tokens < 100


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", FinishReason.FINISH_REASON_STOP),
        ("stop_sequence", FinishReason.FINISH_REASON_STOP),
        ("max_tokens", FinishReason.FINISH_REASON_LENGTH),
        ("model_context_window_exceeded", FinishReason.FINISH_REASON_LENGTH),
        ("refusal", FinishReason.FINISH_REASON_CONTENT_FILTER),
    ],
)
def test_stop_reasons(word: str, reason: FinishReason.ValueType) -> None:
    """Each is an end of the contract's, with what stopped it, or why it was refused."""
    details = {"type": "refusal", "category": "cyber", "explanation": "not this"}
    ended = {"stop_reason": word, "stop_sequence": "END" if word == "stop_sequence" else None, "stop_details": details}
    streamed, _ = read(delta(0, "text_delta", text="hi"), {"type": "message_delta", "delta": ended}, OVER)
    whole, _ = read_whole(content=[{"type": "text", "text": "hi"}], **ended)
    for events in (streamed, whole):
        (end,) = [each.candidate_finished for each in events if each.HasField("candidate_finished")]
        assert end.reason == reason
        assert end.stop_sequence == ("END" if word == "stop_sequence" else "")
        assert end.refusal == ("not this" if word == "refusal" else "")


@pytest.mark.parametrize("word", ["pause_turn", "compaction", "new_word"])
def test_what_is_no_end_is_no_success(word: str) -> None:
    """An answer that would have to be asked to go on is not whole."""
    ended = {"stop_reason": word}
    events, reader = read(delta(0, "text_delta", text="hi"), {"type": "message_delta", "delta": ended}, OVER)
    assert isinstance(reader.failure, errors.UpstreamFailed)
    assert not any(each.HasField("finished") for each in events)
    assert isinstance(read_whole(content=[{"type": "text", "text": "hi"}], **ended)[1].failure, errors.UpstreamFailed)


SERVER_TOOL = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}


@pytest.mark.parametrize(
    "piece",
    [
        start(1, **SERVER_TOOL),
        delta(0, "image_delta", data="x"),
        delta(0, "text_delta", words="x"),
        delta(7, "input_json_delta", partial_json="{"),
        {"type": "content_block_delta", "index": 0},
        {"type": "content_block_start", "index": 0},
        {"type": "aside", "text": "lost"},
        start(0, type="tool_use", id="t", name=""),
        start(0, type="redacted_thinking"),
    ],
    ids=lambda piece: json.dumps(piece)[:60],
)
def test_a_piece_that_cannot_be_told_fails_the_answer(piece: Json) -> None:
    """What is dropped must not look like success."""
    events, reader = read(delta(0, "text_delta", text="good"), piece, STOP, OVER)
    assert isinstance(reader.failure, errors.Unsupported | errors.UpstreamBroken)
    assert text_of(events) == "good"
    assert not any(each.HasField("finished") for each in events)


def test_what_says_nothing_breaks_nothing() -> None:
    """Pings, sources of a text, ends of blocks, and events that nobody knows and that hold no word."""
    cited = delta(0, "citations_delta", citation={"type": "char_location", "cited_text": "x"})
    quiet = ({"type": "ping"}, cited, {"type": "content_block_stop", "index": 0}, {"type": "pulse", "n": 1})
    events, reader = read(
        *quiet, start(0, type="text", text="go"), delta(0, "text_delta", text="od"), *quiet, STOP, OVER
    )
    assert reader.failure is None
    assert text_of(events) == "good"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("overloaded_error", errors.UpstreamOverloaded),
        ("rate_limit_error", errors.UpstreamRateLimited),
        ("api_error", errors.UpstreamFailed),
        ("timeout_error", errors.UpstreamTimeout),
        ("new_error", errors.UpstreamFailed),
    ],
)
def test_an_error_amid_the_stream_is_typed(kind: str, error: type[errors.MoaError]) -> None:
    """After the status is sent its type alone decides; so it does in a body of status 200."""
    failed = {"type": "error", "error": {"type": kind, "message": "x"}}
    events, reader = read(delta(0, "text_delta", text="good"), failed, STOP, OVER)
    assert isinstance(reader.failure, error)
    assert text_of(events) == "good"
    whole = AnthropicReader(chat(), streamed=False)
    whole.feed(json.dumps(failed).encode())
    whole.end()
    assert isinstance(whole.failure, error)


def test_halves_of_a_character_are_joined() -> None:
    """In text, thinking and arguments, where a relay cuts within one; a half without its other fails the answer."""
    pieces = [
        delta(0, "thinking_delta", thinking="x\ud83d"),
        delta(0, "thinking_delta", thinking="\ude00"),
        delta(1, "text_delta", text="A\ud83d"),
        delta(1, "text_delta", text="\ude00"),
        start(2, type="tool_use", id="t", name="f"),
        delta(2, "input_json_delta", partial_json='{"x":"\ud83d'),
        delta(2, "input_json_delta", partial_json='\ude00"}'),
    ]
    stop = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}
    data = b"".join(b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in [*pieces, stop, OVER])
    reader = AnthropicReader(chat(reasoning=ReasoningOptions(include=True)), streamed=True)
    events = [*reader.feed(data), *reader.end()]
    assert (text_of(events), reasoning_of(events), reader.failure) == ("A😀", "x😀", None)
    assert "".join(each.tool_call.arguments_json for each in events) == '{"x":"😀"}'
    broken = AnthropicReader(chat(), streamed=True)
    broken.feed(b"".join(b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in [pieces[2], STOP, OVER]))
    assert isinstance(broken.failure, errors.UpstreamBroken)


def test_an_answer_that_does_not_say_why_it_ended_is_one() -> None:
    """Where it has words and its last event, or came whole; without a word it is none."""
    word = delta(0, "text_delta", text="good")
    for events, reader in (read(word, OVER), read_whole(content=[{"type": "text", "text": "good"}])):
        assert (text_of(events), reader.failure) == ("good", None)
        assert ending_of(events) == FinishReason.FINISH_REASON_STOP
    assert isinstance(read(OVER)[1].failure, errors.UpstreamBroken)


def test_a_stream_without_its_end_is_broken() -> None:
    """No stop reason came, whatever else did; a stop reason without the last event is an end."""
    word = delta(0, "text_delta", text="good")
    assert isinstance(read(begun(input_tokens=1), word)[1].failure, errors.UpstreamBroken)
    assert read(word, STOP)[1].failure is None


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
