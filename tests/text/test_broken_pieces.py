"""Streams that are broken on the wire: noticed at once, and never a success that lacks a piece."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from yarl import URL

from services.catalogue import Model, Timeouts
from services.common import errors
from services.providers.http.client import Outgoing, Pool
from services.text.targets import ADAPTERS
from tests.emulators import aws
from tests.text.harness import Row, chat, reasoning_of, text_of, text_service

SSE = {"content-type": "text/event-stream"}
MODEL = Model(id="m", provider="p")


def _chunk(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "1", "choices": [choice]}).encode() + b"\n\n"


def _candidate(text: str, finish: str | None = None) -> bytes:
    made = {"content": {"parts": [{"text": text}]}, **({"finishReason": finish} if finish else {})}
    return b"data: " + json.dumps({"candidates": [made]}).encode() + b"\n\n"


BROKEN = {
    "half of a JSON": b'data: {"choices": [{"ind\n\n',
    "bad UTF-8": b'data: {"choices": [{"delta": {"content": "\xff\xfe"}}]}\n\n',
    "half a surrogate": b'data: {"choices": [{"delta": {"content": "\\ud83d"}}]}\n\n',
    "a list": b"data: [1]\n\n",
    "words": b"data: upstream connect error\n\n",
    "another type": b'data: {"choices": 5}\n\n',
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_event_in_place_of_a_word_fails_the_answer(broken: str) -> None:
    """What came before stands; a stop that follows is not believed."""
    reader = ADAPTERS["openai"].reader(chat(), MODEL, SSE)
    events = reader.feed(_chunk("good ") + BROKEN[broken] + _chunk("rest", "stop") + b"data: [DONE]\n\n")
    assert text_of(events) == "good "
    assert isinstance(reader.failure, errors.UpstreamBroken)
    assert not any(event.HasField("finished") for event in events)


@pytest.mark.parametrize("broken", BROKEN)
def test_closing_words_that_cannot_be_read_take_nothing_from_the_answer(broken: str) -> None:
    """After the finish reason nothing of the answer can come: it is whole, without the provider's count."""
    reader = ADAPTERS["openai"].reader(chat(), MODEL, SSE)
    events = reader.feed(_chunk("good", "stop") + BROKEN[broken] + b"data: [DONE]\n\n")
    assert reader.failure is None
    assert text_of(events) == "good"
    assert not events[-1].finished.usage.exact


def test_geminis_early_finish_reasons_are_no_end() -> None:
    """Some of its models write one on every piece: a broken piece after it may still hold a word."""
    reader = ADAPTERS["gemini"].reader(chat(), MODEL, SSE)
    events = reader.feed(_candidate("good ", "STOP") + b"data: {\n\n" + _candidate("rest", "STOP"))
    events = [*events, *reader.end()]
    assert text_of(events) == "good "
    assert isinstance(reader.failure, errors.UpstreamBroken)


@pytest.mark.parametrize("name", ["openai", "gemini"])
def test_what_holds_no_piece_breaks_nothing(name: str) -> None:
    """Comments, empty data, other fields and an end mark."""
    reader = ADAPTERS[name].reader(chat(), MODEL, SSE)
    make = _chunk if name == "openai" else _candidate
    last = "stop" if name == "openai" else "STOP"
    quiet = b": keep\n\ndata:\n\ndata: \n\nevent: ping\n\nid: 3\n\n"
    events = reader.feed(make("good ") + quiet + make("rest", last) + quiet + b"data: [DONE]\n\n")
    events = [*events, *reader.end()]
    assert reader.failure is None
    assert text_of(events) == "good rest"


def _of_lines(piece: bytes) -> bytes:
    """Return an event with its JSON in several lines, as the format of events allows."""
    lines = json.dumps(json.loads(piece.removeprefix(b"data: ")), indent=1).splitlines()
    return b"".join(b"data: %s\n" % line.encode() for line in lines) + b"\n"


