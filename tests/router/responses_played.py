"""Requests of the Responses dialect as they are read, and its answers, held to the types of OpenAI's client."""

from __future__ import annotations

import json
from typing import Any, get_args

from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from moa.common.v1 import usage_pb2
from moa.common.v1.vendor_pb2 import VendorFields
from moa.text.v1 import text_pb2
from services.router.dialects.responses import answering, asked
from tests.router.test_openai_dialect import message

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


KNOWN = {each.model_fields["type"].annotation for each in get_args(get_args(ResponseStreamEvent)[0])}


TYPES = {word for literal in KNOWN for word in get_args(literal)}


ASKED: dict[str, Any] = {
    "model": "m",
    "input": "hi",
    "instructions": "be brief",
    "tools": [
        {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False},
        {"type": "custom", "name": "g", "format": {"type": "grammar", "syntax": "regex", "definition": "a+"}},
    ],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}, "verbosity": "low"},
    "max_output_tokens": 99,
    "metadata": {"a": "b"},
}


def read(**fields: Any) -> asked.Read:
    return asked.read(json.dumps({"model": "m", "input": "hi", **fields}).encode())


def thought(text: str = "", signature: bytes = b"", signer: str = "") -> text_pb2.TextEvent:
    return text_pb2.TextEvent(reasoning=text_pb2.ReasoningDelta(text=text, signature=signature, signer=signer))


def called(index: int, words: str, **first: Any) -> text_pb2.TextEvent:
    return text_pb2.TextEvent(tool_call=text_pb2.ToolCallDelta(call_index=index, arguments_json=words, **first))


def finished(**fields: Any) -> list[text_pb2.TextEvent]:
    usage = usage_pb2.Usage(prompt_tokens=9, cached_tokens=4, completion_tokens=5, reasoning_tokens=2, exact=True)
    return [
        text_pb2.TextEvent(candidate_finished=text_pb2.CandidateFinished(**fields)),
        text_pb2.TextEvent(finished=text_pb2.Finished(usage=usage)),
    ]


def carrying(event: text_pb2.TextEvent, fields: dict[str, Any]) -> text_pb2.TextEvent:
    event.vendor.CopyFrom(VendorFields(vendor="openai", json=json.dumps(fields).encode()))
    return event


def events(told: asked.Read, *played: text_pb2.TextEvent) -> list[dict[str, Any]]:
    """Return the events of an answer, each valid by the client's types, whose numbers and places are in order."""
    response = answering.Response("m", "rid", told.echo, streams=True)
    out = response.begin() + b"".join(response.of(message(event)) for event in played)
    found = []
    for number, block in enumerate(out.decode().removesuffix("\n\n").split("\n\n")):
        head, _, data = block.partition("\n")
        one = json.loads(data.removeprefix("data: "))
        assert head == f"event: {one['type']}"
        assert one["type"] in TYPES
        assert one["sequence_number"] == number
        EVENT.validate_json(data.removeprefix("data: "))
        found.append(one)
    check_order(found)
    return found


def check_order(found: list[dict[str, Any]]) -> None:
    """Hold the events to the order that the API's reference tells."""
    assert [one["type"] for one in found[:2]] == ["response.created", "response.in_progress"]
    assert found[-1]["type"] in ("response.completed", "response.incomplete", "response.failed")
    begun: dict[int, str] = {}
    over: set[int] = set()
    for one in found:
        index: Any = one.get("output_index")
        if one["type"] == "response.output_item.added":
            assert index == len(begun)
            begun[index] = one["item"]["id"]
        elif one["type"] == "response.output_item.done":
            assert begun[index] == one["item"]["id"]
            assert index not in over
            over.add(index)
        elif index is not None:
            assert begun[index] == one["item_id"]
            assert index not in over
    if found[-1]["type"] != "response.failed":
        assert over == set(begun)
        output = found[-1]["response"]["output"]
        done = {one["output_index"]: one["item"] for one in found if one["type"] == "response.output_item.done"}
        assert output == [done[index] for index in sorted(done)]


def whole(told: asked.Read, *played: text_pb2.TextEvent) -> dict[str, Any]:
    response = answering.Response("m", "rid", told.echo, streams=False)
    assert b"".join(response.of(message(event)) for event in played) == b""
    return dict(json.loads(response.whole()))
