"""A provider that counts wrongly: its answer stands, charged by what can be read of the counts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from moa.text.v1.text_pb2 import TextEvent
from services.catalogue import Model
from services.common import errors
from services.providers.counts import WRONG
from services.text.targets import ADAPTERS
from tests.counters import count_of
from tests.emulators import aws
from tests.emulators.echo import Echo, EchoEmulator
from tests.text.harness import chat, text_of, text_service
from tests.text.subjects import SUBJECTS

TEXT = "a good answer"


def _event(value: str) -> bytes:
    return f"data: {value}\n\n".encode()


def _openai(counts: str, *, stream: bool) -> bytes:
    if not stream:
        message = json.dumps({"content": TEXT})
        return f'{{"choices": [{{"message": {message}, "finish_reason": "stop"}}], "usage": {counts}}}'.encode()
    piece = json.dumps({"choices": [{"delta": {"content": TEXT}, "finish_reason": "stop"}]})
    return _event(piece) + _event(f'{{"choices": [], "usage": {counts}}}') + _event("[DONE]")


def _gemini(counts: str, *, stream: bool) -> bytes:
    candidates = json.dumps([{"content": {"parts": [{"text": TEXT}]}, "finishReason": "STOP"}])
    answer = f'{{"candidates": {candidates}, "usageMetadata": {counts}}}'
    return _event(answer) if stream else answer.encode()


def _bedrock(counts: str, *, stream: bool) -> bytes:
    if not stream:
        output = json.dumps({"message": {"content": [{"text": TEXT}]}})
        return f'{{"output": {output}, "stopReason": "end_turn", "usage": {counts}}}'.encode()
    return (
        aws.event_frame("contentBlockDelta", json.dumps({"delta": {"text": TEXT}}).encode())
        + aws.event_frame("messageStop", b'{"stopReason": "end_turn"}')
        + aws.event_frame("metadata", f'{{"usage": {counts}}}'.encode())
    )


def _anthropic(counts: str, *, stream: bool) -> bytes:
    if not stream:
        content = json.dumps([{"type": "text", "text": TEXT}])
        return f'{{"type": "message", "content": {content}, "stop_reason": "end_turn", "usage": {counts}}}'.encode()
    piece = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}}
    end = f'{{"type": "message_delta", "delta": {{"stop_reason": "end_turn"}}, "usage": {counts}}}'
    return _event(json.dumps(piece)) + _event(end) + _event('{"type": "message_stop"}')


ANSWERS: Mapping[str, tuple[Callable[..., bytes], tuple[str, str, str], str]] = {
    "openai": (_openai, ("prompt_tokens", "completion_tokens", ""), "text/event-stream"),
    "azure": (_openai, ("prompt_tokens", "completion_tokens", ""), "text/event-stream"),
    "server": (_openai, ("prompt_tokens", "completion_tokens", ""), "text/event-stream"),
    "gemini": (_gemini, ("promptTokenCount", "candidatesTokenCount", "cachedContentTokenCount"), "text/event-stream"),
    "bedrock": (_bedrock, ("inputTokens", "outputTokens", ""), "application/vnd.amazon.eventstream"),
    "anthropic": (_anthropic, ("input_tokens", "output_tokens", "cache_read_input_tokens"), "text/event-stream"),
}
"""How each adapter's provider answers, what it calls prompt, completion and cached tokens, and a stream's type."""

WRONG_COUNTS = {
    "beyond uint32": "4294967296",
    "huge": "1" + "0" * 400,
    "longer than any number": "1" + "0" * 6000,
    "null": "null",
    "string": '"many"',
    "negative": "-7",
    "fraction": "6.5",
    "list": "[7]",
    "object": "{}",
    "boolean": "true",
    "no number": "NaN",
    "without end": "-Infinity",
}


def test_every_adapter_is_tried() -> None:
    """A new adapter comes with its answers."""
    assert set(ANSWERS) == set(ADAPTERS)


def _read(name: str, counts: str, *, stream: bool) -> list[TextEvent]:
    answer, _, kind = ANSWERS[name]
    headers = {"content-type": kind if stream else "application/json"}
    reader = ADAPTERS[name].reader(chat(), Model(id="m", provider="p"), headers)
    events = reader.feed(answer(counts, stream=stream))
    events = [*events, *reader.end()]
    assert reader.failure is None
    return events


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("wrong", WRONG_COUNTS)
@pytest.mark.parametrize("name", ANSWERS)
def test_a_wrong_count_fails_no_answer(name: str, wrong: str, stream: bool) -> None:
    """Prompt or completion, or the whole of it: the text comes, the usage is bounded and not exact."""
    prompt, completion, _ = ANSWERS[name][1]
    written = WRONG_COUNTS[wrong]
    for counts in (
        f'{{"{prompt}": {written}, "{completion}": 5}}',
        f'{{"{prompt}": 7, "{completion}": {written}}}',
        written if written != "null" else '"null"',
    ):
        if counts == "{}" and name == "gemini":
            continue  # where zeros are left out, this says that there were none
        events = _read(name, counts, stream=stream)
        assert text_of(events) == TEXT
        usage = events[-1].finished.usage
        assert not usage.exact
        # What cannot be true is as little as an estimate: it must not cost a caller the day's quota.
        assert 0 < usage.prompt_tokens < 100
        assert 0 < usage.completion_tokens < 100


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("openai", '{"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 8}}'),
        ("gemini", '{"promptTokenCount": 7, "candidatesTokenCount": 5, "cachedContentTokenCount": 8}'),
    ],
)
def test_more_cached_than_prompted_is_all_of_the_prompt(name: str, counts: str, stream: bool) -> None:
    """Cached tokens cost less: no more of them than there are."""
    usage = _read(name, counts, stream=stream)[-1].finished.usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.exact) == (7, 7, 5, False)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("openai", '{"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": {"audio_tokens": 4}}'),
        (
            "gemini",
            '{"promptTokenCount": 7, "candidatesTokenCount": 5, "promptTokensDetails": '
            '[{"modality": "TEXT", "tokenCount": 3}, {"modality": "AUDIO", "tokenCount": 4}]}',
        ),
    ],
)
def test_sound_of_a_prompt_is_counted_apart(name: str, counts: str) -> None:
    """Its tokens have a price of their own."""
    usage = _read(name, counts, stream=True)[-1].finished.usage
    assert (usage.prompt_tokens, usage.prompt_audio_tokens, usage.exact) == (7, 4, True)


@pytest.fixture
async def upstream() -> AsyncIterator[EchoEmulator]:
    async with EchoEmulator() as emulator:
        yield emulator


async def test_wrong_usage_is_measured(upstream: EchoEmulator, tmp_path: Path) -> None:
    """Once an answer, by the provider and by what was wrong; through the whole service."""
    (subject,) = [subject for subject in SUBJECTS if subject.name == "openai"]
    counts = '{"prompt_tokens": -7, "completion_tokens": 99999999999}'
    upstream.echo = Echo("usage", lambda _: _openai(counts, stream=True), content_type="text/event-stream")
    before = {fault: _measured(fault) for fault in ("negative", "range", "type")}
    async with text_service(tmp_path, subject.providers(upstream), subject.models(), subject.environment) as service:
        events = await service.ask(chat())
    assert text_of(events) == TEXT
    assert 0 < events[-1].finished.usage.completion_tokens < 100
    after = {fault: _measured(fault) - count for fault, count in before.items()}
    assert after == {"negative": 1, "range": 1, "type": 0}


def _measured(fault: str) -> float:
    return count_of(WRONG.labels("p", fault))


@pytest.mark.parametrize(
    "piece",
    [
        '{"choices": [{"index": 4294967296, "delta": {"content": "x"}}]}',
        '{"choices": [{"index": -1, "delta": {"content": "x"}}]}',
        '{"choices": [{"delta": {"tool_calls": [{"index": 9999999999, "id": "a", "function": {"name": "f"}}]}}]}',
    ],
)
def test_a_number_that_no_message_holds_is_no_internal_error(piece: str) -> None:
    """A piece with an impossible index is one that cannot be read."""
    reader = ADAPTERS["openai"].reader(chat(), Model(id="m", provider="p"), {"content-type": "text/event-stream"})
    assert reader.feed(_event(piece)) == []
    assert isinstance(reader.failure, errors.UpstreamBroken)


OWN_COUNTS = {
    "reasoning beside the completion": (
        '{"prompt_tokens":32,"completion_tokens":9,"total_tokens":50,'
        '"completion_tokens_details":{"reasoning_tokens":9}}',
        (32, 18, 0, 9, 0),
    ),
    "reasoning alone, beside": (
        '{"prompt_tokens":32,"completion_tokens":0,"total_tokens":41,'
        '"completion_tokens_details":{"reasoning_tokens":9}}',
        (32, 9, 0, 9, 0),
    ),
    "reasoning within": (
        '{"prompt_tokens":32,"completion_tokens":18,"total_tokens":50,'
        '"completion_tokens_details":{"reasoning_tokens":9}}',
        (32, 18, 0, 9, 0),
    ),
    "a cache's hits": (
        '{"prompt_tokens":100,"completion_tokens":9,"total_tokens":109,"prompt_cache_hit_tokens":90}',
        (100, 9, 90, 0, 0),
    ),
    "cached tokens outside of details": (
        '{"prompt_tokens":100,"completion_tokens":9,"total_tokens":109,"cached_tokens":90}',
        (100, 9, 90, 0, 0),
    ),
    "cache writes": (
        '{"prompt_tokens":100,"completion_tokens":9,"total_tokens":109,'
        '"prompt_tokens_details":{"cached_tokens":0,"cache_write_tokens":80}}',
        (100, 9, 0, 0, 80),
    ),
}


@pytest.mark.parametrize("name", OWN_COUNTS)
def test_counts_are_found_where_servers_put_them(name: str) -> None:
    """Each exact, and reasoning part of the completion whichever way it is told."""
    written, wanted = OWN_COUNTS[name]
    reader = ADAPTERS["openai"].reader(chat(), Model(id="m", provider="p"), {"content-type": "text/event-stream"})
    piece = '{"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":"stop"}],"usage":' + written + "}"
    usage = [*reader.feed(_event(piece)), *reader.end()][-1].finished.usage
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens)
    assert (*counts, usage.cache_write_tokens) == wanted
    assert usage.exact


def test_zeros_are_no_count_of_an_answer_with_words() -> None:
    """Some servers send them before they count: without a better count the answer is estimated."""
    reader = ADAPTERS["openai"].reader(chat(), Model(id="m", provider="p"), {"content-type": "text/event-stream"})
    zeros = '{"choices":[{"index":0,"delta":{"content":"hello"}}],"usage":{"prompt_tokens":0,"completion_tokens":0}}'
    last = '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
    usage = [*reader.feed(_event(zeros) + _event(last)), *reader.end()][-1].finished.usage
    assert (usage.prompt_tokens > 0, usage.completion_tokens > 0, usage.exact) == (True, True, False)
