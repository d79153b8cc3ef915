"""Large requests of a process have turns: what waits for its own has one copy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.common import large_turn as turns
from services.common.large_turn import LargeTurns
from services.common.rpc import call as calls
from services.common.rpc.large_request import with_large_request


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_has_its_turn_after_another() -> None:
    """In the order of their coming."""
    order: list[int] = []
    given = LargeTurns()

    async def one(number: int) -> None:
        async with given.turn():
            order.append(number)
            await asyncio.sleep(0)
            order.append(number)

    await asyncio.gather(*map(one, range(3)))
    assert order == [0, 0, 1, 1, 2, 2]


async def test_a_turn_lapses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stopped amid its own keeps nobody for longer, and takes nothing from another as it ends."""
    monkeypatch.setattr(turns, "TURN_S", 0.0)
    given = LargeTurns()
    async with given.turn():
        stopped = given.turn()
        async with asyncio.timeout(30):
            await stopped.__aenter__()
            third = given.turn()
            await third.__aenter__()
        await third.__aexit__(None, None, None)
        await stopped.__aexit__(None, None, None)


class Channel:
    """Makes calls that read what they are asked when they are told to."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.metadata: Any = None
        self.go = asyncio.Event()

    def stream_stream(self, path: str, request_serializer: Any, response_deserializer: Any) -> Any:
        def make(requests: Any, *, metadata: Any, timeout: float | None) -> asyncio.Task[None]:
            self.metadata = metadata

            async def write() -> None:
                async for request in requests:
                    self.sent.append(request_serializer(request))
                    await self.go.wait()

            return asyncio.create_task(write())

        return make


async def test_a_request_is_written_when_its_turn_has_come() -> None:
    """Not before: as bytes beside its message it would wait in two copies. Nothing holds it once it is sent."""
    channel, written = Channel(), []

    def serialize(request: str) -> bytes:
        written.append(request)
        return request.encode()

    calls.begin("/x/Y", "rid").turns = LargeTurns()
    make = with_large_request(channel, "unary_stream", "/x/Y", serialize, None)
    first, second = (make(name, 300_000, metadata=(("k", "v"),)) for name in ("first", "second"))
    await settle()
    assert written == ["first"]
    assert channel.metadata == (("k", "v"), (calls.BODY_BYTES_KEY, "300000"))
    channel.go.set()
    await asyncio.gather(first, second)
    assert channel.sent == [b"first", b"second"]
