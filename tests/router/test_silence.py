"""Streams in whose silences signs of life are written: by raw HTTP and by the official clients, through the edge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from google import genai
from google.genai import errors as google_errors
from google.genai import types
from openai import APIError, OpenAI

from moa.image.v1 import image_service_pb2
from moa.text.v1 import text_service_pb2
from services.common.errors import ContentPolicy
from services.common.rpc.heartbeat import PIECE_BYTES, Heartbeat
from services.router.dialects import event_stream
from services.router.dialects.event_stream import EventStream
from tests.dialects import ANSWERING
from tests.dialects.rig import COMMENT
from tests.router.played_books import TIMEOUT_S
from tests.router.rig import KEY, Played, ended, said, text

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:google")

LIFE = text_service_pb2.GenerateTextResponse()


class Silence:
    """What is played between two messages: nothing, until so many signs of life were written."""

    def __init__(self, signs: int) -> None:
        self._signs = signs
        self._left = asyncio.Event()

    async def __call__(self) -> None:
        SILENCES.append(self)
        async with asyncio.timeout(TIMEOUT_S):
            await self._left.wait()

    def sign(self) -> None:
        """Note a sign."""
        self._signs -= 1
        if self._signs <= 0:
            self._left.set()


SILENCES: list[Silence] = []


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let streams show life after moments, and silences hear of it."""
    monkeypatch.setattr(event_stream, "FIRST_SIGN_S", 0.02)
    monkeypatch.setattr(event_stream, "SIGN_EVERY_S", 0.02)
    write = EventStream.write_sign

    async def heard(self: EventStream, sign: Any) -> None:
        await write(self, sign)
        if SILENCES:
            SILENCES[-1].sign()

    monkeypatch.setattr(EventStream, "write_sign", heard)
    yield
    SILENCES.clear()


CHAT: dict[str, Any] = {"model": "smart", "stream": True, "messages": [{"role": "user", "content": "x"}]}
PICTURE = "gemini-2.5-flash-image"
WAYS = {f"{name}-{form}": way for name, rig in ANSWERING.items() for form, way in rig.streams.items()}
"""Each dialect's streams."""


def picture_made() -> image_service_pb2.GenerateImageResponse:
    (message,) = Played.images(image_service_pb2.GenerateImageRequest(count=1))[1:]
    return message  # type: ignore[no-any-return]


def answer(way: str) -> list[Any]:
    """Return what is played: a whole answer."""
    return [picture_made()] if WAYS[way].makes == "image" else [text(said("Hello")), ended()]


def ask(url: str, way: str) -> requests.Response:
    asked = WAYS[way].ask(PICTURE if WAYS[way].makes == "image" else "smart")
    return requests.post(url + asked.path, headers={"X-API-Key": KEY}, timeout=TIMEOUT_S, **asked.how)


def events(way: str, body: str) -> list[Any]:
    """Return an answer's events, read as their format has it."""
    return WAYS[way].read(body)


def shape(event: Any) -> Any:
    """Return what of an event does not change from call to call."""
    varies = ("id", "item_id", "created", "created_at", "completed_at", "responseId")
    if isinstance(event, list):
        return [shape(each) for each in event]
    return {k: shape(v) for k, v in event.items() if k not in varies} if isinstance(event, dict) else event


@pytest.mark.parametrize("way", WAYS)
def test_a_late_first_event_is_awaited_with_signs_of_life(url: str, played: Played, way: str) -> None:
    """The stream begins with 200 and signs of life, under its own content type; then comes what comes without."""
    played.script = answer(way)
    prompt = ask(url, way)
    played.script = [Silence(3), *answer(way)]
    late = ask(url, way)
    sign = WAYS[way].sign
    assert late.status_code == 200
    assert late.headers["content-type"] == prompt.headers["content-type"]
    assert late.text.startswith(sign * 3)
    assert list(map(shape, events(way, late.text))) == list(map(shape, events(way, prompt.text)))
    assert sign * 3 not in prompt.text


