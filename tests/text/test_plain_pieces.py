"""Pieces of OpenAI's streams that hold nothing but a word are read in one pass, to the same events as all others."""

from __future__ import annotations

import json
import sys
from types import FrameType
from typing import Any

import pytest

from moa.text.v1.text_pb2 import TextEvent
from services.catalogue import Model
from services.providers.text.base import Reader
from services.text.targets import ADAPTERS
from tests.text.harness import chat

Json = dict[str, Any]

MODEL = Model(id="own", provider="p", upstream="m")
SSE = {"content-type": "text/event-stream"}
WHOLE: Json = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m-2024", "service_tier": "default"}


def _reader(vendor: str) -> Reader:
    request = chat()
    request.vendor.vendor = vendor
    request.reasoning.include = True
    return ADAPTERS["openai"].reader(request, MODEL, SSE)


def _piece(delta: Json, choice: Json | None = None, **whole: Any) -> Json:
    return {**WHOLE, **whole, "choices": [{"index": 0, "delta": delta, "finish_reason": None, **(choice or {})}]}


def _frame(piece: Json) -> bytes:
    return b"data: " + json.dumps(piece).encode() + b"\n\n"


def _arguments(text: str, **call: Any) -> Json:
    return _piece({"tool_calls": [{"index": 0, "function": {"arguments": text}, **call}]})


SAFE = {"hate": {"filtered": False, "severity": "safe"}}
BEGUN = _piece({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f"}}]})
ANSWERS: dict[str, list[Json]] = {
    "words": [_piece({"role": "assistant", "content": ""}), _piece({"content": "a"}), _piece({"content": "b"})],
    "nulls": [
        _piece({"content": "_"}),
        _piece({"content": "a", "refusal": None, "tool_calls": None}, {"logprobs": None}, usage=None),
    ],
    "reasoning beside words": [
        _piece({"content": "_"}),
        _piece({"reasoning_content": "r", "content": "a"}),
        _piece({"reasoning": "s"}),
    ],
    "arguments": [
        BEGUN,
        _piece({"content": "_"}),
        _arguments('{"a"'),
        _arguments(":1}", type="function"),
        _arguments("", id="a"),
    ],
    "arguments before a name": [_arguments("{"), BEGUN, _arguments("}")],
    "a refusal": [_piece({"content": "a"}), _piece({"content": "b", "refusal": "no"})],
    "what nobody knows": [_piece({"content": "a"}), _piece({"content": "b", "new": "x"}), _piece({"content": "c"})],
    "beside the message": [_piece({"content": "a"}, {"new": 1}), _piece({"content": "b"}, {"stop_reason": "x"})],
    "beside the choices": [_piece({"content": "a"}, new=1), _piece({"content": "b"}), _piece({"content": "c"}, new=2)],
    "a tier that changes and comes back": [
        _piece({"content": "a"}),
        _piece({"content": "b"}),
        _piece({"content": "c"}, service_tier="flex", new=1),
        _piece({"content": "d"}),
        _piece({"content": "e"}, service_tier=None, model="m"),
        _piece({"content": "f"}, service_tier="flex"),
    ],
    "what filters found": [
        _piece({"content": "a"}, {"content_filter_results": SAFE}),
        _piece({"content": "b"}, {"content_filter_results": SAFE}),
        _piece({"reasoning": "r", "content": "c"}, {"content_filter_results": {"hate": {"filtered": 0}}}),
        _piece({"content": "d"}, {"content_filter_results": {"hate": {"filtered": False}}}),
        _piece({"content": "e"}, {"content_filter_results": None}),
        _piece({"content": "f"}, {"content_filter_results": {}}),
        _piece({"content": "g"}),
        _piece({"content": "h"}, {"content_filter_results": {}, "index": 1}),
    ],
    "what filters found, too long": [
        _piece({"content": "_"}),
        _piece({"content": "a"}, {"content_filter_results": {"hate": "x" * 300_000}}),
    ],
    "what filters found, broken": [
        _piece({"content": "_"}),
        _piece({"content": "a"}, {"content_filter_results": {"hate": "\ud83d"}}),
    ],
    "usage as it goes": [
        _piece({"content": "_"}),
        _piece({"content": "a"}, usage={"prompt_tokens": 3, "completion_tokens": 1, "more": 1}),
    ],
    "a second candidate": [_piece({"content": "a"}), _piece({"content": "b"}, {"index": 1})],
    "no count": [_piece({"content": "_"}), _piece({"content": "a"}, {"index": -1})],
    "an error": [_piece({"content": "a"}), _piece({"content": "b"}, error={"message": "no", "code": 503})],
    "an error of a candidate": [
        _piece({"content": "_"}),
        _piece({"content": "a"}, {"error": {"message": "no", "code": 503}}),
    ],
    "an end": [_piece({"content": "a"}), _piece({"content": "b"}, {"finish_reason": "stop"}), _piece({"content": "c"})],
    "many of another form, then words": [*[_piece({"content": "a", "new": n}) for n in range(12)], WHOLE | BEGUN],
    "halves of a character": [_piece({"content": "a\ud83d"}), _piece({"content": "\ude00b"}), _piece({"content": "c"})],
}


def _read(pieces: list[Json], vendor: str) -> tuple[list[TextEvent], str, str, int]:
    reader = _reader(vendor)
    events: list[TextEvent] = []
    for piece in pieces:
        if reader.failure is None:
            events += reader.feed(_frame(piece))
    return events, repr(reader.failure), reader.upstream_id, reader.meter.made


@pytest.mark.parametrize("vendor", ["", "openai"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_plain_piece_makes_the_events_that_any_other_makes(answer: str, vendor: str) -> None:
    """A piece with a null of an unknown name is read as what it is without, and is no plain one: both read alike."""
    pieces = ANSWERS[answer]
    assert _read(pieces, vendor) == _read([{**piece, "unknown": None} for piece in pieces], vendor)


@pytest.mark.parametrize("vendor", ["", "openai"])
@pytest.mark.parametrize(
    "piece",
    [_piece({"content": "a"}), _piece({"reasoning_content": "a"}), _arguments("a")],
    ids=["text", "why", "call"],
)
def test_a_plain_piece_is_decoded_once(piece: Json, vendor: str) -> None:
    """Also where whatever no contract types is to pass: there is none in it, which one pass tells."""
    reader = _reader(vendor)
    for before in (BEGUN, piece):
        reader.feed(_frame(before))
    decoded: list[str] = []

    def note(_frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ == "decode":
            decoded.append(repr(called))

    profiled = sys.getprofile()
    sys.setprofile(note)
    try:
        events = reader.feed(_frame(piece))
    finally:
        sys.setprofile(profiled)
    assert events
    assert len(decoded) == 1, decoded


def test_a_call_costs_the_same_however_many_came_before() -> None:
    """Counted in steps of the interpreter, so that a walk over what has come shows."""
    reader = _reader("")
    steps = 0

    def step(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return step

    def begun(number: int) -> int:
        nonlocal steps
        called = {"index": number, "id": f"t{number}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        steps, traced = 0, sys.gettrace()
        sys.settrace(step)
        try:
            events = reader.feed(_frame(_piece({"tool_calls": [called]})))
        finally:
            sys.settrace(traced)
        assert [event.tool_call.call_index for event in events] == [number]
        return steps

    # Python 3.12 tells of no opcode until a second tracer is set.
    _, first, *others = [begun(number) for number in range(200)]
    assert others[-1] <= others[0] < 2 * first
