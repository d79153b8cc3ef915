"""What is Bedrock's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moa.text.v1.text_pb2 import (
    FinishReason,
    Message,
    Part,
    ReasoningOptions,
    ReasoningPart,
    Role,
    Sampling,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from moa.text.v1.text_service_pb2 import CountTokensRequest
from services.catalogue import Provider
from services.common import errors
from services.common.helper_process import HelperProcess
from services.providers.aws.access import region_of
from services.providers.aws.text.read import BedrockReader
from services.providers.text.names import tool_name
from services.text import count
from tests.emulators import aws
from tests.emulators.bedrock import CLAUDE, NOVA, OPUS, SIGNATURE, BedrockEmulator
from tests.emulators.script import Call, Script
from tests.text.harness import Row, TextClient, chat, reasoning_of, text_of, text_service

# What the real service sent for a tool call: the counts come before the stop, and no message start.
RECORDED = [
    ("contentBlockStart", '{"contentBlockIndex":0,"start":{"toolUse":{"toolUseId":"tool-use-id","name":"test-tool"}}}'),
    ("contentBlockDelta", '{"contentBlockIndex":0,"delta":{"toolUse":{"input":"{\\"value\\":"}}}'),
    ("contentBlockDelta", '{"contentBlockIndex":0,"delta":{"toolUse":{"input":"\\"Sparkle Day\\"}"}}}'),
    ("contentBlockStop", '{"contentBlockIndex":0}'),
    (
        "metadata",
        '{"usage":{"inputTokens":125,"outputTokens":45,"totalTokens":170,"serverToolUsage":{}},'
        '"metrics":{"latencyMs":234}}',
    ),
    ("messageStop", '{"additionalModelResponseFields":{"delta":{"stop_sequence":null}},"stopReason":"tool_use"}'),
]

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": aws.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": aws.SECRET_KEY}
ABLE = ["tools", "reasoning", "vision"]


def _row(url: str) -> Row:
    return {
        "id": "p",
        "makes": "text",
        "adapter": "bedrock",
        "base_url": url,
        "credentials": {"access_key": "AWS_ACCESS_KEY_ID", "secret_key": "AWS_SECRET_ACCESS_KEY"},
        "options": {"region": aws.REGION},
    }


MODELS: list[Row] = [
    {"id": "m", "provider": "p", "upstream": CLAUDE, "capabilities": ABLE, "default_max_tokens": 8192},
    {"id": "nova", "provider": "p", "upstream": NOVA, "capabilities": ABLE},
    {"id": "opus", "provider": "p", "upstream": OPUS, "capabilities": ABLE, "limits": {"thinking": "adaptive"}},
]


@pytest.fixture
async def upstream() -> AsyncIterator[BedrockEmulator]:
    async with BedrockEmulator() as emulator:
        yield emulator


@pytest.fixture
async def service(upstream: BedrockEmulator, tmp_path: Path) -> AsyncIterator[TextClient]:
    async with text_service(tmp_path, [_row(upstream.url)], MODELS, ENVIRONMENT) as client:
        yield client


def test_a_recorded_stream_is_read() -> None:
    """A call in pieces, and the answer is over when stop and counts are both there, in either order."""
    reader = BedrockReader(chat(), streamed=True, upstream_id="x")
    events = [e for name, line in RECORDED for e in reader.feed(aws.event_frame(name, line.encode()))]
    assert reader.done
    assert "".join(e.tool_call.arguments_json for e in events) == '{"value":"Sparkle Day"}'
    assert events[0].tool_call.name == "test-tool"
    assert events[-2].candidate_finished.reason == FinishReason.FINISH_REASON_TOOL_CALLS
    assert events[-1].finished.usage.prompt_tokens == 125


def test_a_damaged_frame_breaks_the_stream() -> None:
    """A checksum that is wrong is a broken stream, not a piece to pass over: where the next frame begins is unknown."""
    frame = bytearray(aws.event_frame("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":"a"}}'))
    frame[-6] ^= 1
    reader = BedrockReader(chat(), streamed=True, upstream_id="x")
    assert reader.feed(bytes(frame)) == []
    assert isinstance(reader.failure, errors.UpstreamBroken)


async def test_thinking_goes_round_with_its_signature(service: TextClient, upstream: BedrockEmulator) -> None:
    """The signed reasoning of a tool turn is taken back; the service checks that it is its own."""
    upstream.scripts.append(Script(reasoning=("hm",), text=(), calls=(Call("t1", "look", ("{}",)),)))
    asked = ReasoningOptions(include=True, effort=ReasoningOptions.EFFORT_LOW)
    request = chat("look", tools=[Tool(name="look")], reasoning=asked)
    events = await service.ask(request)
    signature = next(e.reasoning.signature for e in events if e.reasoning.signature)
    assert signature == SIGNATURE.encode()
    parts = [
        Part(reasoning=ReasoningPart(text=reasoning_of(events), signature=signature)),
        Part(tool_call=ToolCall(id="t1", name="look", arguments_json="{}")),
    ]
    request.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=parts))
    result = ToolResult(tool_call_id="t1", content="seen", is_error=True)
    request.messages.append(Message(role=Role.ROLE_TOOL, parts=[Part(tool_result=result)]))
    assert text_of(await service.ask(request))
    sent = upstream.seen[-1].body
    assert sent["additionalModelRequestFields"]["thinking"]["type"] == "enabled"
    assert sent["messages"][2]["content"][0]["toolResult"]["status"] == "error"
    assert upstream.refused == []


@pytest.mark.parametrize("call_id", ["functions.look:0", "look " + "é" * 80, "chatcmpl-tool-1"])
async def test_ids_of_other_vendors_calls_are_taken(
    service: TextClient, upstream: BedrockEmulator, call_id: str
) -> None:
    """A conversation may go on at Bedrock after calls of another model, whose ids Converse would refuse."""
    request = chat("look", tools=[Tool(name="look")])
    calls = [ToolCall(id=i, name="look", arguments_json="{}") for i in (call_id, f"{call_id}2")]
    results = [ToolResult(tool_call_id=call.id, content="seen") for call in calls]
    request.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=[Part(tool_call=call) for call in calls]))
    request.messages.append(Message(role=Role.ROLE_TOOL, parts=[Part(tool_result=result) for result in results]))
    assert text_of(await service.ask(request))
    assert upstream.refused == []


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ["files.read", "읽기", "a" * 65])
async def test_names_of_tools_are_told_in_the_letters_of_converse(
    service: TextClient, upstream: BedrockEmulator, name: str, stream: bool
) -> None:
    """Everywhere in the request alike, two names apart; the answer calls the tool by its caller's name."""
    request = chat("look", tools=[Tool(name=name), Tool(name=f"{name}!")])
    request.stream = stream
    request.tool_choice.mode = ToolChoice.MODE_NAMED
    request.tool_choice.name = name
    call = ToolCall(id="t0", name=name, arguments_json="{}")
    request.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=[Part(tool_call=call)]))
    result = ToolResult(tool_call_id="t0", content="seen")
    request.messages.append(Message(role=Role.ROLE_TOOL, parts=[Part(tool_result=result)]))
    wire_name = tool_name(name)
    upstream.scripts.append(Script(text=(), calls=(Call("t1", wire_name, ("{}",)),)))
    events = await service.ask(request)
    assert [event.tool_call.name for event in events if event.tool_call.name] == [name]
    sent = upstream.seen[-1].body
    assert upstream.refused == []
    named = [tool["toolSpec"]["name"] for tool in sent["toolConfig"]["tools"]]
    assert (named[0], len(set(named))) == (wire_name, 2)
    assert sent["toolConfig"]["toolChoice"]["tool"]["name"] == wire_name
    assert sent["messages"][1]["content"][0]["toolUse"]["name"] == wire_name


