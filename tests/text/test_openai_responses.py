"""OpenAI's Responses API as an upstream: what is sent, and what an answer becomes, by any dialect."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from typing import Any

import pytest

from moa.common.v1.vendor_pb2 import VendorFields
from moa.text.v1.text_pb2 import FinishReason, TextEvent, ToolChoice
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model, Provider
from services.catalogue._limits import Limits
from services.common.errors import ContentPolicy, MoaError, Unsupported, UpstreamBroken
from services.providers.openai.text import ADAPTER
from services.providers.text.ignored import Ignored
from services.router.dialects.openai import chat_request
from services.router.dialects.responses import answering, asked
from services.text import capable
from tests.emulators import openai_responses
from tests.emulators.openai import MODELS
from tests.emulators.openai_responses import SEALED, Told
from tests.emulators.script import Call, Counts, Script
from tests.router import responses_played
from tests.router.test_responses_dialect import changed

PROVIDER = Provider(id="p", adapter="openai", makes="text", base_url="https://api.example/v1")
ABLE = frozenset({"tools", "vision", "reasoning", "json", "json_schema", "logprobs"})


def model(**limits: Any) -> Model:
    return Model(
        id="m", provider="p", upstream="o4-mini", capabilities=ABLE, limits=Limits(method="responses", **limits)
    )


def sent(request: GenerateTextRequest, **limits: Any) -> tuple[dict[str, Any], list[str]]:
    """Return what is sent for a request, which the emulator takes, and what is ignored."""
    ignored = Ignored.of(request)
    capable.check(request, model(**limits), ADAPTER, ignored)
    outgoing = ADAPTER.request_from(request, model(**limits), PROVIDER, ignored)
    assert str(outgoing.url) == "https://api.example/v1/responses"
    body = json.loads(bytes(outgoing.body))
    openai_responses.check(body, models=MODELS)
    return body, ignored.names


def responses(**fields: Any) -> GenerateTextRequest:
    return asked.read(json.dumps({"model": "m", "input": "hi", **fields}).encode()).request


def chats(**fields: Any) -> GenerateTextRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return chat_request.request_from(json.dumps(body).encode()).request


def read(request: GenerateTextRequest, data: bytes, *, streamed: bool = True, step: int = 0) -> list[TextEvent]:
    headers = {"content-type": "text/event-stream" if streamed else "application/json"}
    reader = ADAPTER.reader(request, model(), headers)
    events: list[TextEvent] = []
    for at in range(0, len(data), step or len(data)):
        events += reader.feed(data[at : at + (step or len(data))])
    events += reader.end() if reader.failure is None else []
    if reader.failure is not None:
        raise reader.failure
    return events


def played(request: GenerateTextRequest, script: Script, *, step: int = 0) -> list[TextEvent]:
    """Return the events of a streamed script; those of the whole answer say the same."""
    told = Told(json.loads(bytes(ADAPTER.request_from(request, model(), PROVIDER, Ignored()).body)), script)
    opening, pieces, closing = told.events()
    events = read(request, b"".join([*opening, *pieces, *closing]), step=step)
    whole = read(request, json.dumps(told.response()).encode(), streamed=False)
    assert joined(whole) == joined(events)
    return events


def joined(events: list[TextEvent]) -> dict[str, Any]:
    """Return what events say, however it is cut."""
    calls: dict[int, list[str]] = {}
    for event in events:
        if event.HasField("tool_call"):
            call = event.tool_call
            calls.setdefault(call.call_index, ["", "", ""])
            for place, word in enumerate((call.id, call.name, call.arguments_json)):
                calls[call.call_index][place] += word
    return {
        "text": "".join(event.text.text for event in events),
        "reasoning": "".join(event.reasoning.text for event in events),
        "signature": b"".join(event.reasoning.signature for event in events),
        "calls": calls,
        "ends": [event.candidate_finished.reason for event in events if event.HasField("candidate_finished")],
        "refusal": "".join(event.candidate_finished.refusal for event in events),
        "usage": [event.finished.usage.SerializeToString() for event in events if event.HasField("finished")],
    }


TOOLS = [
    {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}},
    {"type": "custom", "name": "g", "format": {"type": "grammar", "syntax": "regex", "definition": "a+"}},
]
LOOP: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": SEALED + "1"},
    {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "phase": "commentary",
     "content": [{"type": "output_text", "text": "I look", "annotations": []}]},
    {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
    {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "aa"},
    {"type": "function_call_output", "call_id": "c1", "output": "r1"},
    {"type": "custom_tool_call_output", "call_id": "c2", "output": "r2"},
]  # fmt: skip


def test_what_a_responses_caller_says_arrives_as_it_was() -> None:
    """Items come back in order, without ids; reasoning is sealed as it came; fields of the API's own pass."""
    body, ignored = sent(
        responses(
            input=LOOP, instructions="be", tools=TOOLS, tool_choice={"type": "custom", "name": "g"},
            parallel_tool_calls=False, max_output_tokens=99, metadata={"a": "b"}, truncation="auto", user="u",
            reasoning={"effort": "low", "summary": "auto"}, text={"verbosity": "low"}, prompt_cache_key="k",
            include=["web_search_call.results"],
        )
    )  # fmt: skip
    assert ignored == []
    assert body["input"][0] == {"role": "system", "content": "be"}
    assert body["input"][2:4] == [
        {"type": "reasoning", "summary": [], "encrypted_content": SEALED + "1"},
        {"role": "assistant", "content": "I look", "phase": "commentary"},
    ]
    assert [item.get("type") for item in body["input"][4:]] == [item["type"] for item in LOOP[3:]]
    assert (body["store"], body["max_output_tokens"], body["truncation"]) == (False, 99, "auto")
    assert body["reasoning"] == {"effort": "low", "summary": "auto"}
    assert body["text"] == {"verbosity": "low"}
    assert body["include"] == ["reasoning.encrypted_content", "web_search_call.results"]
    assert body["tool_choice"] == {"type": "custom", "name": "g"}
    assert (body["metadata"], body["prompt_cache_key"], body["user"]) == ({"a": "b"}, "k", "u")
    assert body["tools"][0]["strict"] is None