@pytest.mark.parametrize("name", ["openai", "gemini"])
def test_a_piece_of_several_lines(name: str) -> None:
    """JSON that is written over several lines is one event; from one server, several events come without a gap."""
    reader = ADAPTERS[name].reader(chat(), MODEL, SSE)
    make = _chunk if name == "openai" else _candidate
    events = reader.feed(_of_lines(make("good ")) + _of_lines(make("rest", "stop" if name == "openai" else "STOP")))
    events = [*events, *reader.end()]
    assert reader.failure is None
    assert text_of(events) == "good rest"


def test_pieces_that_one_line_break_parts() -> None:
    """Each is read, with a line without data between them too."""
    reader = ADAPTERS["openai"].reader(chat(), MODEL, SSE)
    stream = _chunk("good ").strip() + b"\ndata:\n" + _chunk("rest", "stop").strip() + b"\ndata: [DONE]\n\n"
    assert text_of([*reader.feed(stream), *reader.end()]) == "good rest"
    assert reader.failure is None


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TAILS = {
    "no number": b"zz\r\nworld\r\n",
    "negative": b"-5\r\nworld\r\n",
    "huge": b"FFFFFFFFFFFFFFFFFF\r\nworld\r\n",
    "bare CR": b"5\rworld\r\n",
    "bare LF": b"5\nworld\n",
    "NUL": b"\x00\r\n",
    "too much": b"5\r\nworldXX\r\n",
}


