"""Errors amid an answer in shapes that no protocol has, and pieces of kinds that no event has a form for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moa.text.v1.text_pb2 import FinishReason, TextEvent
from services.catalogue import Model
from services.common import errors
from services.providers.text.base import Reader
from services.text.targets import ADAPTERS
from tests.emulators.aws import event_frame
from tests.text.harness import chat, reasoning_of, text_of

Json = dict[str, Any]

MODEL = Model(id="m", provider="p")
SSE = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}
AWS_STREAM = {"content-type": "application/vnd.amazon.eventstream"}


def _frame(value: Json) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _text(adapter: str, text: str, finish: str | None = None) -> bytes:
    if adapter == "openai":
        return _frame({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})
    candidate = {"content": {"parts": [{"text": text}]}, **({"finishReason": finish.upper()} if finish else {})}
    return _frame({"candidates": [candidate]})


def _read(adapter: str, *pieces: bytes, headers: dict[str, str] = SSE) -> tuple[list[TextEvent], Reader]:
    reader = ADAPTERS[adapter].reader(chat(), MODEL, headers)
    events: list[TextEvent] = []
    for piece in pieces:
        if reader.failure is None:
            events += reader.feed(piece)
    return ([*events, *reader.end()] if reader.failure is None else events), reader


ERRORS: dict[str, tuple[bytes, type[errors.MoaError]]] = {
    "object: error": (
        _frame({"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}),
        errors.UpstreamRejected,
    ),
    "object: error, of a rate": (_frame({"object": "error", "code": 429, "choices": []}), errors.UpstreamRateLimited),
    "a detail": (_frame({"detail": "CUDA out of memory"}), errors.UpstreamFailed),
    "details": (_frame({"detail": [{"loc": ["body"], "msg": "bad", "type": "missing"}]}), errors.UpstreamFailed),
    "an error in words": (_frame({"error": "CUDA out of memory"}), errors.UpstreamFailed),
    "an error in a list": (_frame({"errors": [{"message": "slow down", "code": 429}]}), errors.UpstreamRateLimited),
    "an error of another form": (_frame({"error": [{"message": {}, "code": 503}]}), errors.UpstreamOverloaded),
    "code and message": (_frame({"code": 503, "message": "busy", "request_id": "r"}), errors.UpstreamOverloaded),
    "code and message in words": (_frame({"code": "Throttling", "message": "slow down"}), errors.UpstreamFailed),
    "a message": (_frame({"message": "Endpoint request timed out"}), errors.UpstreamFailed),
    "a status": (_frame({"base_resp": {"status_code": 1004, "status_msg": "no"}}), errors.UpstreamFailed),
    "an event": (b'event: error\ndata: {"message": "busy", "code": 503}\n\n', errors.UpstreamOverloaded),
    "an event of words": (b"event: error\ndata: out of memory\n\n", errors.UpstreamFailed),
    "an event of nothing": (b"event: error\n\n", errors.UpstreamFailed),
    "an event of an end": (b"event: error\ndata: [DONE]\n\n", errors.UpstreamFailed),
}


@pytest.mark.parametrize("adapter", ["openai", "gemini"])
@pytest.mark.parametrize("shape", ERRORS)
def test_an_error_in_any_shape_ends_the_answer(adapter: str, shape: str) -> None:
    """What came before stands; a stop that follows is not believed; a typed code says what it is."""
    error, kind = ERRORS[shape]
    events, reader = _read(
        adapter, _text(adapter, "good"), error + _text(adapter, "rest", "stop") + b"data: [DONE]\n\n"
    )
    assert type(reader.failure) is kind
    assert text_of(events) == "good"
    assert not any(event.HasField("finished") for event in events)


@pytest.mark.parametrize("adapter", ["openai", "gemini"])
def test_an_error_in_a_whole_answer_is_one(adapter: str) -> None:
    """Though its status says that all is well."""
    for error, kind in ERRORS.values():
        if error.startswith(b"data: "):
            _, reader = _read(adapter, error[6:].strip(), headers=JSON)
            assert type(reader.failure) is kind


def test_typed_codes_say_what_an_error_is() -> None:
    """Each vendor's own."""
    _, reader = _read("openai", _frame({"object": "error", "message": "m", "type": "NotFoundError", "code": 404}))
    assert type(reader.failure) is errors.ModelNotFound
    _, reader = _read("openai", _frame({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}))
    assert type(reader.failure) is errors.UpstreamOverloaded
    choice = {"index": 0, "error": {"code": 429, "message": "slow"}, "finish_reason": "error"}
    _, reader = _read("openai", _frame({"choices": [choice]}))
    assert type(reader.failure) is errors.UpstreamRateLimited
    _, reader = _read("gemini", b'data: [{"error": {"code": 503, "status": "UNAVAILABLE", "message": "busy"}}]\n\n')
    assert type(reader.failure) is errors.UpstreamOverloaded


QUIET: tuple[Json, ...] = (
    {"type": "ping"},
    {"id": "1", "object": "chat.completion.chunk", "model": "m"},
    {"timings": {"predicted_ms": 5.0}},
    {"code": 0, "message": "ok", "choices": []},
    {},
)


@pytest.mark.parametrize("quiet", QUIET)
def test_a_piece_that_holds_no_word_breaks_nothing(quiet: Json) -> None:
    """Signs of life, counters, and codes that say that all is well."""
    events, reader = _read("openai", _text("openai", "good"), _frame(quiet), _text("openai", " rest", "stop"))
    assert (text_of(events), reader.failure) == ("good rest", None)