def test_a_chat_is_said_in_the_apis_words() -> None:
    """Functions are as strict as their caller wrote them, hints that it has not are named, and budgets are efforts."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}
    body, ignored = sent(
        chats(tools=[tool], tool_choice="required", response_format=form, verbosity="high", seed=3, max_tokens=4,
              logit_bias={"1": 2}, reasoning_effort="high", prediction={"type": "content", "content": "x"})
    )  # fmt: skip
    assert body["tools"][0] | {"parameters": 0} == {"type": "function", "name": "f", "parameters": 0, "strict": False}
    assert body["tool_choice"] == "required"
    assert body["text"]["format"]["strict"] is True
    assert body["text"]["verbosity"] == "high"
    assert body["reasoning"] == {"effort": "high"}
    assert body["max_output_tokens"] == 16
    assert set(ignored) == {"seed", "logit_bias", "prediction"}


@pytest.mark.parametrize("fields", [{"stop": ["x"]}, {"n": 2}])
def test_what_it_cannot_do_is_refused(fields: dict[str, Any]) -> None:
    """Strings that end the answer, and several candidates."""
    with pytest.raises(Unsupported):
        sent(chats(**fields))


HOSTED: dict[str, tuple[dict[str, Any], list[str], bool]] = {
    "mcp": ({"type": "mcp", "server_label": "s", "server_url": "https://x.example"}, [], True),
    "a shell of the caller's": ({"type": "local_shell"}, [], True),
    "a search": ({"type": "web_search"}, [], False),
    "a search that the row names": ({"type": "web_search"}, ["web_search"], True),
    "a search by its version": ({"type": "web_search_preview"}, ["web_search"], True),
    "code": ({"type": "code_interpreter", "container": {"type": "auto"}}, ["code_interpreter"], True),
    "somebody's container": ({"type": "code_interpreter", "container": "cntr_1"}, ["code_interpreter"], False),
    "stored files": (
        {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["f"]}}, ["code_interpreter"], False,
    ),
    "stored texts": ({"type": "file_search", "vector_store_ids": ["v"]}, [], False),
    "stored texts that the row names": ({"type": "file_search", "vector_store_ids": ["v"]}, ["file_search"], True),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTED)
def test_tools_that_run_at_openai(case: str) -> None:
    """They pass as they came; what is billed apart where the model's row names it; what is stored, never by id."""
    tool, named, passes = HOSTED[case]
    if tool["type"] == "mcp":
        choice: Any = {"type": "mcp", "server_label": "s"}
    else:
        choice = {"type": tool["type"]} if tool["type"] in ("code_interpreter", "web_search_preview") else "required"
    request = responses(tools=[tool], tool_choice=choice)
    if passes:
        body, _ = sent(request, hosted_tools=frozenset(named))
        assert body["tools"] == [tool]
        assert body["tool_choice"] == choice
    else:
        with pytest.raises(Unsupported) as refused:
            sent(request, hosted_tools=frozenset(named))
        assert refused.value.param == "tools[0]"
        assert tool["type"] in refused.value.message


