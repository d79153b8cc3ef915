"""How `make bench` plays streams at a model's pace, and reads how late their tokens are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from bench import load, paced
from bench.upstream import HEAD, TAIL


class PlayedLoop:
    """A clock that goes from one call that is due to the next."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, function: Callable[[], None]) -> None:
        self.due.append((when, function))

    def run(self, until: float) -> None:
        while self.due and self.due[0][0] <= until:
            self.now, function = self.due.pop(0)
            function()


def test_each_stream_is_written_to_at_its_rate_and_not_all_at_once() -> None:
    """Twenty streams are called RATE times a second each, at twenty times of their own; without any nothing is due."""
    loop = PlayedLoop()
    pace = paced.Pace(cast(asyncio.AbstractEventLoop, loop))
    called: dict[int, list[float]] = {n: [] for n in range(20)}
    functions: list[Callable[[], None]] = [lambda n=n: called[n].append(loop.now) for n in called]  # type: ignore[misc]
    for function in functions:
        pace.add(function)
    loop.run(2.001)
    assert {len(times) for times in called.values()} == {2 * paced.RATE}
    assert len({times[0] for times in called.values()}) == 20
    for function in functions:
        pace.discard(function)
    loop.run(3)
    assert loop.due == []
    pace.add(functions[0])
    loop.run(loop.now + 1.001)
    assert len(called[0]) == 3 * paced.RATE


@pytest.mark.parametrize("size", [1, 7, 40, 10_000])
async def test_each_token_is_timed_once_however_it_is_read(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stamps that are split over reads, or several in one, are each one lag."""
    monkeypatch.setattr(load, "now_us", lambda: 1_000_000_000_250_000)
    tokens = b"".join(b'data: {"content": " @%016d"}\n\n' % (10**15 + n) for n in range(5))
    answer = HEAD + b"%x\r\n%s\r\n" % (len(tokens), tokens) + TAIL
    result = load.Result()
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    connection = load.Connection(b"", result, 0.0, ended, stamped=True)
    connection.connection_made(_Transport())
    for at in range(0, len(answer), size):
        connection.data_received(answer[at : at + size])
    assert ended.done()
    assert result.lags == pytest.approx([0.25 - n / 1e6 for n in range(5)])
    assert result.events == 5 + 4


class _Transport(asyncio.Transport):
    def write(self, data: object) -> None: ...

    def close(self) -> None: ...
