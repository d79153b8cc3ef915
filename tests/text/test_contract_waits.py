"""Providers and callers that keep one waiting, on every adapter at once: all of them wait the same seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from services.common import errors
from tests.emulators.base import Emulator
from tests.emulators.script import Script
from tests.text.harness import Failed, TextClient, chat, text_of, text_service
from tests.text.subjects import SUBJECTS, Subject


async def on_each(folder: Path, check: Callable[[TextClient, Emulator], Awaitable[None]], **timeouts: float) -> None:
    """Run a check against a service of each adapter, all at once. Raises what failed, with the adapters' names."""
    ready = asyncio.Barrier(len(SUBJECTS))

    async def one(subject: Subject) -> None:
        own = folder / subject.name
        own.mkdir()
        async with subject.emulator() as upstream:
            rows = subject.providers(upstream, **timeouts)
            async with text_service(own, rows, subject.models(), subject.environment) as client:
                await ready.wait()
                await check(client, upstream)
            assert upstream.refused == [], "the adapter sent something that the real service would refuse"

    failed = []
    outcomes = await asyncio.gather(*map(one, SUBJECTS), return_exceptions=True)
    for subject, outcome in zip(SUBJECTS, outcomes, strict=True):
        if isinstance(outcome, Exception):
            outcome.add_note(f"of {subject.name}")
            failed.append(outcome)
    if failed:
        raise ExceptionGroup("some adapters failed", failed)


async def test_slow_first_token(tmp_path: Path) -> None:
    """A provider that does not begin in time, before its headers or after them, is a timeout, told as a status, and
    its socket is closed."""

    async def asked(client: TextClient) -> None:
        request = chat()
        request.model = "plain"  # the others reason, and may think for long
        with pytest.raises(errors.UpstreamTimeout):
            await client.ask(request)

    async def check(client: TextClient, upstream: Emulator) -> None:
        scripts = [Script(hold_at=at) for at in (-1, 0)]
        upstream.scripts.extend(scripts)
        await asyncio.gather(*(asked(client) for _ in scripts))
        for script in scripts:
            await script.hung_up()

    await on_each(tmp_path, check, connect_s=5, first_token_s=1, idle_s=5)


async def test_silence_between_pieces(tmp_path: Path) -> None:
    """A provider that falls silent ends the stream with an error event, after what came and what it cost."""

    async def check(client: TextClient, upstream: Emulator) -> None:
        script = Script(hold_at=2)
        upstream.scripts.append(script)
        with pytest.raises(Failed) as failed:
            await client.ask(chat())
        assert isinstance(failed.value.error, errors.UpstreamTimeout)
        assert text_of(failed.value.before) == "Hello "
        assert failed.value.before[-1].usage.completion_tokens > 0
        await script.hung_up()

    await on_each(tmp_path, check, idle_s=2)


async def test_slow_callers_are_not_slow_providers(tmp_path: Path) -> None:
    """A caller who reads late is not cut off by the provider's timeouts."""

    async def check(client: TextClient, upstream: Emulator) -> None:
        upstream.scripts.append(Script(text=("x" * 60_000,) * 200))
        messages = aiter(client.call(chat()))
        await anext(messages)
        await asyncio.sleep(3)
        rest = [event async for message in messages for event in message.events]
        assert rest[-1].HasField("finished")

    await on_each(tmp_path, check, idle_s=2)
