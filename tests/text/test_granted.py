"""A provider that gives more than was asked for is stopped; one that does not is left alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from moa.text.v1.text_pb2 import FinishReason, TextEvent
from services.catalogue import Model
from services.text.targets import ADAPTERS
from tests.emulators import aws
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.script import Script
from tests.text.harness import chat, ending_of, text_of, text_service
from tests.text.subjects import SUBJECTS

MOST = 20
ALLOWED = MOST + 8
LENGTH = FinishReason.FINISH_REASON_LENGTH


def _data(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _openai(text: str, candidate: int = 0) -> bytes:
    return _data({"choices": [{"index": candidate, "delta": {"content": text}}]})


def _gemini(text: str, candidate: int = 0) -> bytes:
    return _data({"candidates": [{"index": candidate, "content": {"parts": [{"text": text}]}}]})


def _bedrock(text: str, candidate: int = 0) -> bytes:
    return aws.event_frame("contentBlockDelta", json.dumps({"delta": {"text": text}}).encode())


def _anthropic(text: str, candidate: int = 0) -> bytes:
    return _data({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})


PIECES: Mapping[str, Callable[[str], bytes]] = {
    "openai": _openai,
    "azure": _openai,
    "server": _openai,
    "gemini": _gemini,
    "bedrock": _bedrock,
    "anthropic": _anthropic,
}


def test_every_adapter_is_tried() -> None:
    """A new adapter comes with its pieces."""
    assert set(PIECES) == set(ADAPTERS)


def _read(name: str, pieces: Iterable[bytes], **asked: Any) -> tuple[list[TextEvent], bool]:
    """Read pieces one by one; give the events, and whether the answer was complete before the last."""
    kind = "application/vnd.amazon.eventstream" if name == "bedrock" else "text/event-stream"
    reader = ADAPTERS[name].reader(chat(**asked), Model(id="m", provider="p"), {"content-type": kind})
    events: list[TextEvent] = []
    for piece in pieces:
        events += reader.feed(piece)
        assert reader.failure is None
        if reader.done:
            return events, True
    return events, False


@pytest.mark.parametrize("word", ["word ", "단어 "])
@pytest.mark.parametrize("name", PIECES)
def test_an_answer_longer_than_asked_for_is_ended(name: str, word: str) -> None:
    """It ends as one that reached its length, and is charged no more than was granted."""
    events, complete = _read(name, (PIECES[name](word) for _ in range(1000)), max_tokens=MOST)
    assert complete
    assert MOST <= text_of(events).count(word) <= ALLOWED
    assert ending_of(events) == LENGTH
    usage = events[-1].finished.usage
    assert (usage.completion_tokens, usage.exact) == (MOST, False)


def test_each_candidate_has_its_own_length() -> None:
    """The answer is complete when the last of them is; the other goes on until then, without a word too many."""
    both = (_openai("word ", candidate) for _ in range(1000) for candidate in (0, 1))
    events, complete = _read("openai", both, max_tokens=MOST, candidates=2)
    assert complete
    for candidate in (0, 1):
        mine = [event for event in events if event.candidate == candidate and not event.HasField("finished")]
        assert mine[-1].candidate_finished.reason == LENGTH
        assert sum(event.HasField("candidate_finished") for event in mine) == 1
        assert text_of(events, candidate).count("word ") <= ALLOWED
    assert events[-1].finished.usage.completion_tokens == 2 * MOST


@pytest.mark.parametrize(
    "pieces",
    [
        list("A sentence of some eighteen tokens, written letter by letter as a proxy likes it."),
        ["word "] * MOST,
        ["a long piece that holds many tokens, " * 5] * 2,
        [" " * 2000],
        ["열여덟 ", "토큰 ", "쯤 ", "되는 ", "문장"],
    ],
    ids=["letters", "words", "paragraphs", "spaces", "Korean"],
)
def test_an_answer_within_its_length_is_left_alone(pieces: list[str]) -> None:
    """Neither many pieces nor many letters alone are many tokens."""
    closing = [_data({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}), b"data: [DONE]\n\n"]
    events, _ = _read("openai", [*map(_openai, pieces), *closing], max_tokens=MOST)
    assert text_of(events) == "".join(pieces)
    assert ending_of(events) == FinishReason.FINISH_REASON_STOP


@pytest.fixture
async def upstream() -> AsyncIterator[OpenAIEmulator]:
    async with OpenAIEmulator() as emulator:
        yield emulator


async def test_a_provider_that_goes_on_is_hung_up_on(upstream: OpenAIEmulator, tmp_path: Path) -> None:
    """Through the whole service: the answer is complete, and its socket closed while the provider still speaks."""
    (subject,) = [subject for subject in SUBJECTS if subject.name == "openai"]
    script = Script(text=("word ",) * 200, hold_at=100)
    upstream.scripts.append(script)
    async with text_service(tmp_path, subject.providers(upstream), subject.models(), subject.environment) as service:
        events = await service.ask(chat(max_tokens=MOST))
        assert ending_of(events) == LENGTH
        await script.hung_up()
