"""Signs of life of calls that wait: an engine that works shows them, one that hangs does not."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from inference import heartbeat
from inference.heartbeat import EngineHeartbeat
from tests.inference.harness import CHAT, IMAGE, Client, Running, small


@dataclass
class Engine:
    """An engine that has done so much."""

    progress: int = 0


async def test_life_is_shown_while_the_engine_gets_on() -> None:
    """Loading is life; then only what the engine did since the last time."""
    context: Any = None
    alive = EngineHeartbeat(context, "life")
    assert [alive.sign(), alive.sign()] == ["life", "life"]
    engine = alive.engine = Engine()
    assert [alive.sign(), alive.sign(), alive.sign()] == ["life", None, None]
    engine.progress = 1
    assert [alive.sign(), alive.sign()] == ["life", None]


async def drained(call: Any) -> list[list[str]]:
    """Read a call to its end; give the kinds of events of its messages that have any."""
    kinds = []
    while (message := await call.read()) is not grpc.aio.EOF:
        kinds.append([event.WhichOneof("event") for event in message.events])
    return [found for found in kinds if found]


@pytest.mark.parametrize("kind", ["text", "image"])
async def test_a_whole_answer_shows_life_while_it_is_made(
    client: Client, running: Running, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wants no stream gets the answer alone, and before it, while the engine works, messages without events."""
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.001)
    text = kind == "text"
    await (client.text("Hello") if text else client.image(**small()))
    reached = threading.Event()
    with running.held(CHAT if text else IMAGE, after_ticks=2, reached=reached) as engine:
        before = engine.progress
        call: Any = client.text_call("Hello", stream=False) if text else client.image_call(**small(stream=False))
        first = await asyncio.wait_for(call.read(), 60)
        assert await asyncio.to_thread(reached.wait, 60)
        assert engine.progress > before
    assert not first.events
    answer = await drained(call)
    if text:
        assert len(answer) == 1
        assert answer[0][-1] == "finished"
    else:
        # In one message or two, as they come.
        assert [kind for kinds in answer for kind in kinds] == ["image", "finished"]


async def test_an_early_failure_after_life_is_still_a_status(
    client: Client, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signs of life are no beginning of an answer: an engine that fails after them is told by the status."""
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.001)
    await client.text("Hello")
    with running.held(CHAT) as engine:
        call: Any = client.text_call("Hello")
        assert not (await asyncio.wait_for(call.read(), 60)).events
        monkeypatch.setattr(engine.queue, "reading", lambda: 1 / 0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await drained(call)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
