"""What every text adapter must do, shown on each of them through the real service and a strict emulator."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from moa.common.v1.media_pb2 import ImageInput
from moa.text.v1.text_pb2 import (
    FinishReason,
    Message,
    Part,
    ReasoningOptions,
    ResponseFormat,
    Role,
    Sampling,
    TextEvent,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common import errors
from tests.emulators.base import Emulator
from tests.emulators.script import Call, Counts, Script
from tests.text.harness import Failed, TextClient, chat, reasoning_of, text_of, text_service
from tests.text.subjects import REASONS, SUBJECTS, Subject

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WEATHER = Tool(
    name="weather",
    description="Tell the weather",
    parameters_json='{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}',
)


@pytest.fixture(params=SUBJECTS, ids=lambda subject: subject.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    assert isinstance(request.param, Subject)
    return request.param


@pytest.fixture
async def upstream(subject: Subject) -> AsyncIterator[Emulator]:
    async with subject.emulator() as emulator:
        yield emulator
        assert emulator.refused == [], "the adapter sent something that the real service would refuse"


@pytest.fixture
async def service(subject: Subject, upstream: Emulator, tmp_path: Path) -> AsyncIterator[TextClient]:
    async with text_service(tmp_path, subject.providers(upstream), subject.models(), subject.environment) as client:
        yield client


@pytest.fixture
async def impatient(subject: Subject, upstream: Emulator, tmp_path: Path) -> AsyncIterator[TextClient]:
    """A service whose provider may be silent for half a second only."""
    rows = subject.providers(upstream, connect_s=0.5, first_token_s=0.5, idle_s=0.5)
    async with text_service(tmp_path, rows, subject.models(), subject.environment) as client:
        yield client


def _skip_without(subject: Subject, ability: str) -> None:
    if ability in subject.lacks:
        pytest.skip(f"the protocol has no {ability}")


def _ended(events: list[TextEvent]) -> FinishReason.ValueType:
    (ended,) = [e.candidate_finished for e in events if e.HasField("candidate_finished")]
    return ended.reason


def _calls(events: list[TextEvent]) -> list[tuple[str, str, str]]:
    found: dict[int, list[str]] = {}
    for event in events:
        if event.HasField("tool_call"):
            delta = event.tool_call
            entry = found.setdefault(delta.call_index, [delta.id, delta.name, ""])
            entry[2] += delta.arguments_json
    return [(i, n, a) for _, (i, n, a) in sorted(found.items())]


@pytest.mark.parametrize("stream", [True, False])
async def test_text(service: TextClient, upstream: Emulator, subject: Subject, stream: bool) -> None:
    """A chat comes back whole, Korean and emoji both ways, with finish reason and the provider's own usage."""
    request = chat("안녕, 모아! 🌊")
    request.stream = stream
    events = await service.ask(request)
    assert text_of(events) == "Hello 안녕 🌍!"
    assert _ended(events) == FinishReason.FINISH_REASON_STOP
    assert [e.WhichOneof("event") for e in events].count("finished") == 1
    usage = events[-1].finished.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.exact) == (7, 5, True)
    assert subject.prompt_of(upstream.seen[-1].body) == "안녕, 모아! 🌊"


async def test_pieces_come_as_they_are_made(service: TextClient, upstream: Emulator) -> None:
    """The first piece is delivered while the provider still works on the second."""
    script = Script(text=("one", "two"), hold_at=1)
    upstream.scripts.append(script)
    messages = aiter(service.call(chat()))
    first = await anext(messages)
    assert text_of(first.events) == "one"
    await asyncio.wait_for(script.held.wait(), 5)
    script.gate.set()
    rest = [event async for message in messages for event in message.events]
    assert text_of(rest) == "two"