async def test_a_tool_turn_without_its_reasoning_goes_on_without(
    service: TextClient, upstream: BedrockEmulator
) -> None:
    """A dialect that cannot give reasoning back still gets its tool's answer."""
    request = chat("look", tools=[Tool(name="look")], reasoning=ReasoningOptions(effort=ReasoningOptions.EFFORT_LOW))
    call = ToolCall(id="t1", name="look", arguments_json="{}")
    request.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=[Part(tool_call=call)]))
    result = ToolResult(tool_call_id="t1", content="seen")
    request.messages.append(Message(role=Role.ROLE_TOOL, parts=[Part(tool_result=result)]))
    assert text_of(await service.ask(request))
    assert upstream.refused == []


async def test_to_show_reasoning_is_not_to_ask_for_it(service: TextClient, upstream: BedrockEmulator) -> None:
    """A client that shows reasoning may set a temperature and force a tool: nothing asked the model to think."""
    request = chat(
        "look",
        tools=[Tool(name="look")],
        tool_choice=ToolChoice(mode=ToolChoice.MODE_REQUIRED),
        reasoning=ReasoningOptions(include=True),
        sampling=Sampling(temperature=0.2),
    )
    await service.ask(request)
    assert "additionalModelRequestFields" not in upstream.seen[-1].body
    assert upstream.refused == []


