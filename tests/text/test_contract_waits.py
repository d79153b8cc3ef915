"""Providers and callers that keep one waiting: all adapters wait the same seconds, and each has a test of what came."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from services.common import errors
from tests.emulators.base import Emulator
from tests.emulators.script import Script
from tests.text.harness import Failed, TextClient, chat, text_of, text_service
from tests.text.subjects import SUBJECTS, Subject

Outcomes = Mapping[str, BaseException | None]
"""What went wrong, by adapter."""


def on_each(folder: Path, check: Callable[[TextClient, Emulator], Awaitable[None]], **timeouts: float) -> Outcomes:
    """Run a check against a service of each adapter, all at once."""

    async def one(subject: Subject, ready: asyncio.Barrier) -> None:
        own = folder / subject.name
        own.mkdir()
        async with subject.emulator() as upstream:
            rows = subject.providers(upstream, **timeouts)
            async with text_service(own, rows, subject.models(), subject.environment) as client:
                await ready.wait()
                await check(client, upstream)
            assert upstream.refused == [], "the adapter sent something that the real service would refuse"

    async def tried(subject: Subject, ready: asyncio.Barrier) -> None:
        try:
            await one(subject, ready)
        finally:
            await ready.abort()  # whoever waits for one that never came

    async def each() -> list[BaseException | None]:
        ready = asyncio.Barrier(len(SUBJECTS))
        return await asyncio.gather(*(tried(subject, ready) for subject in SUBJECTS), return_exceptions=True)

    return dict(zip((subject.name for subject in SUBJECTS), asyncio.run(each()), strict=True))


def held(outcome: BaseException | None) -> None:
    """Raise what went wrong."""
    if outcome is not None:
        raise outcome


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
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

    return on_each(tmp_path_factory.mktemp("slow"), check, connect_s=5, first_token_s=1, idle_s=5)


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    async def check(client: TextClient, upstream: Emulator) -> None:
        script = Script(hold_at=2)
        upstream.scripts.append(script)
        with pytest.raises(Failed) as failed:
            await client.ask(chat())
        assert isinstance(failed.value.error, errors.UpstreamTimeout)
        assert text_of(failed.value.before) == "Hello "
        assert failed.value.before[-1].usage.completion_tokens > 0
        await script.hung_up()

    return on_each(tmp_path_factory.mktemp("silent"), check, idle_s=2)


@pytest.fixture(scope="module")
def read_late(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    async def check(client: TextClient, upstream: Emulator) -> None:
        upstream.scripts.append(Script(text=("x" * 60_000,) * 200))
        messages = aiter(client.call(chat()))
        await anext(messages)
        await asyncio.sleep(3)
        rest = [event async for message in messages for event in message.events]
        assert rest[-1].HasField("finished")

    return on_each(tmp_path_factory.mktemp("late"), check, idle_s=2)


def test_slow_first_token(slow: Outcomes, subject: Subject) -> None:
    """A provider that does not begin in time, before its headers or after them, is a timeout, told as a status, and
    its socket is closed."""
    held(slow[subject.name])


def test_silence_between_pieces(silent: Outcomes, subject: Subject) -> None:
    """A provider that falls silent ends the stream with an error event, after what came and what it cost."""
    held(silent[subject.name])


def test_slow_callers_are_not_slow_providers(read_late: Outcomes, subject: Subject) -> None:
    """A caller who reads late is not cut off by the provider's timeouts."""
    held(read_late[subject.name])
