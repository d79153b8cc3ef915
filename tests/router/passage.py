"""An answer on its way: a recording through a provider's reader, the router's answer, and a dialect's rendering."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from moa.text.v1 import text_pb2, text_service_pb2
from services.catalogue import Model
from services.common.errors import MoaError, UpstreamBroken, detail_of, error_of
from services.router.dialects.anthropic import message_reply
from services.router.dialects.google.reply import TextReply
from services.router.dialects.native import text as native
from services.router.dialects.openai import chat_reply
from services.router.dialects.reply import encode, frame
from services.router.operations.text import TextAnswer
from services.text.targets import ADAPTERS
from tests.emulators.aws import event_frame
from tests.router.answering import text_answer
from tests.router.odd_recordings import ODD
from tests.router.played_books import Books, Reservation, VerifiedKey
from tests.router.recordings import RECORDINGS, Json, Recording, Said
from tests.router.rig import MessageStream

ALL: Final = RECORDINGS | ODD
DIALECTS: Final = ("openai", "google", "anthropic", "native")
MODEL: Final = Model(id="m", provider="p", capabilities=frozenset({"tools", "reasoning", "logprobs"}))
_CLAUDE: Final = Model(id="m", provider="p", upstream="anthropic.m", capabilities=MODEL.capabilities)
_ADAPTERS: Final = {
    "openai": ADAPTERS["openai"],
    "google": ADAPTERS["gemini"],
    "aws": ADAPTERS["bedrock"],
    "anthropic": ADAPTERS["anthropic"],
}
_STREAMS: Final = {"aws": "application/vnd.amazon.eventstream"}
_FORM: Final = ("choices", "candidates", "object")
"""What only says whether an answer is whole."""


class Outcome(NamedTuple):
    """What a caller gets: the objects that were shown, and the error that the answer ended with."""

    shown: list[Json]
    error: MoaError | None = None


def events_of(recording: Recording, dialect: str) -> tuple[list[text_pb2.TextEvent], MoaError | None]:
    """Return what the provider's reader makes of a recording for callers of a dialect."""
    request = text_service_pb2.GenerateTextRequest(stream=recording.streamed, candidates=recording.candidates)
    request.reasoning.include = True
    if dialect == recording.vendor:
        request.vendor.vendor = recording.vendor
    kind = _STREAMS.get(recording.vendor, "text/event-stream") if recording.streamed else "application/json"
    model = _CLAUDE if recording.vendor == "aws" else MODEL
    reader = _ADAPTERS[recording.vendor].reader(request, model, {"content-type": kind})
    events: list[text_pb2.TextEvent] = []
    for piece in recording.pieces:
        if reader.failure is None:
            events += reader.feed(_bytes_of(recording, piece))
    if reader.failure is None:
        events += reader.end()
    return events, reader.failure


def _bytes_of(recording: Recording, piece: Json | bytes) -> bytes:
    if isinstance(piece, bytes):
        return (piece if piece.startswith(b"event:") else b"data: " + piece) + b"\n\n"
    if not recording.streamed:
        return encode(piece)
    if recording.vendor != "aws":
        return frame(piece)
    ((name, value),) = piece.items()
    return event_frame(name, encode(value))


def answering(events: list[text_pb2.TextEvent]) -> TextAnswer:
    """Return the router's answer of events, one a message."""
    messages = [text_service_pb2.GenerateTextResponse(events=[event]) for event in events]
    return text_answer(
        Reservation(VerifiedKey("acc1"), 1, Books()), MessageStream(messages[1:]), messages[0], model=MODEL
    )