async def test_a_forced_tool_is_called_without_thinking(service: TextClient, upstream: BedrockEmulator) -> None:
    """Claude cannot think where its answer's beginning is fixed; the turn goes on without."""
    request = chat(
        "look",
        tools=[Tool(name="look")],
        tool_choice=ToolChoice(mode=ToolChoice.MODE_NAMED, name="look"),
        reasoning=ReasoningOptions(effort=ReasoningOptions.EFFORT_HIGH),
    )
    await service.ask(request)
    assert "additionalModelRequestFields" not in upstream.seen[-1].body
    assert upstream.refused == []


@pytest.mark.parametrize(
    ("asked", "effort"),
    [
        (ReasoningOptions(effort=ReasoningOptions.EFFORT_MINIMAL), "low"),
        (ReasoningOptions(effort=ReasoningOptions.EFFORT_HIGH), "high"),
        (ReasoningOptions(budget_tokens=2_000), "low"),
        (ReasoningOptions(budget_tokens=5_000), "medium"),
        (ReasoningOptions(budget_tokens=30_000), "high"),
    ],
)
async def test_newer_models_think_by_effort(
    service: TextClient, upstream: BedrockEmulator, asked: ReasoningOptions, effort: str
) -> None:
    """From 4.6 on they take an effort and decide themselves; a budget is told as the nearest."""
    request = chat("hi", reasoning=asked)
    request.model = "opus"
    await service.ask(request)
    sent = upstream.seen[-1].body["additionalModelRequestFields"]
    assert sent == {"thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}
    assert upstream.refused == []


async def test_what_clients_really_send_back_is_taken(service: TextClient, upstream: BedrockEmulator) -> None:
    """Blank text beside calls, blank results, reasoning that nobody signed, tools that are offered no more."""
    request = chat("look")
    request.messages[0].name = "ann"
    assistant, tool = Role.ROLE_ASSISTANT, Role.ROLE_TOOL
    turn = [
        Part(reasoning=ReasoningPart(text="hm")),
        Part(reasoning=ReasoningPart(text="hm", signature=b"x", signer="google")),
        Part(text=""),
        Part(tool_call=ToolCall(id="t1", name="look", arguments_json="{}", signature=b"x", signer="google")),
    ]
    request.messages.append(Message(role=assistant, parts=turn))
    request.messages.append(Message(role=tool, parts=[Part(tool_result=ToolResult(tool_call_id="t1"))]))
    request.messages.append(Message(role=assistant, parts=[Part(text=" ")]))
    request.messages.append(Message(role=Role.ROLE_SYSTEM, parts=[Part(text="be brief")]))
    assert text_of(await service.ask(request))
    assert upstream.refused == []
    sent = upstream.seen[-1].body
    assert sent["messages"][0]["content"] == [{"text": "ann: look"}]
    assert [list(block) for block in sent["messages"][1]["content"]] == [["toolUse"]]
    assert sent["messages"][2]["content"][1] == {"text": "<system>\nbe brief\n</system>"}
    assert [tool["toolSpec"]["name"] for tool in sent["toolConfig"]["tools"]] == ["look"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_without_arguments_is_an_empty_object(
    service: TextClient, upstream: BedrockEmulator, stream: bool
) -> None:
    """Converse's stream says nothing where the whole answer says `{}`."""
    upstream.scripts.append(Script(text=(), calls=(Call("t1", "look", () if stream else ("{}",)),)))
    request = chat("look", tools=[Tool(name="look")])
    request.stream = stream
    events = await service.ask(request)
    assert "".join(event.tool_call.arguments_json for event in events) == "{}"


@pytest.mark.parametrize(("model", "sent"), [("m", {"top_k": 5}), ("nova", {"inferenceConfig": {"topK": 5}})])
async def test_top_k_by_family(service: TextClient, upstream: BedrockEmulator, model: str, sent: object) -> None:
    """What Converse leaves to the models is said in each family's words."""
    request = chat(sampling=Sampling(top_k=5))
    request.model = model
    await service.ask(request)
    assert upstream.seen[-1].body["additionalModelRequestFields"] == sent
    assert upstream.refused == []


async def test_consecutive_turns_of_one_side_are_joined(service: TextClient, upstream: BedrockEmulator) -> None:
    """Converse wants the sides to take turns; a caller need not."""
    request = chat("one")
    request.messages.append(Message(role=Role.ROLE_USER, parts=[Part(text="two")]))
    await service.ask(request)
    assert upstream.seen[-1].body["messages"] == [{"role": "user", "content": [{"text": "one"}, {"text": "two"}]}]


async def test_counting(service: TextClient) -> None:
    """A prompt is counted by Bedrock itself."""
    request = CountTokensRequest(model="m", provider="p", messages=chat("hi").messages, tools=[Tool(name="look")])
    assert await service.count(request) == 29


async def test_a_large_prompt_is_counted_off_the_loop(service: TextClient) -> None:
    """The provider's request of it is made in the helper process, and counts the same."""
    request = chat("x" * 300_000)
    model, target = service.targets.find(service.watched.now, "m", "p", caller_key="")
    helper = HelperProcess()
    try:
        assert await count.of_prompt(chat(), model, target, helper) == 29
        assert helper.pid is None
        assert await count.of_prompt(request, model, target, helper) == 29
        assert helper.pid is not None
    finally:
        await helper.aclose()


async def test_keys_in_rotation(upstream: BedrockEmulator, tmp_path: Path) -> None:
    """Two key pairs take turns, each signing with its own secret."""
    environment = {
        "AWS_ACCESS_KEY_ID": ",".join(aws.SECRETS),
        "AWS_SECRET_ACCESS_KEY": ",".join(aws.SECRETS.values()),
    }
    async with text_service(tmp_path, [_row(upstream.url)], MODELS, environment) as service:
        for _ in range(4):
            await service.ask(chat())
    used = [seen.headers["authorization"].split("Credential=")[1].split("/")[0] for seen in upstream.seen]
    assert used == [*aws.SECRETS, *aws.SECRETS]


def test_the_region_is_in_the_address() -> None:
    """The usual address names the region; another one needs the option."""
    url = "https://bedrock-runtime.ap-northeast-2.amazonaws.com"
    assert region_of(Provider(id="p", adapter="bedrock", makes="text", base_url=url)) == "ap-northeast-2"
    with pytest.raises(errors.ProviderNotConfigured, match=r"options\.region"):
        region_of(Provider(id="p", adapter="bedrock", makes="text", base_url="https://proxy.example.com"))


async def test_an_answer_goes_on_from_its_beginning(tmp_path: Path) -> None:
    """A last message of the assistant is a last turn of the conversation; one that ends with white space is refused by
    the provider, whose word it stays."""
    async with BedrockEmulator() as upstream:
        model: Row = {"id": "m", "provider": "p", "upstream": CLAUDE, "capabilities": ["prefill"]}
        async with text_service(tmp_path, [_row(upstream.url)], [model], ENVIRONMENT) as service:
            upstream.scripts.append(Script(text=(" upon", " a time")))
            asked = chat("Tell me a story.")
            asked.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=[Part(text="Once")]))
            assert text_of(await service.ask(asked)) == " upon a time"
            assert upstream.seen[-1].body["messages"][-1] == {"role": "assistant", "content": [{"text": "Once"}]}
            asked.messages[-1].parts[0].text = "Once "
            with pytest.raises(errors.UpstreamRejected, match="trailing whitespace"):
                await service.ask(asked)