@pytest.mark.parametrize("way", WAYS)
def test_a_failure_after_signs_of_life_is_the_streams_one_end(url: str, played: Played, way: str) -> None:
    """Once 200 is committed a failure is the dialect's error in the stream, once, and its end mark if it has one."""
    played.script = [Silence(2), ContentPolicy("the model refuses")]
    got = ask(url, way)
    assert got.status_code == 200
    told = events(way, got.text)
    marks = [event for event in told if event == "[DONE]"]
    assert len(marks) == WAYS[way].is_marked
    error = WAYS[way].failure([event for event in told if event != "[DONE]"])
    assert "the model refuses" in json.dumps(error)
    assert played.books.ended() == [None]


@pytest.mark.parametrize("way", WAYS)
def test_a_bug_after_signs_of_life_is_an_error_in_the_stream(
    url: str, played: Played, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody expected does not end a committed stream as if it were complete, and tells nothing of itself."""

    async def bug() -> None:
        raise ValueError("a secret")

    played.script = [Silence(1), bug]
    got = ask(url, way)
    error = WAYS[way].failure([event for event in events(way, got.text) if event != "[DONE]"])
    assert "internal error" in json.dumps(error)
    assert "secret" not in got.text


@pytest.mark.parametrize("way", [f"{name}-text" for name in ANSWERING])
def test_silence_amid_a_stream_is_filled_too(url: str, played: Played, way: str) -> None:
    """Between two pieces signs of life come as before the first, and no piece is lost."""
    played.script = [text(said("one ")), Silence(2), text(said("two")), ended()]
    got = ask(url, way)
    sign = WAYS[way].sign
    assert not got.text.startswith(sign)
    assert sign * 2 in got.text
    assert got.text.index("one ") < got.text.index(sign * 2) < got.text.index("two")


@pytest.mark.parametrize("way", ["openai-text", "native-image", "google-text"])
def test_an_early_failure_keeps_its_status(url: str, played: Played, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a sign of life was due, signs of life of whoever answers commit nothing: a failure has its own status."""
    monkeypatch.setattr(event_stream, "FIRST_SIGN_S", 3600.0)
    played.script = [LIFE, LIFE, ContentPolicy("the model refuses")]
    assert ask(url, way).status_code == 400


def test_life_of_whoever_answers_is_passed_on(url: str, played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a stream has begun, a provider's own comments reach the caller as comments, sooner than the gateway's."""
    monkeypatch.setattr(event_stream, "SIGN_EVERY_S", 3600.0)
    monkeypatch.setattr(event_stream, "HEARD_S", 0.0)
    quiet = Silence(1)
    played.script = [quiet, LIFE, text(said("one")), LIFE, LIFE, text(said("two")), ended()]
    got = ask(url, "openai-text").text
    before, _, amid = got.partition("one")
    assert before.count(COMMENT) == 2
    assert COMMENT in amid.partition("two")[0]


def test_a_caller_who_leaves_during_the_silence_is_deferred(url: str, played: Played) -> None:
    """Nothing was answered yet: what is owed is whoever answers to say, and the work is ended."""
    played.script = [Silence(10**9)]
    with requests.post(
        f"{url}/v1/chat/completions", json=CHAT, headers={"X-API-Key": KEY}, timeout=TIMEOUT_S, stream=True
    ) as got:
        assert next(got.iter_content(chunk_size=None)).startswith(COMMENT.encode())
    assert played.books.ended() == [None]


def test_openais_client_reads_over_signs_of_life(url: str, played: Played) -> None:
    """Chats and images come as without them; a failure after them is the client's own error."""
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=TIMEOUT_S) as client:
        played.script = [Silence(2), text(said("Hel")), Silence(2), text(said("lo")), ended()]
        chunks = list(client.chat.completions.create(**CHAT))
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello"
        played.script = [Silence(2), picture_made()]
        made = list(client.images.generate(model=PICTURE, prompt="x", stream=True))
        assert [event.type for event in made] == ["image_generation.completed"]
        played.script = [Silence(2), ContentPolicy("the model refuses")]
        with pytest.raises(APIError, match="the model refuses"):
            list(client.chat.completions.create(**CHAT))


async def test_googles_client_reads_over_signs_of_life(url: str, played: Played) -> None:
    """Both of its ways to stream; a failure after them is the client's own error."""
    with genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=url)) as client:
        played.script = [Silence(2), text(said("Hel")), Silence(2), text(said("lo")), ended()]
        pieces = await asyncio.to_thread(
            lambda: list(client.models.generate_content_stream(model="smart", contents="x"))
        )
        assert "".join(piece.text or "" for piece in pieces) == "Hello"
        played.script = [Silence(2), text(said("Hel")), Silence(2), text(said("lo")), ended()]
        async with client.aio as aio:
            stream = await aio.models.generate_content_stream(model="smart", contents="x")
            assert "".join([piece.text or "" async for piece in stream]) == "Hello"
        played.script = [Silence(2), ContentPolicy("the model refuses")]
        with pytest.raises(google_errors.APIError) as caught:
            await asyncio.to_thread(lambda: list(client.models.generate_content_stream(model="smart", contents="x")))
        assert caught.value.code == 400


