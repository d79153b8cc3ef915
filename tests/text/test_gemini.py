"""What is Gemini's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moa.text.v1.text_pb2 import Message, Part, ReasoningOptions, ReasoningPart, Role, Tool, ToolCall, ToolResult
from moa.text.v1.text_service_pb2 import CountTokensRequest
from services.catalogue import Model
from services.common import errors, vendor_fields
from services.providers.google import errors as failures
from services.providers.google.text.read import GeminiReader
from services.providers.google.text.request import body_from
from services.providers.text.ignored import Ignored
from tests.emulators.gemini import SIGNATURE, GeminiEmulator
from tests.emulators.script import Call, Script
from tests.text.harness import Row, TextClient, chat, reasoning_of, text_of, text_service

# What the real service sent (shortened): the signature comes alone, thoughts are counted apart, usage is cumulative.
RECORDED = [
    '{"candidates":[{"content":{"parts":[{"text":"There are **3** \\"r\\"s in"}],"role":"model"},"index":0}],'
    '"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":10,"totalTokenCount":275,'
    '"promptTokensDetails":[{"modality":"TEXT","tokenCount":9}],"thoughtsTokenCount":256},'
    '"modelVersion":"gemini-3-pro-preview","responseId":"dX6LadKVC7SZ28oPr9yJoQs"}',
    '{"candidates":[{"content":{"parts":[{"text":" strawberry."}],"role":"model"},"index":0}],'
    '"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":29,"totalTokenCount":294,'
    '"thoughtsTokenCount":256},"responseId":"dX6LadKVC7SZ28oPr9yJoQs"}',
    '{"candidates":[{"content":{"parts":[{"text":"","thoughtSignature":"Eo0HCooH"}],"role":"model"},'
    '"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":29,'
    '"totalTokenCount":294,"thoughtsTokenCount":256},"responseId":"dX6LadKVC7SZ28oPr9yJoQs"}',
]


@pytest.fixture
async def upstream() -> AsyncIterator[GeminiEmulator]:
    async with GeminiEmulator() as emulator:
        yield emulator
        assert emulator.refused == []


@pytest.fixture
async def service(upstream: GeminiEmulator, tmp_path: Path) -> AsyncIterator[TextClient]:
    row = {"adapter": "gemini", "base_url": upstream.base_url, "credentials": {"api_key": "GEMINI_API_KEY"}}
    able = ["tools", "reasoning", "vision"]
    models: list[Row] = [
        {"id": "m", "provider": "p", "upstream": "gemini-2.5-flash", "capabilities": able},
        {
            "id": "three",
            "provider": "p",
            "upstream": "gemini-3-pro-preview",
            "capabilities": able,
            "limits": {"thinking": "level"},
        },
    ]
    async with text_service(
        tmp_path, [{"id": "p", "makes": "text", **row}], models, {"GEMINI_API_KEY": "AIza-good"}
    ) as client:
        yield client


def test_a_recorded_answer_is_read() -> None:
    """Text, the signature that comes alone, and the last of the cumulative counts."""
    reader = GeminiReader(chat(reasoning=ReasoningOptions(include=True)), streamed=True)
    events = [event for line in RECORDED for event in reader.feed(f"data: {line}\r\n\r\n".encode())] + reader.end()
    assert text_of(events) == 'There are **3** "r"s in strawberry.'
    assert [e.reasoning.signature for e in events if e.HasField("reasoning")] == [b"\x12\x8d\x07\n\x8a\x07"]
    usage = events[-1].finished.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens) == (9, 285, 256)
    assert [e.usage.completion_tokens for e in events if e.HasField("usage")] == [266, 285]
    assert reader.upstream_id == "dX6LadKVC7SZ28oPr9yJoQs"


def test_a_recorded_rate_limit_is_read() -> None:
    """RetryInfo says when to come back."""
    body = {
        "error": {
            "code": 429,
            "message": "You exceeded your current quota, please check your plan.",
            "status": "RESOURCE_EXHAUSTED",
            "details": [
                {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "X"}]},
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"},
            ],
        }
    }
    for raw in (json.dumps(body), json.dumps([body])):
        error = failures.error_from(429, {}, raw.encode())
        assert isinstance(error, errors.UpstreamRateLimited)
        assert error.retry_after_s == 34.4


async def test_thought_signatures_go_round(service: TextClient, upstream: GeminiEmulator) -> None:
    """A call's signature comes out and is taken back; without it Gemini 3 would refuse the next turn."""
    upstream.scripts.append(Script(text=(), calls=(Call("", "look", ("{}",)),)))
    request = chat("look", tools=[Tool(name="look")])
    request.model = "three"
    events = await service.ask(request)
    call = next(e.tool_call for e in events if e.HasField("tool_call"))
    assert call.signature == SIGNATURE
    made = ToolCall(id=call.id, name=call.name, arguments_json=call.arguments_json, signature=call.signature)
    request.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=[Part(tool_call=made)]))
    result = ToolResult(tool_call_id=call.id, content='{"seen": true}')
    request.messages.append(Message(role=Role.ROLE_TOOL, parts=[Part(tool_result=result)]))
    assert text_of(await service.ask(request))
    sent = upstream.seen[-1].body["contents"][2]["parts"][0]["functionResponse"]
    assert sent == {"name": "look", "id": call.id, "response": {"seen": True}}