def test_chats_refuse_tools_that_run_at_openai_by_name() -> None:
    """A model that is asked by chats has none of them, nor items of their calls."""
    plain = Model(id="m", provider="p", capabilities=ABLE)
    with pytest.raises(Unsupported, match=r"\(web_search\)"):
        capable.check(responses(tools=[{"type": "web_search"}]), plain, ADAPTER, Ignored())
    item = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    with pytest.raises(Unsupported, match=r"\(web_search_call\)"):
        capable.check(responses(input=[item, {"role": "user", "content": "x"}]), plain, ADAPTER, Ignored())


def test_chats_name_what_only_the_responses_api_takes() -> None:
    """A model of the same vendor that is asked by chats takes their hints, and the others are named."""
    ignored = Ignored()
    plain = Model(id="m", provider="p", capabilities=ABLE)
    request = responses(truncation="auto", metadata={"a": "b"}, reasoning={"summary": "auto"})
    body = json.loads(bytes(ADAPTER.request_from(request, plain, PROVIDER, ignored).body))
    assert body["metadata"] == {"a": "b"}
    assert "responses" not in body
    assert ignored.names == ["truncation"]


def test_tools_in_items_are_held_to_the_row_too() -> None:
    """An agent that offers its tools in an item reaches OpenAI; nothing that is billed apart hides there, or deeper."""
    custom = {"type": "custom", "name": "exec", "description": "d", "format": {"type": "text"}}
    item = {"type": "additional_tools", "role": "developer", "tools": [
        {"type": "namespace", "name": "functions", "description": "d", "tools": [custom]}]}  # fmt: skip
    call = {"type": "custom_tool_call", "call_id": "c1", "name": "exec", "namespace": "functions", "input": "x"}
    result = {"type": "custom_tool_call_output", "call_id": "c1", "output": "r"}
    asked_for = responses(
        input=[item, {"role": "user", "content": "x"}, call, result], reasoning={"context": "all_turns"}
    )
    ignored = Ignored()
    body = json.loads(bytes(ADAPTER.request_from(asked_for, model(), PROVIDER, ignored).body))
    assert body["input"][0] == item
    assert body["input"][2] == call
    assert body["reasoning"] == {"context": "all_turns"}
    item["tools"][0]["tools"] = [{"type": "web_search"}]  # type: ignore[index]
    with pytest.raises(Unsupported, match="web_search is billed apart"):
        sent(responses(input=[item, {"role": "user", "content": "x"}]))
    events = read(asked_for, b"".join(
        b"data: " + json.dumps(each).encode() + b"\n\n" for each in (
            {"type": "response.output_item.added", "output_index": 0, "item": {**call, "input": ""}},
            {"type": "response.output_item.done", "output_index": 0, "item": call},
            {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": [call]}},
        )))  # fmt: skip
    told = asked.read(json.dumps({"model": "m", "input": "x"}).encode())
    response = answering.Response("m", "rid", told.echo, streams=False)
    for event in events:
        response.take(event)
    (shown,) = json.loads(response.whole())["output"]
    assert (shown["name"], shown["namespace"], shown["input"]) == ("exec", "functions", "x")


def test_own_items_pass_both_ways() -> None:
    """An item of a kind that no contract has reaches a caller of the API as it is, and comes back as it was."""
    item = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}}
    told = asked.read(json.dumps({"model": "m", "input": "x"}).encode())
    frames = [
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress"}},
        {"type": "response.web_search_call.searching", "output_index": 0, "item_id": "ws_1"},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": [item]}},
    ]
    data = b"".join(b"data: " + json.dumps(frame).encode() + b"\n\n" for frame in frames)
    response = answering.Response("m", "rid", told.echo, streams=False)
    for event in read(told.request, data):
        response.take(event)
    (shown,) = json.loads(response.whole())["output"]
    assert shown == item
    body, _ = sent(responses(input=[shown, {"role": "user", "content": "x"}]))
    assert body["input"][0] == item
    with pytest.raises(Unsupported, match="web_search_call"):
        read(chats(), data)