class Slow:
    """A context whose caller reads nothing until it is told to."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.open = asyncio.Event()
        self.writing = 0

    async def write(self, message: str) -> None:
        self.writing += 1
        assert self.writing == 1, "two writes at once"
        await self.open.wait()
        self.written.append(message)
        self.writing -= 1


class Beating(Heartbeat):
    """Says `life` where nothing was written for a moment at first; notes that it was asked to."""

    def __init__(self, context: Slow) -> None:
        super().__init__(context, first_s=0.001, every_s=3600)
        self.asked = asyncio.Event()

    def sign(self) -> str:
        self.asked.set()
        return "life"


async def test_a_sign_never_meets_a_message() -> None:
    """No sign comes while a message waits for its reader; a message waits for a sign that is on its way."""
    context = Slow()
    async with asyncio.timeout(TIMEOUT_S), Beating(context) as alive:
        await alive.asked.wait()
        writing = asyncio.create_task(alive.write("one"))
        await asyncio.sleep(0)
        context.open.set()
        await writing
        assert context.written[:2] == ["life", "one"]
        context.open.clear()
        held = asyncio.create_task(alive.write("two"))
        while not context.writing:
            await asyncio.sleep(0)
        alive.asked.clear()
        alive.send_sign()
        assert not alive.asked.is_set()
        context.open.set()
        await held
    assert "two" in context.written


async def test_a_message_waits_for_every_sign_before_it() -> None:
    """Where the next is due by the time that the one before it was written, as in a loop that others keep busy."""
    context = Slow()
    async with asyncio.timeout(TIMEOUT_S), Beating(context) as alive:
        await alive.asked.wait()

        def again(_: object) -> None:
            context.open.clear()
            alive.send_sign()

        assert alive._sending is not None  # noqa: SLF001
        alive._sending.add_done_callback(again)  # noqa: SLF001
        writing = asyncio.create_task(alive.write("one"))
        await asyncio.sleep(0)
        context.open.set()
        while not (context.written and context.writing):
            await asyncio.sleep(0)
        context.open.set()
        await writing
    assert context.written == ["life", "life", "one"]


async def test_a_call_that_ended_ends_its_signs() -> None:
    """Signs that cannot be written any more are no failure of the call, and none follows."""

    class Gone(Slow):
        async def write(self, message: str) -> None:
            raise RuntimeError("the call is over")

    async with asyncio.timeout(TIMEOUT_S), Beating(Gone()) as alive:
        await alive.asked.wait()
        while alive.beating:
            await asyncio.sleep(0)


async def test_a_long_event_is_several_messages_with_no_sign_between() -> None:
    """gRPC refuses messages beyond a size, and a last event may hold the whole answer again."""
    long = bytes(range(256)) * 12_288
    assert len(long) == 3 * PIECE_BYTES
    events = iter([b"short", long + b"end", None])

    async def read() -> bytes | None:
        return next(events)

    context: Any = Slow()
    context.open.set()
    async with asyncio.timeout(TIMEOUT_S), Beating(context) as alive:
        await alive.relay(read, bytes, lambda data: data)
    written = context.written[context.written.index(b"short") + 1 :]
    begins, ends = written.index(long[:PIECE_BYTES]), written.index(b"end")
    assert ends - begins == 3
    assert b"".join(written[begins : ends + 1]) == long + b"end"
