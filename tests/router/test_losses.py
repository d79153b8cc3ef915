"""What is lost on the way of an answer is written in docs/dialects.md, row by row, and nothing else is lost.

Recordings go through a provider's reader, the router's answer, and a dialect's rendering.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from moa.text.v1 import text_pb2, text_service_pb2
from services.catalogue import Model
from services.common import vendor_fields
from services.router.dialects.google.reply import TextReply
from services.router.dialects.openai import chat_reply
from services.router.dialects.reply import encode, frame
from services.router.operations.text import TextAnswer
from services.text.targets import ADAPTERS
from tests.router.answering import text_answer
from tests.router.recordings import RECORDINGS, Recording
from tests.router.rig import Books, MessageStream, Reservation, VerifiedKey

Json = dict[str, Any]

PAGE: Final = Path(__file__).parents[2] / "docs" / "dialects.md"
MODEL: Final = Model(id="m", provider="p", upstream="m", capabilities=frozenset({"tools", "reasoning", "logprobs"}))
_ADAPTERS: Final = {"openai": ADAPTERS["openai"], "google": ADAPTERS["gemini"]}
_NAMES: Final = {"openai": "OpenAI", "google": "Google"}
_FORM: Final = ("choices", "candidates", "object")
"""What only says whether an answer is whole."""
_TYPES: Final = {True: "text/event-stream", False: "application/json"}


def rows(heading: str) -> set[tuple[str, str]]:
    """Return the first two columns of the table below a heading: a dialect and a path."""
    section = PAGE.read_text().split(f"### {heading}\n", 1)[1].split("\n#", 1)[0]
    found = re.findall(r"^\| (\w+) \| `([^`]+)` \| .+ \|$", section, re.MULTILINE)
    assert found
    return set(found)


def events_of(recording: Recording, *, carried: bool = True) -> tuple[list[text_pb2.TextEvent], Exception | None]:
    """Return what the provider's reader makes of a recording."""
    request = text_service_pb2.GenerateTextRequest(stream=recording.streamed)
    request.reasoning.include = True
    if carried:
        request.vendor.vendor = recording.vendor
    reader = _ADAPTERS[recording.vendor].reader(request, MODEL, {"content-type": _TYPES[recording.streamed]})
    pieces = [frame(piece) if recording.streamed else encode(piece) for piece in recording.pieces]
    events = [event for piece in pieces for event in reader.feed(piece)]
    return [*events, *reader.end()], reader.failure


def answering(events: list[text_pb2.TextEvent]) -> TextAnswer:
    """Return the router's answer of events, one a message."""
    messages = [text_service_pb2.GenerateTextResponse(events=[event]) for event in events]
    return text_answer(
        Reservation(VerifiedKey("acc1"), 1, Books()), MessageStream(messages[1:]), messages[0], model=MODEL
    )


async def rendered(recording: Recording, *, stream: bool) -> list[Json]:
    """Return what a caller of the same vendor's dialect gets."""
    events, failure = events_of(recording)
    assert failure is None
    async with answering(events) as answer:
        if recording.vendor == "openai":
            if not stream:
                return [await chat_reply.whole(answer, "r")]
            chunks, out = chat_reply.Chunks(answer, "r", include_usage=True), b""
            while (message := await answer.next()) is not None:
                out += chunks.of(message)
            return [json.loads(line[6:]) for line in out.splitlines() if line.startswith(b"data: {")]
        reply, shown, more = TextReply(answer, "r", thoughts=True), [], True
        while more:
            more = await reply.advance()
            if stream or not more:
                shown.append(reply.render(last=not more))
        return [json.loads(encode(each)) for each in shown if each is not None]


def folded(vendor: str, pieces: list[Json]) -> Json:
    """Return pieces as one object: what a client that gathers everything has in the end."""
    whole: Json = {}
    for piece in copy.deepcopy(pieces):
        name = "choices" if vendor == "openai" else "candidates"
        beside = {key: value for key, value in piece.items() if key not in _FORM}
        whole = {**whole, **{key: value for key, value in beside.items() if value not in (None, "")}}
        for each in piece.get(name) or ():
            said = {"delta": "message"}
            given = {said.get(key, key): value for key, value in each.items()}
            _go_on(whole.setdefault(name, {}).setdefault(each.get("index", 0), {}), given)
    return whole