@pytest.mark.parametrize("done", [True, False])
def test_a_hosted_tools_progress_passes(done: bool) -> None:
    """Its events come as they came, with the numbers and places of this answer; a picture's with the picture."""
    picture = base64.b64encode(random.Random(1).randbytes(300_000)).decode()
    item = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": picture}
    own = {"output_index": 7, "item_id": "ig_1", "sequence_number": 40}
    kind = "response.image_generation_call"
    begun = {**item, "status": "in_progress", "result": None}
    frames: list[dict[str, Any]] = [
        {"type": "response.output_text.delta", "output_index": 6, "delta": "Look: "},
        {"type": "response.output_item.added", "output_index": 7, "item": begun},
        {"type": f"{kind}.in_progress", **own},
        {"type": f"{kind}.generating", **own},
        {"type": f"{kind}.partial_image", **own, "partial_image_index": 0, "partial_image_b64": picture},
        {"type": f"{kind}.completed", **own},
        {"type": "response.output_item.done", "output_index": 7, "item": item},
        {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": [item]}},
    ]
    if not done:
        del frames[-2]
    data = b"".join(b"data: " + json.dumps(frame).encode() + b"\n\n" for frame in frames)
    told = responses_played.read()
    found = responses_played.events(told, *read(told.request, data))
    kinds = [event["type"] for event in found if event.get("output_index") == 1]
    assert kinds == [frame["type"] for frame in frames[1:6]] + ["response.output_item.done"]
    assert next(event for event in found if event["type"].endswith("partial_image"))["partial_image_b64"] == picture
    last = found[-1]["response"]["output"][-1]
    assert last == (item if done else {**item, "status": "failed", "result": None})


SCRIPTS = {
    "text": Script(),
    "cut": Script(finish="length"),
    "withheld": Script(finish="content_filter"),
    "refused": Script(text=(), refusal="no"),
    "thought": Script(reasoning=("h", "m"), mark="1", counts=Counts(reasoning=2, cached=3)),
    "calls": Script(
        text=("I look",), reasoning=("h",), finish="tool_calls",
        calls=(Call("c1", "f", ('{"a":', "1}")), Call("c2", "g", ("x", "y"))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("step", [0, 7])
@pytest.mark.parametrize("name", SCRIPTS)
def test_answers(name: str, step: int) -> None:
    """A stream, however its bytes are cut, and a whole answer say the same, with their end and counts."""
    script = SCRIPTS[name]
    got = joined(played(responses(tools=TOOLS, reasoning={"summary": "auto"}), script, step=step))
    assert got["text"] == "".join(script.text)
    assert got["reasoning"] == "".join(script.reasoning)
    assert got["signature"] == ((SEALED + script.mark).encode() if script.reasoning else b"")
    assert got["calls"] == {i: [c.id, c.name, "".join(c.arguments)] for i, c in enumerate(script.calls)}
    assert got["refusal"] == script.refusal
    ends = {"stop": "STOP", "length": "LENGTH", "tool_calls": "TOOL_CALLS", "content_filter": "CONTENT_FILTER"}
    assert got["ends"] == [FinishReason.Value(f"FINISH_REASON_{ends[script.finish]}")]


def test_reasoning_goes_round_through_a_chat() -> None:
    """A chat's caller gives `reasoning_details` back, and OpenAI is shown what it sealed."""
    events = played(chats(reasoning_effort="low"), SCRIPTS["calls"])
    signed = next(event.reasoning for event in events if event.reasoning.signature)
    assert signed.signer == "openai"


def frame(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


BROKEN: dict[str, tuple[bytes, type[MoaError]]] = {
    "no end": (frame(type="response.output_text.delta", output_index=0, delta="x"), UpstreamBroken),
    "no delta": (frame(type="response.output_text.delta", output_index=0), UpstreamBroken),
    "a text of another type": (frame(type="response.output_text.delta", delta=3), UpstreamBroken),
    "words of no call": (
        frame(type="response.function_call_arguments.delta", output_index=4, delta="x"),
        UpstreamBroken,
    ),
    "an item that is none": (frame(type="response.output_item.added", output_index=0, item=3), UpstreamBroken),
    "an error": (frame(type="error", code="invalid_prompt", message="no", param=None), ContentPolicy),
    "a failure": (
        frame(
            type="response.failed", response={"status": "failed", "error": {"code": "invalid_prompt", "message": "no"}}
        ),
        ContentPolicy,
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_read_ends_the_answer(case: str) -> None:
    """An answer that lacks a word is none; a failure that OpenAI tells is its own."""
    data, kind = BROKEN[case]
    with pytest.raises(kind):
        read(responses(), data)


def test_a_named_choice_of_a_function() -> None:
    """It is named with its kind."""
    request = responses(tools=TOOLS, tool_choice={"type": "function", "name": "f"})
    assert request.tool_choice.mode == ToolChoice.MODE_NAMED
    assert sent(request)[0]["tool_choice"] == {"type": "function", "name": "f"}


def test_an_envelope_of_another_vendor_changes_nothing() -> None:
    """Only what speaks OpenAI's API is read."""
    request = responses()
    request.vendor.CopyFrom(VendorFields(vendor="google", json=b'{"responses":{"truncation":"auto"}}'))
    assert "truncation" not in sent(request)[0]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", SCRIPTS)
def test_values_of_other_types_never_break_the_reader(name: str, seed: int) -> None:
    """Whatever stands in an answer, it is read and shown, or is the provider's failure: in a stream, and whole."""
    dice = random.Random(seed)
    request = responses(tools=TOOLS, reasoning={"summary": "auto"})
    opening, pieces, closing = Told(
        {"model": "m", "tools": TOOLS, "reasoning": {"summary": "auto"}}, SCRIPTS[name]
    ).events()
    frames = [line for line in b"".join([*opening, *pieces, *closing]).split(b"\n") if line.startswith(b"data: ")]
    whole = json.loads(frames[-1].removeprefix(b"data: "))["response"]
    for _ in range(30):
        place = dice.randrange(len(frames))
        value = changed(json.loads(frames[place].removeprefix(b"data: ")), dice)
        torn = [*frames[:place], b"data: " + json.dumps(value).encode(), *frames[place + 1 :]]
        for data, streamed in (
            (b"\n\n".join([*torn, b""]), True),
            (json.dumps(changed(whole, dice)).encode(), False),
        ):
            told = asked.read(json.dumps({"model": "m", "input": "x"}).encode())
            shown = answering.Response("m", "rid", told.echo, streams=True)
            with contextlib.suppress(MoaError):
                for event in read(request, data, streamed=streamed):
                    shown.take(event)