async def test_shown_reasoning_is_taken_back(service: TextClient, upstream: GeminiEmulator) -> None:
    """Reasoning of an earlier turn returns as a thought with its signature."""
    request = chat("and?")
    parts = [Part(reasoning=ReasoningPart(text="hm", signature=b"\x01")), Part(text="42")]
    request.messages.insert(0, Message(role=Role.ROLE_ASSISTANT, parts=parts))
    request.messages.insert(0, Message(role=Role.ROLE_USER, parts=[Part(text="what?")]))
    await service.ask(request)
    assert upstream.seen[-1].body["contents"][1]["parts"][0] == {
        "text": "hm",
        "thought": True,
        "thoughtSignature": "AQ==",
    }


@pytest.mark.parametrize(
    ("model", "effort", "sent"),
    [
        ("m", ReasoningOptions.EFFORT_NONE, {"thinkingBudget": 0}),
        ("m", ReasoningOptions.EFFORT_HIGH, {"thinkingBudget": 24576}),
        ("three", ReasoningOptions.EFFORT_LOW, {"thinkingLevel": "LOW"}),
    ],
)
async def test_efforts(
    service: TextClient, upstream: GeminiEmulator, model: str, effort: ReasoningOptions.Effort.ValueType, sent: object
) -> None:
    """An effort is a budget to older models, a level to newer ones."""
    request = chat(reasoning=ReasoningOptions(include=True, effort=effort), max_tokens=40_000)
    request.model = model
    upstream.scripts.append(Script(reasoning=("hm",)))
    assert reasoning_of(await service.ask(request)) == "hm"
    thinking = upstream.seen[-1].body["generationConfig"]["thinkingConfig"]
    assert thinking == {"includeThoughts": True, **sent}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("most", "budget", "names"),
    [
        (40_000, 24_576, []),
        (16_000, 12_000, ["reasoning.effort=medium"]),
        (1_000, 750, ["reasoning.effort=minimal"]),
        (50, 512, ["reasoning.effort=minimal"]),
    ],
)
def test_an_efforts_budget_leaves_room_for_the_answer(most: int, budget: int, names: list[str]) -> None:
    """A quarter of max_tokens, as far as models take so small a budget; what was asked for beyond that is named."""
    model = Model(id="m", provider="p", capabilities=frozenset({"reasoning"}))
    ignored = Ignored()
    asked = chat(max_tokens=most, reasoning=ReasoningOptions(effort=ReasoningOptions.EFFORT_HIGH))
    assert body_from(asked, model, ignored)["generationConfig"]["thinkingConfig"] == {"thinkingBudget": budget}
    assert ignored.names == names


async def test_counting(service: TextClient) -> None:
    """A prompt is counted by Gemini itself, instructions and tools included."""
    request = CountTokensRequest(model="m", provider="p", messages=chat("hi").messages, tools=[Tool(name="look")])
    assert await service.count(request) == 31


def test_late_instructions_are_told_in_their_place() -> None:
    """This protocol has instructions before the conversation only; so has it no names of participants."""
    request = chat("hi")
    request.messages[0].name = "ann"
    request.messages.append(Message(role=Role.ROLE_SYSTEM, parts=[Part(text="be brief")]))
    contents = body_from(request, Model(id="m", provider="p"), Ignored())["contents"]
    assert contents == [
        {"role": "user", "parts": [{"text": "ann: hi"}]},
        {"role": "user", "parts": [{"text": "<system>\nbe brief\n</system>"}]},
    ]


@pytest.mark.parametrize("signature", [b"", b"another vendor's"])
async def test_calls_that_gemini_has_not_signed_are_taken(
    service: TextClient, upstream: GeminiEmulator, signature: bytes
) -> None:
    """A client that lost the signatures, or a conversation that began with another vendor, goes on with Gemini 3."""
    request = chat("look", tools=[Tool(name="look")])
    request.model = "three"
    parts = [
        Part(reasoning=ReasoningPart(signature=b"x", signer="anthropic")),
        *(Part(tool_call=ToolCall(id=i, name="look", signature=signature, signer="other")) for i in "ab"),
    ]
    request.messages.append(Message(role=Role.ROLE_ASSISTANT, parts=parts))
    results = [Part(tool_result=ToolResult(tool_call_id=i, content="seen")) for i in "ab"]
    request.messages.append(Message(role=Role.ROLE_TOOL, parts=results))
    assert text_of(await service.ask(request))
    sent = upstream.seen[-1].body["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in sent] == ["skip_thought_signature_validator", None]


def test_calls_are_told_whole() -> None:
    """Pieces of arguments by path have no form here: they are not asked for, and that is named."""
    given = {"toolConfig": {"functionCallingConfig": {"mode": "AUTO", "streamFunctionCallArguments": True}}}
    asked = chat(tools=[Tool(name="look")])
    asked.vendor.CopyFrom(vendor_fields.envelope("google", given))
    ignored = Ignored()
    body = body_from(asked, Model(id="m", provider="p", capabilities=frozenset({"tools"})), ignored)
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "AUTO"}}
    assert ignored.names == ["toolConfig.functionCallingConfig.streamFunctionCallArguments"]
