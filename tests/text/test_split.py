"""The same answer, whatever pieces its bytes come in: shown on every adapter with the bytes of its emulator."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from moa.text.v1.text_pb2 import ReasoningOptions, TextEvent, Tool
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model, Provider
from services.providers.http.client import Pool
from services.providers.text.ignored import Ignored
from services.text.targets import ADAPTERS
from tests.emulators.script import Call, Counts, Script
from tests.text.harness import chat
from tests.text.subjects import SUBJECTS, Subject

SCRIPT = {
    "reasoning": ("생각", " 🤔"),
    "text": ("안녕", " 🌍 é"),
    "calls": (Call("c1", "look", ('{"무엇": ', '"🐈"}')),),
    "counts": Counts(prompt=9, completion=8, reasoning=3),
}


def _request(stream: bool) -> GenerateTextRequest:
    request = chat(reasoning=ReasoningOptions(include=True), tools=[Tool(name="look")])
    request.stream = stream
    return request


async def _recorded(subject: Subject, stream: bool) -> tuple[Model, dict[str, str], bytes]:
    async with subject.emulator() as emulator:
        row = {**subject.provider(emulator), "id": "p", "makes": "text"}
        provider = Provider(**row)  # type: ignore[arg-type]
        model = Model(id="m", provider="p", upstream=subject.model)
        adapter = ADAPTERS[provider.adapter]
        emulator.scripts.append(Script(**SCRIPT))  # type: ignore[arg-type]
        outgoing = adapter.request_from(_request(stream), model, provider, Ignored())
        headers = await adapter.authority(provider, subject.environment).headers(outgoing)
        pool = Pool(provider.timeouts)
        reply = await pool.send(outgoing, headers)
        body = await reply.read_all()
        kept = {name.lower(): value for name, value in reply.headers.items()}
        reply.close()
        await pool.close()
    return model, kept, body


def _read(
    model: Model, headers: dict[str, str], pieces: Iterable[bytes], stream: bool, adapter: str
) -> list[TextEvent]:
    reader = ADAPTERS[adapter].reader(_request(stream), model, headers)
    events: list[TextEvent] = []
    for piece in pieces:
        events += reader.feed(piece)
    events += reader.end()
    assert reader.failure is None
    for event in events:
        if event.HasField("tool_call") and event.tool_call.id:
            event.tool_call.id = "made"  # protocols without ids get random ones
    return events


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
@pytest.mark.parametrize("stream", [True, False])
async def test_every_byte_boundary(subject: Subject, stream: bool) -> None:
    """Split at each byte, and byte by byte, the events are those of the answer in one piece."""
    model, headers, body = await _recorded(subject, stream)
    adapter = str(subject.provider(subject.emulator())["adapter"])

    def read(pieces: Iterable[bytes]) -> list[TextEvent]:
        return _read(model, headers, pieces, stream, adapter)

    expected = read([body])
    kinds = {event.WhichOneof("event") for event in expected}
    assert {"reasoning", "text", "tool_call", "candidate_finished", "finished"} <= kinds
    for at in range(1, len(body)):
        assert read([body[:at], body[at:]]) == expected, f"split at byte {at}"
    assert read([body[i : i + 1] for i in range(len(body))]) == expected