async def outcome(recording: Recording, dialect: str, *, stream: bool) -> Outcome:
    """Return what a caller of a dialect gets of a recording."""
    events, failure = events_of(recording, dialect)
    if failure is not None:
        events = [*events, text_pb2.TextEvent(error=detail_of(failure, "r"))]
    async with answering(events) as answer:
        if dialect == "google":
            return await _googles(answer, stream=stream)
        if not stream:
            return await _whole(answer, dialect)
        rendering: Any = native.Frames(answer, include_reasoning=True)
        if dialect == "openai":
            rendering = chat_reply.Chunks(answer, "r", include_usage=True)
        elif dialect == "anthropic":
            rendering = message_reply.Events(answer, "r")
        out, error = b"", None
        while (message := await answer.next()) is not None:
            piece = rendering.of(message)
            out += piece
            if message.events and message.events[-1].HasField("error"):
                error = error_of(message.events[-1].error)
            elif b"event: error\n" in piece:
                error = UpstreamBroken("the renderer has told of it")
        shown = [json.loads(line[6:]) for line in out.splitlines() if line.startswith(b"data: {")]
        assert ("error" in shown[-1]) == (error is not None)
        return Outcome(shown if error is None else shown[:-1], error)


async def _whole(answer: TextAnswer, dialect: str) -> Outcome:
    try:
        if dialect == "openai":
            return Outcome([await chat_reply.whole(answer, "r")])
        if dialect == "anthropic":
            return Outcome([await message_reply.whole(answer, "r")])
        return Outcome([await native.whole(answer, include_reasoning=True)])
    except MoaError as error:
        return Outcome([], error)


async def _googles(answer: TextAnswer, *, stream: bool) -> Outcome:
    reply, shown, more = TextReply(answer, "r", thoughts=True), [], True
    error: MoaError | None = None
    while more:
        try:
            more = await reply.advance()
        except MoaError as failure:
            more, error = False, failure
        if stream or not more:
            shown.append(reply.render(last=not more and error is None))
    return Outcome([json.loads(encode(each)) for each in shown if each is not None and (stream or not error)], error)


def folded(vendor: str, pieces: list[Any]) -> Json:
    """Return pieces as one object: what a client that gathers everything has in the end."""
    if vendor == "anthropic":
        return _message_of([piece for piece in pieces if isinstance(piece, dict)])
    whole: Json = {}
    for piece in copy.deepcopy([piece for piece in pieces if isinstance(piece, dict)]):
        name = "choices" if vendor == "openai" else "candidates"
        beside = {key: value for key, value in piece.items() if key not in _FORM}
        whole = {**whole, **{key: value for key, value in beside.items() if value not in (None, "")}}
        for each in piece.get(name) or ():
            said = {"delta": "message"}
            given = {said.get(key, key): value for key, value in each.items() if key != "delta" or value}
            _go_on(whole.setdefault(name, {}).setdefault(int(each.get("index", 0)), {}), given)
    return whole


def _message_of(events: list[Json]) -> Json:
    """Return a message as a client of Anthropic's gathers it."""
    whole: Json = {"content": {}}
    for event in copy.deepcopy(events):
        kind = event.get("type")
        if kind == "message":
            blocks = event.pop("content")
            whole = {**event, "content": dict(enumerate(blocks))}
        elif kind == "message_start":
            whole |= {**event["message"], "content": {}}
        elif kind == "content_block_start":
            whole["content"][event["index"]] = event["content_block"]
        elif kind == "content_block_delta":
            _go_on_with(whole["content"].setdefault(event["index"], {"type": "text"}), event["delta"])
        elif kind == "message_delta":
            whole |= {name: value for name, value in event["delta"].items() if value is not None}
            whole["usage"] = {**whole.get("usage", {}), **event["usage"]}
    for block in whole["content"].values():
        if pieces := block.pop("partial_json", ""):
            block["input"] = json.loads(pieces)
    return whole


def _go_on_with(block: Json, delta: Json) -> None:
    kind = delta.pop("type")
    if kind == "citations_delta":
        block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
        return
    for name, value in delta.items():
        block[name] = block.get(name, "") + value


_JOINED: Final = ("content", "reasoning_content", "reasoning", "refusal", "transcript", "text")