def _go_on(into: Json, more: Json) -> None:
    for key, value in more.items():
        known = into.get(key)
        if key == "tool_calls":
            for call in value:
                _go_on(into.setdefault(key, {}).setdefault(call.pop("index", 0), {}), call)
        elif key == "parts":
            into[key] = _joined([*(known or []), *value])
        elif isinstance(known, dict) and isinstance(value, dict):
            _go_on(known, value)
        elif isinstance(known, list) and isinstance(value, list):
            into[key] = [*known, *(each for each in value if each not in known)]
        elif isinstance(known, str) and key in ("content", "reasoning_content", "reasoning", "arguments"):
            into[key] = known + (value or "")
        elif value is not None:
            into[key] = value


def _joined(parts: list[Json]) -> list[Json]:
    """Return parts with plain texts that follow each other as one."""
    made: list[Json] = []
    for part in parts:
        if made and set(part) == set(made[-1]) == {"text"}:
            made[-1] = {"text": made[-1]["text"] + part["text"]}
        elif part != {"text": ""}:
            made.append(part)
    return made


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield the path, as tables write it, the exact place and the value of everything that says something."""
    yield from _leaves(value, path, path)


def _leaves(value: Any, path: str, place: str) -> Iterator[tuple[str, str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            shown = f"{path}[]" if isinstance(key, int) else f"{path}.{key}".lstrip(".")
            yield from _leaves(inner, shown, f"{place}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[]", f"{place}.{index}")
    elif value not in (None, ""):
        yield path, place, value


def lost(recording: Recording, shown: list[Json]) -> set[str]:
    """Return the paths of what does not come through, or comes as something else."""
    came = {place: value for _, place, value in leaves(folded(recording.vendor, shown))}
    given = folded(recording.vendor, recording.pieces)
    return {path for path, place, value in leaves(given) if came.get(place) != value}


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("stream", [True, False])
def test_nothing_is_lost_but_what_is_written_down(name: str, stream: bool) -> None:
    """From a provider to a caller of the same vendor's API."""
    recording = RECORDINGS[name]
    shown = asyncio.run(rendered(recording, stream=stream))
    known = {path for dialect, path in rows("Lost within one vendor") if dialect == _NAMES[recording.vendor]}
    assert lost(recording, shown) <= known


def test_no_row_of_the_table_is_out_of_date() -> None:
    """What is written down as lost is lost in some recording: the table may not grow by itself."""
    found = {
        (_NAMES[recording.vendor], path)
        for recording in RECORDINGS.values()
        for stream in (True, False)
        for path in lost(recording, asyncio.run(rendered(recording, stream=stream)))
    }
    assert found == rows("Lost within one vendor")


def test_what_other_dialects_do_not_show_is_written_down() -> None:
    """What only the vendor's own callers are given, by its name."""
    found = set()
    for recording in RECORDINGS.values():
        for event in events_of(recording)[0]:
            for kind, fields in vendor_fields.fields_of(event.vendor, recording.vendor).items():
                for field in fields:
                    found.add((_NAMES[recording.vendor], f"{kind}.{field}"))
    assert found == rows("Lost between vendors")


@pytest.mark.parametrize("name", RECORDINGS)
def test_other_callers_get_what_contracts_type(name: str) -> None:
    """To a caller who speaks another API no event carries anything, and the rest of the answer is the same."""
    recording = RECORDINGS[name]
    events, failure = events_of(recording, carried=False)
    assert not any(event.HasField("vendor") for event in events)
    if failure is None:
        own, _ = events_of(recording)
        kinds = ("text", "tool_call", "candidate_finished", "finished")
        assert [_plain(e) for e in events if e.WhichOneof("event") in kinds] == [
            _plain(e) for e in own if e.WhichOneof("event") in kinds
        ]


def _plain(event: text_pb2.TextEvent) -> str:
    plain = text_pb2.TextEvent()
    plain.CopyFrom(event)
    plain.ClearField("vendor")
    return str(plain)
