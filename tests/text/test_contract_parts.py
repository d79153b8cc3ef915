"""What goes in and comes out beside text, on every text adapter: images, tools, reasoning."""

from __future__ import annotations

import base64
import json

import pytest

from moa.common.v1.media_pb2 import ImageInput
from moa.text.v1.text_pb2 import (
    FinishReason,
    Message,
    Part,
    ReasoningOptions,
    Role,
    TextEvent,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from moa.text.v1.text_service_pb2 import CountTokensRequest
from services.common import errors
from tests.emulators.base import Emulator
from tests.emulators.script import Call, Counts, Script
from tests.text.harness import TextClient, chat, ending_of, reasoning_of, text_of
from tests.text.subjects import Subject

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WEATHER = Tool(
    name="weather",
    description="Tell the weather",
    parameters_json='{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}',
)


def _calls(events: list[TextEvent]) -> list[tuple[str, str, str]]:
    found: dict[int, list[str]] = {}
    for event in events:
        if event.HasField("tool_call"):
            delta = event.tool_call
            entry = found.setdefault(delta.call_index, [delta.id, delta.name, ""])
            entry[2] += delta.arguments_json
    return [(i, n, a) for _, (i, n, a) in sorted(found.items())]


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
    with pytest.raises(errors.Unsupported, match="plain requests only") as refused:
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
    assert ending_of(events) == FinishReason.FINISH_REASON_TOOL_CALLS
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


@pytest.mark.parametrize("arguments", ['{"city": "서', "[1]", "  "])
async def test_a_broken_call_is_taken_back(service: TextClient, upstream: Emulator, arguments: str) -> None:
    """A model wrote it, cut short or wrong; the client sends it back with what went wrong, and the model sees it."""
    request = chat("weather?", tools=[WEATHER])
    call = ToolCall(id="call_a", name="weather", arguments_json=arguments)
    request.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=[Part(tool_call=call)]))
    result = ToolResult(tool_call_id="call_a", name="weather", content="not valid JSON", is_error=True)
    request.messages.append(Message(role=Role.ROLE_TOOL, parts=[Part(tool_result=result)]))
    assert text_of(await service.ask(request))
    sent = json.dumps(upstream.seen[-1].body, ensure_ascii=False)
    assert arguments.strip() in sent.replace("\\", "") or not arguments.strip()
    assert upstream.refused == []


async def test_instructions_alone_are_answered(service: TextClient, upstream: Emulator) -> None:
    """Some clients send a system message and nothing else; providers that want a turn get it as one."""
    request = chat()
    del request.messages[:]
    request.messages.append(Message(role=Role.ROLE_SYSTEM, parts=[Part(text="Tell a joke.")]))
    assert text_of(await service.ask(request))
    assert "Tell a joke." in str(upstream.seen[-1].body)
    assert upstream.refused == []


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


async def test_counting(service: TextClient, upstream: Emulator, subject: Subject) -> None:
    """A prompt is counted by the provider, with instructions, images, tools, calls and results, or refused by name."""
    request = CountTokensRequest(model="m", provider="p", tools=[WEATHER])
    call = ToolCall(id="call_a", name="weather", arguments_json='{"city": "서울"}')
    image = Part(image=ImageInput(data=PNG))
    request.messages.extend(
        [
            Message(role=Role.ROLE_SYSTEM, parts=[Part(text="Be brief.")]),
            Message(role=Role.ROLE_USER, parts=[Part(text="What is this, and the weather?"), image]),
            Message(role=Role.ROLE_ASSISTANT, parts=[Part(text="I look."), Part(tool_call=call)]),
            Message(
                role=Role.ROLE_TOOL,
                parts=[Part(tool_result=ToolResult(tool_call_id="call_a", name="weather", content="맑음"))],
            ),
        ]
    )
    if "count" in subject.lacks:
        with pytest.raises(errors.Unsupported, match="does not count"):
            await service.count(request)
        return
    assert await service.count(request) > 0
    sent = str(upstream.seen[-1].body)
    assert all(word in sent for word in ("Be brief.", base64.b64encode(PNG).decode(), "Tell the weather", "맑음"))