def _go_on(into: Json, more: Json) -> None:
    for key, value in more.items():
        known = into.get(key)
        if key == "tool_calls" and isinstance(value, list):
            for place, call in enumerate(value):
                _go_on(into.setdefault(key, {}).setdefault(int(call.pop("index", place)), {}), call)
        elif key == "arguments":
            into[key] = (known or "") + (value if isinstance(value, str) else encode(value).decode())
        elif key == "parts":
            into[key] = _joined([*(known or []), *value])
        elif isinstance(value, dict) and isinstance(known, dict | None):
            _go_on(into.setdefault(key, {}), value)
        elif isinstance(known, list) and isinstance(value, list):
            into[key] = [*known, *(each for each in value if each not in known)]
        elif isinstance(known, list) and isinstance(value, str):
            known.append({"type": "text", "text": value})
        elif isinstance(known, str) and key in _JOINED:
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


def leaves(value: Any, path: str = "", place: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield the path, as tables write it, the exact place and the value of everything that says something."""
    if isinstance(value, dict):
        for key, inner in value.items():
            shown = f"{path}[]" if isinstance(key, int) else f"{path}.{key}".lstrip(".")
            yield from leaves(inner, shown, f"{place}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[]", f"{place}.{index}")
    elif value not in (None, ""):
        yield path, place, value


def lost(recording: Recording, shown: list[Json]) -> set[str]:
    """Return the paths of what does not come through, or comes as something else, to a caller of the same vendor."""
    came = {place: value for _, place, value in leaves(folded(recording.vendor, shown))}
    given = folded(recording.vendor, recording.pieces)
    # Some servers write an id as a number.
    return {path for path, place, value in leaves(given) if came.get(place) not in (value, str(value))}


def unsaid(recording: Recording, shown: list[Json]) -> set[str]:
    """Return the paths of what a caller of another API is not told in any place."""
    came = [value for _, _, value in leaves(shown)]
    words = "\n".join(value for value in came if isinstance(value, str))
    return {
        path
        for path, _, value in leaves(recording.pieces)
        if not (value in words if isinstance(value, str) else value in came)
    }


def said(dialect: str, shown: list[Json]) -> Said:
    """Return what the first candidate of an answer says to a client that knows the API's published type."""
    if dialect == "native":
        return _said_natively(shown)
    if dialect == "google":
        first = folded(dialect, shown).get("candidates", {}).get(0, {})
        return _said_in_parts(first.get("content", {}).get("parts", []))
    if dialect == "anthropic":
        return _said_in_blocks(folded(dialect, shown))
    message = folded(dialect, shown).get("choices", {}).get(0, {}).get("message", {})
    given = message.get("tool_calls", {})
    calls = [call["function"] for call in (given.values() if isinstance(given, dict) else given)]
    return Said(
        message.get("content") or "",
        message.get("reasoning_content") or "",
        tuple((call["name"], json.loads(call["arguments"] or "{}")) for call in calls),
        message.get("refusal") or "",
    )


def _said_in_blocks(message: Json) -> Said:
    blocks = [message["content"][place] for place in sorted(message["content"])]
    return Said(
        "".join(block["text"] for block in blocks if block["type"] == "text"),
        "".join(block["thinking"] for block in blocks if block["type"] == "thinking"),
        tuple((block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"),
        (message.get("stop_details") or {}).get("explanation") or "",
    )


def _said_in_parts(parts: list[Json]) -> Said:
    texts = [part for part in parts if "text" in part]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    return Said(
        "".join(part["text"] for part in texts if not part.get("thought")),
        "".join(part["text"] for part in texts if part.get("thought")),
        tuple((call["name"], call["args"]) for call in calls),
    )


def _said_natively(shown: list[Json]) -> Said:
    calls = [call["function"] for each in shown for call in each.get("tool_calls", ())]
    return Said(
        "".join(each.get("response", "") for each in shown),
        "".join(each.get("reasoning", "") for each in shown),
        tuple((call["name"], json.loads(call["arguments"] or "{}")) for call in calls),
        "".join(each.get("refusal", "") for each in shown),
    )
