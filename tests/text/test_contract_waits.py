"""Providers and callers that keep one waiting."""

from __future__ import annotations

import asyncio

import pytest

from moa.text.v1.text_pb2 import TextEvent
from services.common import errors
from tests.emulators.base import Emulator
from tests.emulators.script import Script
from tests.seconds import Seconds
from tests.text.harness import Failed, TextClient, chat, text_of
from tests.text.subjects import TIMEOUTS

BEGIN_S = TIMEOUTS["connect_s"] + TIMEOUTS["first_token_s"]
IDLE_S = TIMEOUTS["idle_s"]


@pytest.mark.parametrize("at", [-1, 0])
async def test_slow_first_token(service: TextClient, upstream: Emulator, seconds: Seconds, at: int) -> None:
    """A provider that does not begin in time, before its headers or after them, is a timeout, told as a status, and
    its socket is closed."""
    script = Script(hold_at=at)
    upstream.scripts.append(script)
    request = chat()
    request.model = "plain"  # the others reason, and may think for long
    asking = asyncio.create_task(service.ask(request))
    await asyncio.wait_for(script.held.wait(), 30)
    seconds.pass_by(BEGIN_S - 1)
    await service.turn()
    assert not asking.done()
    await seconds.until(asking, BEGIN_S)
    with pytest.raises(errors.UpstreamTimeout):
        await asking
    await script.hung_up()


async def test_silence_between_pieces(service: TextClient, upstream: Emulator, seconds: Seconds) -> None:
    """A provider that falls silent ends the stream with an error event, after what came and what it cost."""
    script = Script(hold_at=2)
    upstream.scripts.append(script)
    told: list[TextEvent] = []
    asking = asyncio.create_task(service.ask(chat(), told))
    async with asyncio.timeout(60):
        while text_of(told) != "Hello ":
            await service.turn()
    await seconds.until(asking, IDLE_S)
    with pytest.raises(Failed) as failed:
        await asking
    assert isinstance(failed.value.error, errors.UpstreamTimeout)
    assert text_of(failed.value.before) == "Hello "
    assert failed.value.before[-1].usage.completion_tokens > 0
    await script.hung_up()


async def test_slow_callers_are_not_slow_providers(service: TextClient, upstream: Emulator, seconds: Seconds) -> None:
    """A caller who reads late is not cut off by the provider's timeouts."""
    upstream.scripts.append(Script(text=("x" * 60_000,) * 200))
    messages = aiter(service.call(chat()))
    await anext(messages)
    async with asyncio.timeout(60):
        while seconds.count:
            await service.turn()
    seconds.pass_by(100 * IDLE_S)
    rest = [event async for message in messages for event in message.events]
    assert rest[-1].HasField("finished")
