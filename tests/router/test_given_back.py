"""What an answer carries for the next turn is taken back, however little of it a client keeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from moa.common.v1 import usage_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.router.dialects.google import bodies, text_request
from services.router.dialects.google.reply import TextReply
from services.router.dialects.native import text as native
from services.router.dialects.openai import chat_reply, chat_request
from services.router.dialects.openai.reasoning import Details
from services.router.dialects.tools import Calls, extra_content, signed_id

SIGNATURE = bytes(range(256))

Json = dict[str, Any]


def answered() -> Json:
    """Return a signed call as the OpenAI and native dialects tell it."""
    calls = Calls()
    calls.take(text_pb2.ToolCallDelta(id="call_1", name="look", signature=SIGNATURE, signer="google"))
    calls.take(text_pb2.ToolCallDelta(arguments_json="{}"))
    return calls.whole()[0]


def kept_by(client: str) -> Json:
    """Return what clients that know only the vendor's published type keep of it."""
    call = answered()
    plain = {name: call[name] for name in ("id", "type", "function")}
    return {
        "everything": call,
        "the id": plain,
        "extra_content": {**call, "id": "call_1"},
        "neither": {**plain, "id": "call_1"},
    }[client]


@pytest.mark.parametrize("client", ["everything", "the id", "extra_content", "neither"])
@pytest.mark.parametrize("dialect", ["openai", "native"])
def test_a_calls_signature_is_taken_back(client: str, dialect: str) -> None:
    """From where Google's own API puts it, or out of the id; the provider sees its id as it made it."""
    call = kept_by(client)
    result = {"role": "tool", "tool_call_id": call["id"], "content": "seen"}
    turns = [{"role": "user", "content": "look"}, {"role": "assistant", "content": None, "tool_calls": [call]}, result]
    if dialect == "openai":
        request = chat_request.request_from(json.dumps({"model": "m", "messages": turns}).encode()).request
    else:
        request = native.request_from(json.dumps({"model_id": "m", "messages": turns}).encode())
    made = request.messages[1].parts[0].tool_call
    assert made.id == request.messages[2].parts[0].tool_result.tool_call_id == "call_1"
    assert (made.signature, made.signer) == ((b"", "") if client == "neither" else (SIGNATURE, "google"))


def test_other_vendors_calls_are_told_plainly() -> None:
    """Nobody but Google signs calls, and nobody else's clients see longer ids."""
    calls = Calls()
    calls.take(text_pb2.ToolCallDelta(id="call_1", name="look", arguments_json="{}"))
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    assert calls.whole() == [call]