@asynccontextmanager
async def _wire(first: bytes, then: bytes) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Yield the address of a server that sends bytes, and more once the event is set, and does not hang up."""
    go, over = asyncio.Event(), asyncio.Event()
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            sizes = [line.partition(b":")[2] for line in head.split(b"\r\n") if line.startswith(b"content-length")]
            await reader.readexactly(int(sizes[0]) if sizes else 0)
            writer.write(first)
            await go.wait()
            writer.write(then)
            await over.wait()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", go
    finally:
        go.set()
        over.set()
        # A connection that outlived its loop would fail whichever test runs when it is collected.
        await asyncio.gather(*filter(None, serving), return_exceptions=True)
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("tail", TAILS)
async def test_a_broken_chunk_size_is_noticed_at_once(tail: str) -> None:
    """The answer is broken when its framing is, not after the time that a silence may take."""
    async with _wire(HEAD + b"5\r\nhello\r\n", TAILS[tail]) as (url, go), asyncio.timeout(20):
        pool = Pool(Timeouts())
        reply = await pool.send(Outgoing(URL(url), b"", {}, "GET"), {})
        assert await reply.read_some() == b"hello"
        go.set()
        with pytest.raises(errors.UpstreamBroken):
            await reply.read_all()
        reply.close()
        await pool.close()


async def test_a_broken_chunk_size_ends_the_answer(tmp_path: Path) -> None:
    """Through the whole service: what came stands, an error event follows at once."""
    word = _chunk("hello")
    async with _wire(HEAD + b"%x\r\n%s\r\n" % (len(word), word), b"zz\r\n") as (url, go):
        provider: Row = {"id": "p", "makes": "text", "adapter": "openai", "base_url": url}
        models: list[Row] = [{"id": "m", "provider": "p"}]
        async with text_service(tmp_path, [provider], models, {}) as service, asyncio.timeout(20):
            messages = aiter(service.call(chat()))
            first = await anext(messages)
            go.set()
            rest = [event async for message in messages for event in message.events]
    assert text_of(first.events) == "hello"
    assert rest[-1].error.reason == errors.UpstreamBroken.reason


def _deltas(*deltas: Row, finish: str = "stop") -> bytes:
    choices = [{"index": 0, "delta": delta} for delta in deltas] + [{"index": 0, "delta": {}, "finish_reason": finish}]
    return b"".join(b"data: " + json.dumps({"choices": [c]}).encode() + b"\n\n" for c in choices) + b"data: [DONE]\n\n"


def _called(index: int | None, call_id: str | None, name: str | None, arguments: object) -> Row:
    return {"tool_calls": [{"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}]}


OWN_WAYS = {
    "content in parts": (_deltas({"content": [{"type": "text", "text": "가"}]}, {"content": "나"}), "가나"),
    "a null and an empty end": (_chunk("a", "") + _deltas({"content": None}), "a"),
    "halves of a character": (
        b'data: {"choices":[{"index":0,"delta":{"content":"A\\ud83d"}}]}\n\n'
        b'data: {"choices":[{"index":0,"delta":{"content":"\\ude00B"}}]}\n\n' + _deltas(),
        "A😀B",
    ),
    "a number as id": (b'data: {"id":5,"choices":[{"index":"0","delta":{"content":"a"}}]}\n\n' + _deltas(), "a"),
}


@pytest.mark.parametrize("name", OWN_WAYS)
def test_servers_own_ways_are_read(name: str) -> None:
    """What can be read is, however a server writes it."""
    data, words = OWN_WAYS[name]
    reader = ADAPTERS["openai"].reader(chat(), MODEL, SSE)
    events = [*reader.feed(data), *reader.end()]
    assert (text_of(events), reader.failure) == (words, None)
    assert events[-1].HasField("finished")


def _gemini_pieces(*parts: Row) -> bytes:
    made: list[Row] = [{"candidates": [{"content": {"parts": [part]}}]} for part in parts]
    made.append({"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 1}})
    return b"".join(b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in made)


def _bedrock_pieces(*deltas: Row) -> bytes:
    begun = {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "a", "name": "f"}}}
    pieces = [("contentBlockDelta", {"contentBlockIndex": int("toolUse" in delta), "delta": delta}) for delta in deltas]
    events = [("contentBlockStart", begun), *pieces, ("messageStop", {"stopReason": "tool_use"})]
    return b"".join(aws.event_frame(name, json.dumps(payload).encode()) for name, payload in events)


def _read(name: str, data: bytes, *, vendor: str = "") -> tuple[str, str, str, errors.MoaError | None]:
    """Return what an answer says, reasons and calls for, and its failure."""
    kind = {"content-type": "application/vnd.amazon.eventstream"} if name == "bedrock" else SSE
    request = chat()
    request.reasoning.include = True
    request.vendor.vendor = vendor
    reader = ADAPTERS[name].reader(request, MODEL, kind)
    events = [*reader.feed(data), *reader.end()]
    arguments = "".join(event.tool_call.arguments_json for event in events)
    return text_of(events), reasoning_of(events), arguments, reader.failure


def test_halves_of_characters_are_joined_from_every_vendor() -> None:
    """In text, reasoning and arguments, and with pieces of another kind between the halves."""
    pieces = _gemini_pieces(
        {"text": "A\ud83d"},
        {"text": "x\ud83d", "thought": True},
        {"text": "\ude00B"},
        {"text": "\ude00y", "thought": True},
    )
    for vendor in ("", "google"):
        assert _read("gemini", pieces, vendor=vendor) == ("A😀B", "x😀y", "", None)
    deltas: list[Row] = [
        {"text": "A\ud83d"},
        {"text": "\ude00"},
        {"reasoningContent": {"text": "x\ud83d"}},
        {"reasoningContent": {"text": "\ude00"}},
        {"toolUse": {"input": '{"x":"\ud83d'}},
        {"toolUse": {"input": '\ude00"}'}},
    ]
    assert _read("bedrock", _bedrock_pieces(*deltas)) == ("A😀", "x😀", '{"x":"😀"}', None)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("gemini", _gemini_pieces({"text": "A\ud83d"})),
        ("bedrock", _bedrock_pieces({"text": "A\ud83d"})),
        ("gemini", _gemini_pieces({"text": "A\ud83d"}, {"text": "B"})),
        ("bedrock", _bedrock_pieces({"toolUse": {"input": "\ude00"}})),
        ("gemini", _gemini_pieces({"functionCall": {"name": "f", "args": {"x": "\ud83d"}}})),
        ("gemini", b'data: {"candidates": [{"content": "\\ud83d"}]}\n\n'),
    ],
)
def test_a_half_without_its_other_fails_the_answer_of_every_vendor(name: str, data: bytes) -> None:
    """A piece is missing, whoever answers."""
    assert isinstance(_read(name, data)[3], errors.UpstreamBroken)


def test_half_a_character_at_the_end_fails_the_answer() -> None:
    """Its other half did not come: a piece is missing."""
    reader = ADAPTERS["openai"].reader(chat(), MODEL, SSE)
    reader.feed(b'data: {"choices":[{"index":0,"delta":{"content":"A\\ud83d"}}]}\n\n' + _deltas())
    assert isinstance(reader.failure, errors.UpstreamBroken)


CALLS: dict[str, tuple[list[tuple[int | None, str | None, str | None, object]], list[str]]] = {
    "one index for two calls": ([(0, "a", "f", '{"x":1}'), (0, "b", "f", '{"x":2}')], ['{"x":1}', '{"x":2}']),
    "id and name on every piece": ([(0, "a", "f", ""), (0, "a", "f", '{"x"'), (0, "a", "f", ":1}")], ['{"x":1}']),
    "an id for each piece": ([(0, "a", "f", '{"x"'), (0, "b", None, ":1}")], ['{"x":1}']),
    "no index": ([(None, "a", "f", "{}"), (None, "b", "f", '{"x":2}')], ["{}", '{"x":2}']),
    "an empty id": ([(0, "", "f", None), (0, "", None, '{"x":1}')], ['{"x":1}']),
    "arguments as an object": ([(0, "a", "f", {"x": 1})], ['{"x":1}']),
    "one index for two, then the next": (
        [(0, "a", "f", "{}"), (0, "b", "f", '{"x":2}'), (1, "c", "f", '{"x":3}')],
        ["{}", '{"x":2}', '{"x":3}'],
    ),
    "pieces that interleave": (
        [(0, "a", "f", '{"x"'), (1, "b", "f", '{"x"'), (0, None, None, ":1}"), (1, None, None, ":2}")],
        ['{"x":1}', '{"x":2}'],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_told_apart(name: str) -> None:
    """By id where the index is the same, each with its own arguments."""
    pieces, wanted = CALLS[name]
    reader = ADAPTERS["openai"].reader(chat(), MODEL, SSE)
    data = _deltas(*(_called(*piece) for piece in pieces), finish="tool_calls")
    events = [*reader.feed(data), *reader.end()]
    assert reader.failure is None
    calls: dict[int, str] = {}
    for event in events:
        if event.HasField("tool_call"):
            piece = event.tool_call
            calls[piece.call_index] = calls.get(piece.call_index, "") + piece.arguments_json
    assert [calls[index] for index in sorted(calls)] == wanted
    names = [event.tool_call.name for event in events if event.tool_call.name]
    assert names == ["f"] * len(wanted)


@pytest.mark.parametrize("kind", ["text/plain", "Text/Event-Stream", ""])
def test_a_stream_by_another_name_is_one(kind: str) -> None:
    """Where a stream was asked for and no JSON is announced."""
    reader = ADAPTERS["openai"].reader(chat(), MODEL, {"content-type": kind})
    events = [*reader.feed(_chunk("good", "stop") + b"data: [DONE]\n\n"), *reader.end()]
    assert (text_of(events), reader.failure) == ("good", None)


def test_events_that_one_line_break_parts_are_read() -> None:
    """By the format they are one event of several lines, which is none that could be meant."""
    reader = ADAPTERS["openai"].reader(chat(), MODEL, SSE)
    data = (_chunk("a") + _chunk("b") + _chunk("c", "stop") + b"data: [DONE]\n\n").replace(b"\n\n", b"\n")
    events = [*reader.feed(data + b"\n"), *reader.end()]
    assert (text_of(events), reader.failure) == ("abc", None)