@pytest.mark.parametrize(
    ("word", "reason"),
    [("length", FinishReason.FINISH_REASON_LENGTH), ("content_filter", FinishReason.FINISH_REASON_CONTENT_FILTER)],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_finish_reasons(
    service: TextClient, upstream: Emulator, word: str, reason: FinishReason.ValueType, stream: bool
) -> None:
    """The provider's word for the end becomes the contract's."""
    upstream.scripts.append(Script(finish=word))
    request = chat()
    request.stream = stream
    assert _ended(await service.ask(request)) == reason


async def test_system_and_turns(service: TextClient, upstream: Emulator) -> None:
    """Instructions and earlier turns are taken by the provider as such."""
    request = chat()
    del request.messages[:]
    request.messages.extend(
        [
            Message(role=Role.ROLE_SYSTEM, parts=[Part(text="Be brief.")]),
            Message(role=Role.ROLE_USER, parts=[Part(text="hi")]),
            Message(role=Role.ROLE_ASSISTANT, parts=[Part(text="hello")]),
            Message(role=Role.ROLE_USER, parts=[Part(text="again")]),
        ]
    )
    assert text_of(await service.ask(request))
    assert "Be brief." in str(upstream.seen[-1].body)


async def test_sampling_and_stop(service: TextClient, upstream: Emulator) -> None:
    """Temperature, nucleus, stop strings and the bound reach the provider in its own fields."""
    request = chat(max_tokens=33, stop=["END", "끝"], sampling=Sampling(temperature=0.25, top_p=0.5))
    await service.ask(request)
    sent = str(upstream.seen[-1].body)
    assert all(word in sent for word in ("33", "END", "끝", "0.25", "0.5"))


async def test_a_seed_is_sent_or_refused(service: TextClient, upstream: Emulator, subject: Subject) -> None:
    """A seed is never dropped."""
    request = chat(sampling=Sampling(seed=4711))
    if "seed" in subject.lacks:
        with pytest.raises(errors.Unsupported) as refused:
            await service.ask(request)
        assert "seed" in refused.value.param
        return
    await service.ask(request)
    assert "4711" in str(upstream.seen[-1].body)


@pytest.mark.parametrize("ability", ["logprobs", "candidates", "top_k", "budget"])
async def test_what_a_protocol_lacks_is_refused_by_name(service: TextClient, subject: Subject, ability: str) -> None:
    """Nothing is dropped in silence: the field at fault is named."""
    if ability not in subject.lacks:
        pytest.skip("the protocol has it")
    request = {
        "logprobs": chat(sampling=Sampling(logprobs=True)),
        "candidates": chat(candidates=2),
        "top_k": chat(sampling=Sampling(top_k=5)),
        "budget": chat(reasoning=ReasoningOptions(budget_tokens=2048)),
    }[ability]
    with pytest.raises(errors.Unsupported) as refused:
        await service.ask(request)
    assert ability in refused.value.param


@pytest.mark.parametrize("stream", [True, False])
async def test_candidates(service: TextClient, subject: Subject, stream: bool) -> None:
    """Two answers to one question come apart, each with its end."""
    _skip_without(subject, "candidates")
    request = chat(candidates=2)
    request.stream = stream
    events = await service.ask(request)
    assert [text_of(events, candidate) for candidate in (0, 1)] == ["Hello 안녕 🌍!"] * 2
    assert sorted(e.candidate for e in events if e.HasField("candidate_finished")) == [0, 1]


@pytest.mark.parametrize("stream", [True, False])
async def test_logprobs(service: TextClient, subject: Subject, stream: bool) -> None:
    """Each token's probability comes with its bytes and the likeliest others."""
    _skip_without(subject, "logprobs")
    request = chat(sampling=Sampling(logprobs=True, top_logprobs=1))
    request.stream = stream
    entries = [entry for e in await service.ask(request) if e.HasField("text") for entry in e.text.logprobs]
    assert b"".join(entry.raw for entry in entries).decode() == "Hello 안녕 🌍!"
    assert all(entry.logprob == -0.5 and len(entry.top) == 1 for entry in entries)


@pytest.mark.parametrize(
    ("ability", "request_", "sent"),
    [
        ("top_k", chat(sampling=Sampling(top_k=37)), "37"),
        ("budget", chat(max_tokens=4000, reasoning=ReasoningOptions(include=True, budget_tokens=1234)), "1234"),
    ],
)
async def test_own_settings(
    service: TextClient, upstream: Emulator, subject: Subject, ability: str, request_: GenerateTextRequest, sent: str
) -> None:
    """What only some protocols have reaches those in their own words."""
    _skip_without(subject, ability)
    request_.model = "thinker"
    await service.ask(request_)
    assert sent in str(upstream.seen[-1].body)


@pytest.mark.parametrize("stream", [True, False])
async def test_image_in(service: TextClient, upstream: Emulator, stream: bool) -> None:
    """An image goes along as the bytes it is, whatever media type was declared."""
    request = chat("what is this?")
    request.stream = stream
    request.messages[0].parts.append(Part(image=ImageInput(data=PNG, mime_type="image/jpeg")))
    assert text_of(await service.ask(request))
    sent = str(upstream.seen[-1].body)
    assert base64.b64encode(PNG).decode() in sent
    assert "png" in sent
    assert "jpeg" not in sent


async def test_what_is_no_image_is_refused(service: TextClient, upstream: Emulator) -> None:
    """Bytes of no known image never leave."""
    request = chat("what is this?")
    request.messages[0].parts.append(Part(image=ImageInput(data=b"\x89PNG but not really", mime_type="image/png")))
    with pytest.raises(errors.UnsupportedMedia):
        await service.ask(request)
    assert upstream.seen == []


async def test_a_model_without_vision_refuses_images(service: TextClient, upstream: Emulator) -> None:
    """What a model cannot do is refused with the field's name and what it can do."""
    request = chat("what is this?")
    request.model = "plain"
    request.messages[0].parts.append(Part(image=ImageInput(data=PNG)))
    with pytest.raises(errors.Unsupported, match="plain text only") as refused:
        await service.ask(request)
    assert refused.value.param == "messages[0].parts[1].image"
    assert upstream.seen == []


@pytest.mark.parametrize("stream", [True, False])
async def test_tools(service: TextClient, upstream: Emulator, stream: bool) -> None:
    """Two calls come with ids, names and whole arguments, and their results go back in the next turn."""
    calls = (Call("call_a", "weather", ('{"city": ', '"서울"}')), Call("call_b", "weather", ('{"city": "Busan"}',)))
    upstream.scripts.append(Script(text=(), calls=calls))
    request = chat("weather?", tools=[WEATHER], tool_choice=ToolChoice(mode=ToolChoice.MODE_AUTO))
    request.stream = stream
    events = await service.ask(request)
    assert _ended(events) == FinishReason.FINISH_REASON_TOOL_CALLS
    got = _calls(events)
    assert [(name, json.loads(arguments)) for _, name, arguments in got] == [
        ("weather", {"city": "서울"}),
        ("weather", {"city": "Busan"}),
    ]
    ids = [i for i, _, _ in got]
    assert all(ids)
    assert len(set(ids)) == 2

    turn = Message(role=Role.ROLE_ASSISTANT)
    signatures = {e.tool_call.call_index: e.tool_call.signature for e in events if e.tool_call.signature}
    for index, (i, name, arguments) in enumerate(got):
        made = ToolCall(id=i, name=name, arguments_json=arguments, signature=signatures.get(index, b""))
        turn.parts.append(Part(tool_call=made))
    results = [ToolResult(tool_call_id=i, name="weather", content="맑음", is_error=i == ids[1]) for i in ids]
    request.messages.append(turn)
    request.messages.append(Message(role=Role.ROLE_TOOL, parts=[Part(tool_result=result) for result in results]))
    assert text_of(await service.ask(request)) == "Hello 안녕 🌍!"
    assert "맑음" in str(upstream.seen[-1].body)


@pytest.mark.parametrize("mode", [ToolChoice.MODE_AUTO, ToolChoice.MODE_REQUIRED, ToolChoice.MODE_NAMED])
async def test_tool_choice(service: TextClient, mode: ToolChoice.Mode.ValueType) -> None:
    """Every way to choose tools is one the provider takes."""
    choice = ToolChoice(mode=mode, name="weather" if mode == ToolChoice.MODE_NAMED else "")
    assert text_of(await service.ask(chat(tools=[WEATHER], tool_choice=choice)))


async def test_reasoning_apart(service: TextClient, upstream: Emulator) -> None:
    """Reasoning comes in events of its own, before the answer, and is counted."""
    script = Script(reasoning=("let me ", "think"), text=("42",), counts=Counts(completion=9, reasoning=6))
    upstream.scripts.append(script)
    request = chat(reasoning=ReasoningOptions(include=True, effort=ReasoningOptions.EFFORT_LOW))
    request.model = "thinker"
    events = await service.ask(request)
    assert reasoning_of(events) == "let me think"
    assert text_of(events) == "42"
    assert events[-1].finished.usage.completion_tokens == 9


async def test_reasoning_that_nobody_wants_is_not_sent(service: TextClient, upstream: Emulator) -> None:
    """Without `include` the answer alone comes."""
    upstream.scripts.append(Script(reasoning=("hm",), text=("42",), counts=Counts(completion=9, reasoning=6)))
    request = chat()
    request.model = "thinker"
    events = await service.ask(request)
    assert reasoning_of(events) == ""
    assert text_of(events) == "42"


@pytest.mark.parametrize("stream", [True, False])
async def test_usage(service: TextClient, upstream: Emulator, subject: Subject, stream: bool) -> None:
    """Prompt, completion, reasoning and cached tokens are the provider's, reasoning included in completion."""
    counts = Counts(prompt=100, completion=50, reasoning=20, cached=40)
    upstream.scripts.append(Script(reasoning=("hm",), counts=counts))
    request = chat(reasoning=ReasoningOptions(include=True))
    request.stream = stream
    request.model = "thinker"
    usage = (await service.ask(request))[-1].finished.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (100, 50, 40)
    assert usage.exact
    if "reasoning_count" not in subject.lacks:
        assert usage.reasoning_tokens == 20


@pytest.mark.parametrize("stream", [True, False])
async def test_missing_usage_is_estimated(service: TextClient, upstream: Emulator, stream: bool) -> None:
    """A provider that says nothing of usage leaves an estimate that is marked as one."""
    upstream.scripts.append(Script(counts=None))
    request = chat()
    request.stream = stream
    usage = (await service.ask(request))[-1].finished.usage
    assert not usage.exact
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens > 0


async def test_json_schema(service: TextClient, upstream: Emulator, subject: Subject) -> None:
    """A schema reaches the provider in its own form, or is refused by name."""
    form = ResponseFormat(
        kind=ResponseFormat.KIND_JSON_SCHEMA,
        name="reply",
        schema_json='{"type": "object", "properties": {"ok_word": {"type": "string"}}}',
    )
    upstream.scripts.append(Script(text=('{"ok_word": ', '"yes"}')))
    if "json_schema" in subject.lacks:
        with pytest.raises(errors.Unsupported, match="response_format"):
            await service.ask(chat(response_format=form))
        return
    assert text_of(await service.ask(chat(response_format=form))) == '{"ok_word": "yes"}'
    assert "ok_word" in str(upstream.seen[-1].body)


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("stream", [True, False])
async def test_refusals_are_typed(
    service: TextClient, upstream: Emulator, subject: Subject, reason: str, stream: bool
) -> None:
    """Each way to be refused is one reason, told as a status before anything is written."""
    if reason not in subject.reasons:
        pytest.skip("the protocol has no word for it")
    upstream.scripts.append(Script(refuse=reason))
    request = chat()
    request.stream = stream
    with pytest.raises(errors.BY_WORD[reason]) as refused:
        await service.ask(request)
    words = f"Words about {reason}"
    about_the_caller = reason in ("context_too_long", "content_policy", "upstream_rejected")
    assert (words in refused.value.message) == about_the_caller


async def test_the_retry_time_is_passed_on(service: TextClient, upstream: Emulator) -> None:
    """A rate limit says when to come back."""
    upstream.scripts.append(Script(refuse="upstream_rate_limited", retry_after_s=17))
    with pytest.raises(errors.UpstreamRateLimited) as refused:
        await service.ask(chat())
    assert refused.value.retry_after_s == 17


@pytest.mark.parametrize("at", [-1, 0, 1])
async def test_a_caller_who_leaves_closes_the_upstream_socket(service: TextClient, upstream: Emulator, at: int) -> None:
    """Before the headers, before the first piece or after it: the provider sees the hang-up within 200 ms."""
    script = Script(hold_at=at)
    upstream.scripts.append(script)
    call = service.call(chat())
    if at == 1:
        await call.read()
    await asyncio.wait_for(script.held.wait(), 5)
    call.cancel()
    await asyncio.wait_for(script.left.wait(), 0.2)


async def test_a_caller_who_leaves_a_whole_answer_closes_the_upstream_socket(
    service: TextClient, upstream: Emulator
) -> None:
    """The same when no stream was asked for."""
    script = Script(hold_at=0)
    upstream.scripts.append(script)
    request = chat()
    request.stream = False
    call = service.call(request)
    reading = asyncio.ensure_future(call.read())
    await asyncio.wait_for(script.held.wait(), 5)
    call.cancel()
    await asyncio.wait_for(script.left.wait(), 0.2)
    with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
        await reading


@pytest.mark.parametrize("at", [-1, 0])
async def test_slow_first_token(impatient: TextClient, upstream: Emulator, at: int) -> None:
    """A provider that does not begin in time is a timeout, told as a status, and its socket is closed."""
    script = Script(hold_at=at)
    upstream.scripts.append(script)
    with pytest.raises(errors.UpstreamTimeout):
        await impatient.ask(chat())
    await asyncio.wait_for(script.left.wait(), 0.2)


async def test_silence_between_pieces(impatient: TextClient, upstream: Emulator) -> None:
    """A provider that falls silent ends the stream with an error event, after what came and what it cost."""
    script = Script(hold_at=2)
    upstream.scripts.append(script)
    with pytest.raises(Failed) as failed:
        await impatient.ask(chat())
    assert isinstance(failed.value.error, errors.UpstreamTimeout)
    assert text_of(failed.value.before) == "Hello "
    assert failed.value.before[-1].usage.completion_tokens > 0
    await asyncio.wait_for(script.left.wait(), 0.2)


async def test_slow_callers_are_not_slow_providers(impatient: TextClient, upstream: Emulator) -> None:
    """A caller who reads late is not cut off by the provider's timeouts."""
    upstream.scripts.append(Script(text=("x" * 60_000,) * 200))
    messages = aiter(impatient.call(chat()))
    await anext(messages)
    await asyncio.sleep(1.2)
    rest = [event async for message in messages for event in message.events]
    assert rest[-1].HasField("finished")


@pytest.mark.parametrize("how", ["cut_at", "clip_at"])
@pytest.mark.parametrize("at", [1, 3])
async def test_cut_stream(service: TextClient, upstream: Emulator, how: str, at: int) -> None:
    """A stream that breaks, or ends without a finish reason, is never a clean end: an error event follows the text."""
    upstream.scripts.append(Script(**{how: at}))  # type: ignore[arg-type]
    with pytest.raises(Failed) as failed:
        await service.ask(chat())
    assert isinstance(failed.value.error, errors.UpstreamBroken)
    assert text_of(failed.value.before) == "".join(Script().text[:at])


async def test_a_stream_cut_before_its_first_piece_is_a_status(service: TextClient, upstream: Emulator) -> None:
    """Nothing was written yet, so the failure has its own status."""
    upstream.scripts.append(Script(cut_at=0))
    with pytest.raises(errors.UpstreamBroken):
        await service.ask(chat())


async def test_half_a_whole_answer_is_broken(service: TextClient, upstream: Emulator) -> None:
    """A whole answer whose second half never comes is a broken one."""
    upstream.scripts.append(Script(cut_at=0))
    request = chat()
    request.stream = False
    with pytest.raises(errors.UpstreamBroken):
        await service.ask(request)


async def test_failure_inside_the_stream(service: TextClient, upstream: Emulator) -> None:
    """A failure that the provider reports mid-stream is an error event of its reason."""
    upstream.scripts.append(Script(fail_at=2))
    with pytest.raises(Failed) as failed:
        await service.ask(chat())
    assert isinstance(failed.value.error, errors.UpstreamFailed)
    assert text_of(failed.value.before) == "Hello "


async def test_failure_as_the_first_piece_is_a_status(service: TextClient, upstream: Emulator) -> None:
    """A failure that comes in place of the first piece still has its own status."""
    upstream.scripts.append(Script(fail_at=0))
    with pytest.raises(errors.UpstreamFailed):
        await service.ask(chat())


@pytest.mark.parametrize("at", [0, 2, 5])
async def test_malformed_chunk(service: TextClient, upstream: Emulator, at: int) -> None:
    """A piece that cannot be read is passed over; the answer is whole."""
    upstream.scripts.append(Script(malformed_at=at))
    assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"


async def test_missing_end_mark(service: TextClient, upstream: Emulator) -> None:
    """A finish reason is the end, whether or not an end mark follows."""
    upstream.scripts.append(Script(end_mark=False))
    events = await service.ask(chat())
    assert events[-1].finished.usage.exact


async def test_an_upstream_that_does_not_hang_up(service: TextClient, upstream: Emulator) -> None:
    """An answer that is complete ends although the provider keeps its connection open without a word."""
    upstream.scripts.append(Script(end_mark=False, linger=True))
    async with asyncio.timeout(1.5):
        events = await service.ask(chat())
    assert text_of(events) == "Hello 안녕 🌍!"
    assert events[-1].HasField("finished")


@pytest.mark.parametrize("size", [1, 3, 7])
async def test_pieces_of_any_size(service: TextClient, upstream: Emulator, size: int) -> None:
    """Frames and characters that are torn apart on the wire come out whole."""
    upstream.scripts.append(Script(write_bytes=size))
    assert text_of(await service.ask(chat())) == "Hello 안녕 🌍!"


async def test_the_upstream_comes_back(service: TextClient, upstream: Emulator) -> None:
    """A provider that was restarted is reached again, in spite of the connections that died with it."""
    assert text_of(await service.ask(chat()))
    port = upstream.port
    await upstream.stop()
    with pytest.raises(errors.UpstreamFailed):
        await service.ask(chat())
    await upstream.start(port)
    assert text_of(await service.ask(chat()))


async def test_connections_are_kept(service: TextClient, upstream: Emulator) -> None:
    """Ten answers, streamed and whole, go over one connection."""
    for turn in range(10):
        request = chat()
        request.stream = turn % 2 == 0
        await service.ask(request)
    assert len({seen.peer for seen in upstream.seen}) == 1
