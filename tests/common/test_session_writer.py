"""When what one side of a session says is written."""

from __future__ import annotations

import asyncio

import pytest

from moa.session.v1 import session_service_pb2
from services.common.rpc.session.writer import MANY, Socket, Writer

Response = session_service_pb2.CarryResponse
LONG_S = 3600.0
SMALL = b"a token"


class Written(Socket):
    """Keeps what is written, as the numbers of the calls that each message is of."""

    def __init__(self) -> None:
        super().__init__(lambda _: None, lambda: None)
        self.messages: list[list[int]] = []
        self.came = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.messages.append([frame.call for frame in Response.FromString(data).frames])
        self.came.set()


def say(writer: Writer[Response], number: int, *, piece: bytes = SMALL, among: int = MANY.start) -> None:
    frame = writer.batch.frames.add()
    frame.call, frame.piece = number, piece
    writer.added(len(piece), among=among)


@pytest.fixture
async def socket() -> Written:
    return Written()


async def _turn() -> None:
    """Let the loop do what is due."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_what_may_wait_goes_at_once_after_a_quiet_while(socket: Written) -> None:
    """What is said after a pause is not delayed."""
    writer = Writer(Response, gather_s=LONG_S)
    writer.use(socket)
    say(writer, 1)
    await _turn()
    assert socket.messages == [[1]]


@pytest.mark.parametrize("among", [MANY.start - 1, MANY.stop])
async def test_among_few_or_very_many_calls_nothing_waits(socket: Written, among: int) -> None:
    """Of few streams hardly two speak at a time, of very many several do anyway: to wait would win nothing."""
    writer = Writer(Response, gather_s=LONG_S)
    writer.use(socket)
    for number in (1, 2, 3):
        say(writer, number, among=among)
        await _turn()
    assert socket.messages == [[1], [2], [3]]


async def test_what_comes_in_time_takes_along_what_waits(socket: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of streams that trickle, the first word after the pause between two messages has them all written."""
    now = 100.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    writer = Writer(Response)
    writer.use(socket)
    for number, at in enumerate((100.0, 100.002, 100.004, 100.006, 100.008)):
        now = at
        say(writer, number)
        await _turn()
    assert socket.messages == [[0], [1, 2, 3]]


async def test_what_may_wait_goes_with_what_may_not(socket: Written) -> None:
    """A first word and an end wait for nothing, and take along what does."""
    writer = Writer(Response, gather_s=LONG_S)
    writer.use(socket)
    say(writer, 1)
    await _turn()
    for number in (1, 2, 3):
        say(writer, number)
        await _turn()
    assert socket.messages == [[1]]
    say(writer, 4, among=0)
    await _turn()
    assert socket.messages == [[1], [1, 2, 3, 4]]


async def test_what_may_wait_goes_in_time(socket: Written) -> None:
    """Several streams that trickle share a message, though nothing else is said."""
    writer = Writer(Response)
    writer.use(socket)
    say(writer, 1)
    await _turn()
    socket.came.clear()
    for number in (1, 2, 3):
        say(writer, number)
    async with asyncio.timeout(30):
        await socket.came.wait()
    assert socket.messages == [[1], [1, 2, 3]]


async def test_much_does_not_wait(socket: Written) -> None:
    """Nor does what would be a long message, as of streams that are as fast as they can."""
    writer = Writer(Response, gather_s=LONG_S)
    writer.use(socket)
    say(writer, 1)
    await _turn()
    say(writer, 1, piece=b"x" * 20_000)
    await _turn()
    assert socket.messages == [[1], [1]]


async def test_a_stream_of_grpcs_waits_likewise() -> None:
    """Between hosts, where there is no socket."""
    writer = Writer(Response, gather_s=LONG_S)
    written: list[list[int]] = []

    async def write(data: bytes) -> None:
        written.append([frame.call for frame in Response.FromString(data).frames])

    writing = asyncio.create_task(writer.write_to(write))
    say(writer, 1)
    await _turn()
    say(writer, 2)
    await _turn()
    assert written == [[1]]
    say(writer, 3, among=0)
    await _turn()
    assert written == [[1], [2, 3]]
    writing.cancel()