@pytest.mark.parametrize("bad", [{}, {"google": 1}, {"google": {"thought_signature": "?"}}, "x", [1]])
def test_extra_content_that_cannot_be_read_is_left(bad: object) -> None:
    """It is a client's; the id still holds the signature."""
    call = {**answered(), "extra_content": bad}
    turns = [{"role": "user", "content": "look"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    request = chat_request.request_from(json.dumps({"model": "m", "messages": turns}).encode()).request
    assert request.messages[1].parts[1].tool_call.signature == SIGNATURE


def assistant(**fields: object) -> list[text_pb2.Part]:
    """Return the parts of an assistant's turn that a client sends back."""
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ok", **fields}]
    body = json.dumps({"model": "m", "messages": turns}).encode()
    return list(chat_request.request_from(body).request.messages[1].parts)


def test_signed_reasoning_goes_round() -> None:
    """Two thoughts of Claude, one that only it can read, and one of Gemini come back with their signatures."""
    details = Details()
    for text, signature, signer in (
        ("hm", b"", ""),
        (", yes", b"", ""),
        ("", b"U0lH", "anthropic"),
        ("", b"opaque", "anthropic"),
        ("so", b"", ""),
        ("", b"U0lI", "anthropic"),
        ("", SIGNATURE, "google"),
    ):
        details.take(text_pb2.ReasoningDelta(text=text, signature=signature, signer=signer))
    parts = assistant(reasoning_content="hm, yesso", reasoning_details=details.whole())
    assert [(p.reasoning.text, p.reasoning.signature, p.reasoning.signer) for p in parts[:4]] == [
        ("hm, yes", b"U0lH", "anthropic"),
        ("", b"opaque", "anthropic"),
        ("so", b"U0lI", "anthropic"),
        ("", SIGNATURE, "google"),
    ]
    assert parts[4].text == "ok"


def thoughtful(pieces: Sequence[tuple[str, bytes]]) -> text_service_pb2.GenerateTextResponse:
    """Return an answer of Claude's that thinks, then calls two tools."""
    made = text_service_pb2.GenerateTextResponse()
    for text, signature in pieces:
        reasoned = text_pb2.ReasoningDelta(text=text, signature=signature, signer="anthropic" if signature else "")
        made.events.add(reasoning=reasoned)
    for index in range(2):
        call = text_pb2.ToolCallDelta(call_index=index, id=f"call_{index}", name="look", arguments_json="{}")
        made.events.add(tool_call=call)
    return made


async def said_by_claude(*pieces: tuple[str, bytes]) -> Json:
    """Return the message of such an answer."""
    left = [thoughtful(pieces)]

    async def following() -> text_service_pb2.GenerateTextResponse | None:
        return left.pop() if left else None

    answer = SimpleNamespace(next=following, model=SimpleNamespace(id="m"), usage=usage_pb2.Usage())
    message: Json = (await chat_reply.whole(answer, "r"))["choices"][0]["message"]  # type: ignore[arg-type]
    return message


async def test_claudes_reasoning_is_proved_by_the_id_where_a_client_keeps_its_text_alone() -> None:
    """`reasoning_content` and the calls are what most clients keep; the provider sees its ids as it made them."""
    pieces = ("hm, ", b""), ("yes", b""), ("", b"U0lH")
    said = await said_by_claude(*pieces)
    assert said["tool_calls"][1]["id"] == "call_1"
    chunks = chat_reply.Chunks(SimpleNamespace(model=SimpleNamespace(id="m")), "r", include_usage=False)  # type: ignore[arg-type]
    told = [json.loads(each[6:]) for each in chunks.of(thoughtful(pieces)).split(b"\n\n") if each]
    deltas = [call for chunk in told for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [call["id"] for call in deltas] == [call["id"] for call in said["tool_calls"]]
    kept = {name: said[name] for name in ("reasoning_content", "tool_calls")}
    thought, text, *calls = assistant(**kept)
    assert thought.reasoning == text_pb2.ReasoningPart(text="hm, yes", signature=b"U0lH", signer="anthropic")
    assert text.text == "ok"
    assert [call.tool_call.id for call in calls] == ["call_0", "call_1"]
    turns = [{"role": "user", "content": "hi"}, {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"]}]
    body = json.dumps({"model": "m", "messages": [turns[0], {**turns[1], "content": "x"}]}).encode()
    assert chat_request.request_from(body).request.messages[1].parts[0].tool_result.tool_call_id == "call_0"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("signer", ["anthropic", "google"])
async def test_googles_dialect_tells_whose_a_signature_is(streamed: bool, signer: str) -> None:
    """A signature comes after its text, whole or streamed, and the vendor's name goes round with it."""
    events = [text_pb2.ReasoningDelta(text="hm"), text_pb2.ReasoningDelta(signature=SIGNATURE, signer=signer)]
    left = [text_service_pb2.GenerateTextResponse(events=[text_pb2.TextEvent(reasoning=e)]) for e in events]

    async def following() -> text_service_pb2.GenerateTextResponse | None:
        return left.pop(0) if left else None

    answer = SimpleNamespace(next=following, model=SimpleNamespace(id="m"), usage=usage_pb2.Usage())
    reply = TextReply(answer, "r", thoughts=True)  # type: ignore[arg-type]
    parts: list[Json] = []
    while await reply.advance():
        if streamed:
            parts += (reply.render(last=False) or {"candidates": []})["candidates"][0]["content"]["parts"]
    if not streamed:
        parts = (reply.render(last=True) or {})["candidates"][0]["content"]["parts"]
    assert all(part.get("thought") for part in parts) == (signer == "anthropic")
    content = msgspec.convert({"role": "model", "parts": parts}, bodies.Content)
    (message,) = text_request.messages_from([content], None)
    reasoning = [part.reasoning for part in message.parts]
    assert "".join(part.text for part in reasoning) == "hm"
    assert (reasoning[-1].signature, reasoning[-1].signer) == (SIGNATURE, signer)


@pytest.mark.parametrize("text", ["hm, yes ", "hm", "", "음"])
async def test_reasoning_that_a_client_changed_is_not_proved(text: str) -> None:
    """Claude refuses a signature on another text, so none is sent."""
    said = await said_by_claude(("hm, yes", b""), ("", b"U0lH"))
    parts = assistant(reasoning_content=text, tool_calls=said["tool_calls"])
    assert all(not part.reasoning.signature for part in parts)


@pytest.mark.parametrize(
    "pieces",
    [
        (("a", b""), ("", b"U0lH"), ("", b"opaque")),
        (("a", b""), ("", b"U0lH"), ("b", b""), ("", b"U0lI")),
        (("a", b""), ("", b"U0lH"), ("b", b"")),
        (("a", b""),),
    ],
)
async def test_an_id_proves_one_thought_alone(pieces: tuple[tuple[str, bytes], ...]) -> None:
    """Of several, a client that joins their texts could give none back as it was."""
    assert [call["id"] for call in (await said_by_claude(*pieces))["tool_calls"]] == ["call_0", "call_1"]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_plain_reasoning_is_taken_back(name: str) -> None:
    """By either name that servers give it."""
    assert [part.WhichOneof("part") for part in assistant(**{name: "hm"})] == ["reasoning", "text"]


@pytest.mark.parametrize(
    "details", [1, "x", [1], [{}], [{"type": "reasoning.text", "text": 1, "signature": 2}], [{"type": [], "data": "?"}]]
)
def test_details_that_cannot_be_read_are_left_out(details: object) -> None:
    """They are a hint, and never refuse a turn."""
    assert [part.WhichOneof("part") for part in assistant(reasoning_details=details)] == ["text"]


def test_a_tools_name_is_not_a_participants() -> None:
    """`name` on a tool's result is the function's, as LangGraph sends it."""
    turns = [
        {"role": "user", "name": "ann", "content": "look"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [kept_by("neither")],
            "cache_control": {"type": "ephemeral"},
        },
        {"role": "tool", "name": "look", "tool_call_id": signed_id("call_1", b"x"), "content": "seen"},
    ]
    request = chat_request.request_from(json.dumps({"model": "m", "messages": turns}).encode()).request
    assert [message.name for message in request.messages] == ["ann", "", ""]
    assert request.messages[2].parts[0].tool_result.name == "look"
    assert extra_content(b"x") == {"google": {"thought_signature": "eA=="}}
