"""A database that is connected and says nothing: every byte is held back, and later let through."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from deploy.local.database import Database
from services.auth.adapters import postgres
from services.auth.migrations import migrate
from services.common.errors import DeadlineExceeded, Unavailable
from services.quota_client._lease_stores import CALL_S
from tests.auth.asking import audited, reserve, settle, until
from tests.auth.conftest import Admit, Auth, started


class Wire:
    """Stands between a service and PostgreSQL's socket, and can be held."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._flows = asyncio.Event()
        self._flows.set()
        self._pipes: set[asyncio.Task[None]] = set()

    async def serve(self, path: Path) -> asyncio.Server:
        return await asyncio.start_unix_server(self._joined, path)

    def hold(self) -> None:
        self._flows.clear()

    def let_go(self) -> None:
        self._flows.set()

    async def close(self) -> None:
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._target)
        for source, sink in ((reader, back), (there, writer)):
            pipe = asyncio.create_task(self._passed(source, sink))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _passed(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    await self._flows.wait()
                    sink.write(data)
                    await sink.drain()
        finally:
            sink.close()
            with contextlib.suppress(OSError):
                await sink.wait_closed()


@pytest.fixture
async def wire(database: Database, tmp_path: Path) -> AsyncIterator[Wire]:
    made = Wire(database.folder / ".s.PGSQL.5432")
    async with await made.serve(tmp_path / ".s.PGSQL.5432"):
        yield made
        made.let_go()
        await made.close()


@pytest.fixture
async def behind(database_url: str, wire: Wire, tmp_path: Path) -> AsyncIterator[Auth]:
    """A replica behind the wire. What the test itself asks goes past it."""
    await asyncio.to_thread(migrate, database_url)
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    auth = await started(f"postgresql://postgres@/{name}?host={tmp_path}", database_wait_s=1.0)
    auth.url = database_url
    yield auth
    await auth.stack.aclose()


async def test_a_stalled_database_is_as_one_that_is_away(behind: Auth, wire: Wire, admit: Admit) -> None:
    """Who needs it gets a 503 in bounded time; a warm key goes on; once it answers again everything is booked, once."""
    account, key_id, warm = await behind.account(tokens=1_000_000)
    _, _, cold = await behind.account()
    admission = await admit(behind, call_s=CALL_S)
    for _ in range(10):
        settle(await reserve(admission, warm, 100), 60)
    await until(lambda: behind.spent(account) == (600, 0))
    wire.hold()
    # How much was borrowed ahead depends on how fast the requests before came; half may lie in pieces.
    assert behind.quota is not None
    lasts = min(10, behind.quota.pools.free(key_id).tokens // 200)
    assert lasts > 0
    async with asyncio.timeout(60):
        for _ in range(3):
            with pytest.raises((Unavailable, DeadlineExceeded)):
                await reserve(admission, cold, 100)
    for _ in range(lasts):
        settle(await reserve(admission, warm, 100), 60)
    wire.let_go()
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(Unavailable, DeadlineExceeded):
                settle(await reserve(admission, cold, 100), 60)
                break
            await asyncio.sleep(0.05)
    await until(lambda: behind.spent(account) == (600 + 60 * lasts, 0), within_s=60)
    await admission.stop()
    await audited(behind.url)


async def test_a_connection_that_says_nothing_is_given_up(
    behind: Auth, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that is under way when the database falls silent ends, even where its caller waits for ever."""
    monkeypatch.setattr(postgres, "ANSWER_S", 2.0)
    entered = asyncio.Event()

    async def hang() -> None:
        async with behind.postgres.transaction() as link:
            entered.set()
            await stalled.wait()
            await link.execute("select 1")

    stalled = asyncio.Event()
    task = asyncio.create_task(hang())
    await entered.wait()
    wire.hold()
    stalled.set()
    async with asyncio.timeout(60):
        with pytest.raises(Unavailable):
            await task
