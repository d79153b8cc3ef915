"""What the inference process books when a caller vanishes in the middle of a call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from inference.heartbeat import EngineHeartbeat
from moa.quota.v1 import quota_pb2
from moa.text.v1 import text_pb2, text_service_pb2_grpc
from services.common.rpc import call as calls
from services.common.rpc import client as rpc
from tests.books import Books, keeping
from tests.inference.harness import CHAT, IMAGE, TOKEN, Client, Running, chat, small, until

STORY = "Tell me a story about a cat."


@pytest.fixture
async def books() -> AsyncIterator[tuple[Books, str]]:
    async with keeping(TOKEN) as kept:
        yield kept


def endless(link: Any, reservation: str, *, stream: bool) -> Any:
    """Ask for an answer that does not end by itself."""
    sampling = text_pb2.Sampling(temperature=2, seed=1, logit_bias={1: -100})
    asking = chat(STORY, sampling=sampling, max_tokens=256, stream=stream)
    sent = rpc.metadata(TOKEN, f"request-of-{reservation}", (calls.RESERVATION_KEY, reservation))
    return text_service_pb2_grpc.TextServiceStub(link).GenerateText(asking, metadata=sent)


async def left(engine: Any, call: Any) -> None:
    """Leave the only call of an engine that is held, and wait until its server has heard."""
    (job,) = engine.jobs()
    call.cancel()
    await until(lambda: job.cancelled)


async def test_text_is_booked_as_far_as_it_was_delivered(books: tuple[Books, str]) -> None:
    """The prompt as counted and the pieces that were written, on the reservation that the metadata names; calls that
    came to their end, or that name no reservation, are nobody's to book here."""
    kept, auth = books
    running = Running(auth_address=auth)
    try:
        caller = Client(running.address)
        assert (await caller.text("Hello")).text
        prompt = await caller.count(STORY)
        for reservation in ("lease.1.400.0", ""):
            link = rpc.channel(running.address)
            pieces = 0
            with running.in_step(CHAT) as took:
                call = endless(link, reservation, stream=True)
                while pieces < 3:
                    for event in (await call.read()).events:
                        if event.HasField("text"):
                            pieces += 1
                            took()
                await left(running.engine(CHAT), call)
            await link.close()
        ended = rpc.metadata(TOKEN, "to-the-end", (calls.RESERVATION_KEY, "lease.3.400.0"))
        async for _ in caller.text_stub.GenerateText(chat("Hello"), metadata=ended):
            pass
        await caller.close()
    finally:
        await asyncio.to_thread(running.stop)
    [settlement] = kept.settled
    assert settlement.reservation_id == "lease.1.400.0"
    assert settlement.request_id == "request-of-lease.1.400.0"
    assert settlement.usage.prompt_tokens == prompt
    assert pieces <= settlement.usage.completion_tokens < 256
    assert settlement.charged.tokens == prompt + settlement.usage.completion_tokens
    assert (settlement.operation, settlement.provider) == (quota_pb2.OPERATION_TEXT, "local-text")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("ticks", [0, 6])
async def test_text_is_owed_once_its_prompt_was_read(books: tuple[Books, str], stream: bool, ticks: int) -> None:
    """Who leaves while its request waits for the model owes nothing. From when any of the prompt was read it is the
    prompt, with what was made of an answer that was asked for whole."""
    kept, auth = books
    running = Running(auth_address=auth)
    reached = threading.Event()
    try:
        caller = Client(running.address)
        prompt = await caller.count(STORY)
        await caller.close()
        link = rpc.channel(running.address)
        with running.held(CHAT, after_ticks=ticks, reached=reached) as engine:
            call = endless(link, "lease.1.400.0", stream=stream)
            assert await asyncio.to_thread(reached.wait, 60)
            while ticks and stream and not any(event.HasField("text") for event in (await call.read()).events):
                pass
            await left(engine, call)
        await link.close()
    finally:
        await asyncio.to_thread(running.stop)
    if not ticks:
        assert kept.settled == []
        return
    [settlement] = kept.settled
    assert settlement.usage.prompt_tokens == prompt
    assert 0 < settlement.usage.completion_tokens <= ticks + 1  # reading the prompt gives the first
    assert settlement.charged.tokens == prompt + settlement.usage.completion_tokens


@pytest.mark.timeout(300)  # seconds of CPU, more where the cores are shared
async def test_images_are_booked_as_far_as_they_were_delivered(
    books: tuple[Books, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that vanishes in the middle of an order is charged for the images that were written, and no others; one
    that vanishes before the first, or that wanted all at once, for none."""
    kept, auth = books
    write = EngineHeartbeat.write

    async def late(heartbeat: EngineHeartbeat, message: Any) -> None:
        """Write, and hear of its end late: the caller has the images by then, and may have left."""
        await write(heartbeat, message)
        if any(event.HasField("image") for event in message.events):
            await asyncio.Event().wait()

    running = Running(auth_address=auth)
    got = 0
    try:
        first = Client(running.address)
        await first.image(**small())
        await first.close()
        monkeypatch.setattr(EngineHeartbeat, "write", late)
        for reservation, stream, when in (
            ("lease.1.0.10", True, _drawn),
            ("lease.2.0.10", True, None),
            ("lease.3.0.10", False, _drawn),
        ):
            caller, reached = Client(running.address), threading.Event()
            with running.held(IMAGE, after_ticks=1, when=when, reached=reached) as engine:
                call = caller.image_call((calls.RESERVATION_KEY, reservation), **small(count=10, stream=stream))
                while stream and not (got if when else await _began(call)):
                    got += sum(event.HasField("image") for event in (await call.read()).events)
                assert await asyncio.to_thread(reached.wait, 60)
                await left(engine, call)
                await caller.close()
            # The next one's ticks are its own: none is spent on letting this one go.
            assert await asyncio.to_thread(running.engine(IMAGE).wait_idle, 60)
    finally:
        await asyncio.to_thread(running.stop)
    [settlement] = kept.settled
    assert settlement.reservation_id == "lease.1.0.10"
    assert 0 < got <= settlement.charged.images < 10
    assert (settlement.operation, settlement.provider) == (quota_pb2.OPERATION_IMAGE, "local-image")


def _drawn(engine: Any) -> bool:
    """Return whether any picture has all its steps. How many ticks that takes depends on how many share one."""
    return any(picture.at == picture.steps for order in engine.jobs() for picture in order.pictures)


async def _began(call: Any) -> bool:
    """Wait for an order's first step."""
    while not any(event.HasField("progress") for event in (await call.read()).events):
        pass
    return True