@pytest.mark.parametrize("adapter", ["openai", "gemini"])
def test_a_piece_of_an_unknown_form_may_be_a_word(adapter: str) -> None:
    """An answer that may lack one is no success."""
    events, reader = _read(
        adapter, _text(adapter, "good"), _frame({"response": " lost"}), _text(adapter, " rest", "stop")
    )
    assert text_of(events) == "good"
    assert type(reader.failure) is errors.UpstreamBroken


def test_an_unknown_event_of_converse_may_be_a_word() -> None:
    """Likewise; one without text is read over."""
    word = event_frame("contentBlockDelta", b'{"contentBlockIndex": 0, "delta": {"text": "good"}}')
    stop = event_frame("messageStop", b'{"stopReason": "end_turn"}')
    events, reader = _read("bedrock", word, event_frame("pulse", b'{"p": 1}'), stop, headers=AWS_STREAM)
    assert (text_of(events), reader.failure) == ("good", None)
    _, reader = _read("bedrock", word, event_frame("aside", b'{"say": "lost"}'), stop, headers=AWS_STREAM)
    assert type(reader.failure) is errors.UpstreamBroken


UNSAID: dict[str, tuple[str, dict[str, str], bytes]] = {
    "openai, an end mark alone": ("openai", SSE, _text("openai", "good") + b"data: [DONE]\n\n"),
    "openai, empty": ("openai", SSE, _text("openai", "good", "") + b"data: [DONE]\n\n"),
    "openai, whole": ("openai", JSON, b'{"choices": [{"message": {"content": "good"}, "finish_reason": null}]}'),
    "gemini, unspecified": ("gemini", SSE, _text("gemini", "good", "FINISH_REASON_UNSPECIFIED")),
    "gemini, whole": ("gemini", JSON, b'{"candidates": [{"content": {"parts": [{"text": "good"}]}}]}'),
    "gemini, without an image": ("gemini", SSE, _text("gemini", "good", "NO_IMAGE")),
    "bedrock": (
        "bedrock",
        AWS_STREAM,
        event_frame("contentBlockDelta", b'{"delta": {"text": "good"}}') + event_frame("messageStop", b"{}"),
    ),
    "bedrock, whole": ("bedrock", JSON, b'{"output": {"message": {"content": [{"text": "good"}]}}, "stopReason": ""}'),
}


@pytest.mark.parametrize("name", UNSAID)
def test_an_answer_that_does_not_say_why_it_ended_is_one(name: str) -> None:
    """Where it has words, and the provider says that it ended: by an end mark, an empty reason, or a whole body."""
    adapter, headers, data = UNSAID[name]
    events, reader = _read(adapter, data, headers=headers)
    assert (text_of(events), reader.failure) == ("good", None)
    (ended,) = [event.candidate_finished for event in events if event.HasField("candidate_finished")]
    assert ended.reason == FinishReason.FINISH_REASON_STOP


@pytest.mark.parametrize("adapter", ["openai", "gemini"])
def test_an_end_without_a_word_or_a_reason_is_none(adapter: str) -> None:
    """The connection ended, or an end mark came: nothing says that this is an answer."""
    _, reader = _read(adapter, _text(adapter, "good"))
    assert type(reader.failure) is errors.UpstreamBroken
    _, reader = _read(adapter, _text(adapter, ""), b"data: [DONE]\n\n")
    assert type(reader.failure) is errors.UpstreamBroken


def _call(*pieces: Json, finish: str = "tool_calls") -> bytes:
    deltas = [{"index": 0, "delta": {"tool_calls": [{"index": 0, **piece}]}} for piece in pieces]
    return b"".join(
        _frame({"choices": [each]}) for each in [*deltas, {"index": 0, "delta": {}, "finish_reason": finish}]
    )


def test_a_name_that_comes_late_is_a_calls_name() -> None:
    """The call is told once it has one, with the arguments that came before."""
    data = _call({"id": "a", "function": {"arguments": '{"x"'}}, {"function": {"name": "f", "arguments": ":1}"}})
    events, reader = _read("openai", data)
    assert reader.failure is None
    (call,) = [event.tool_call for event in events if event.HasField("tool_call")]
    assert (call.id, call.name, call.arguments_json) == ("a", "f", '{"x":1}')


NAMELESS: tuple[bytes, ...] = (
    _call({"id": "a", "function": {"arguments": "{}"}}),
    _call({"function": {"name": "f"}}, {"function": {"name": "g", "arguments": "{}"}}),
)


@pytest.mark.parametrize("data", NAMELESS)
def test_a_call_without_one_name_fails_the_answer(data: bytes) -> None:
    """Nobody could answer it."""
    _, reader = _read("openai", data)
    assert type(reader.failure) is errors.UpstreamBroken


@pytest.mark.parametrize("name", ["reasoning_text", "thinking", "thought"])
def test_reasoning_by_another_name_is_reasoning(name: str) -> None:
    """Text by a name that nobody knows is none, and fails the answer."""
    request = chat()
    request.reasoning.include = True

    def read(field: str) -> tuple[str, Reader]:
        reader = ADAPTERS["openai"].reader(request, MODEL, SSE)
        events = reader.feed(
            _frame({"choices": [{"delta": {"content": "", field: "hm"}}]}) + _text("openai", "good", "stop")
        )
        return reasoning_of([*events, *reader.end()]), reader

    reasoning, reader = read(name)
    assert (reasoning, reader.failure) == ("hm", None)
    assert type(read("murmur")[1].failure) is errors.UpstreamBroken
