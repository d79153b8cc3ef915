"""Connections to PostgreSQL, as tasks that are cancelled have them, and when it counts as away."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from structlog.testing import capture_logs

from moa.idempotency.v1 import idempotency_service_pb2_grpc
from services.common.database import Database, answering
from services.common.errors import Unavailable
from services.common.rereading import rereading
from tests import waiting
from tests.counters import told

WAIT_S = 110.0
"""As long as no test takes."""
TURNS = 24
"""Up to how many turns of the loop after a connection is free a cancellation is tried."""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a database that is there again is found later than within two seconds."""
    monkeypatch.setattr("services.common.database.BRIEFLY_S", 60.0)


async def pass_turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_whoever_waits_for_a_connection_stays_cancelled(database_url: str) -> None:
    """A cancellation that comes while a connection is passed on ends who waits for it, at whichever turn it comes."""
    database = Database(
        database_url, what="accounts", size=1, wait_s=20, statement_s=20, lock_s=20, answer_s=60, at_once=True
    )
    never = asyncio.Event()

    async def use() -> None:
        async with database.transaction() as link:
            await link.execute("select 1")
            await never.wait()

    await database.open()
    try:
        for turns in range(TURNS):
            async with database.transaction() as link:
                await link.execute("select 1")
                waiting = asyncio.create_task(use())
                await pass_turns(10)
            await pass_turns(turns)
            waiting.cancel()
            await asyncio.wait([waiting], timeout=60)
            assert waiting.cancelled(), f"lost after {turns} turns"
    finally:
        never.set()
        await database.close()


async def _carried(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause_s: float) -> None:
    try:
        while data := await reader.read(65536):
            await asyncio.sleep(pause_s)
            writer.write(data)
    finally:
        writer.close()


async def test_a_slow_database_is_found_again(database_url: str) -> None:
    """One that answers, and slower than a caller waits, is not away for good: who looks for it has more patience."""
    place = conninfo_to_dict(database_url)
    carrying: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far = await asyncio.open_unix_connection(f"{place['host']}/.s.PGSQL.{place.get('port', 5432)}")
        for one, other in ((reader, far[1]), (far[0], writer)):
            carrying.add(asyncio.create_task(_carried(one, other, pause_s=0.06)))

    slow = await asyncio.start_server(connected, "127.0.0.1", 0)
    host, port = slow.sockets[0].getsockname()
    url = make_conninfo(database_url, host=host, port=port)
    database = Database(
        url, what="accounts", wait_s=0.1, check_s=0.1, size=1, statement_s=20, lock_s=20, answer_s=60, at_once=True
    )
    await database.open()
    try:
        with pytest.raises(Unavailable):
            async with database.transaction():
                pass
        assert database.is_away
        await pass_turns(2)
        assert told("moa_database_lost") == 1
        pauses = waiting.pauses()
        async with asyncio.timeout(60):
            while database.is_away:
                await asyncio.sleep(next(pauses))
        assert told("moa_database_lost") == 0
    finally:
        await database.close()
        slow.close()
        # A connection that was given up while it was being made is closed when the collector comes by it.
        for each in carrying:
            each.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)
        await pass_turns(2)


async def _answers(database: Database) -> bool:
    try:
        async with database.transaction():
            return True
    except Unavailable:
        return False


async def test_a_busy_database_is_not_away(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever got no connection while others were answered is refused alone: the next is not refused with it."""
    database = Database(
        database_url, what="accounts", size=1, wait_s=WAIT_S, statement_s=20, lock_s=20, answer_s=600, at_once=True
    )
    held, free = [asyncio.Event(), asyncio.Event()], [asyncio.Event(), asyncio.Event()]

    async def hold(number: int) -> None:
        async with database.transaction() as link:
            await link.execute("select 1")
            held[number].set()
            await free[number].wait()

    await database.open()
    try:
        first = asyncio.create_task(hold(0))
        await held[0].wait()
        second = asyncio.create_task(hold(1))
        await pass_turns(5)
        late = asyncio.create_task(hold(0))
        await pass_turns(5)
        free[0].set()
        await held[1].wait()
        loop = asyncio.get_running_loop()
        now = loop.time
        monkeypatch.setattr(loop, "time", lambda: now() + WAIT_S)
        with pytest.raises(Unavailable):
            await late
        assert not database.is_away
        free[1].set()
        await asyncio.gather(first, second)
    finally:
        await database.close()


async def _end_sessions(database_url: str, name: str) -> int:
    """Have the server end every session of that name; return how many there were."""
    at = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s"
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as operator:
        return len(await (await operator.execute(at, (name,))).fetchall())


@asynccontextmanager
async def _pooled(database_url: str, name: str) -> AsyncIterator[Database]:
    """Yield a database to which eight sessions of that name are open, none of them used.

    By it they are told from those of another test, which the server may not have ended yet.
    """
    database_url = make_conninfo(database_url, application_name=name)
    database = Database(
        database_url, what="accounts", size=8, wait_s=WAIT_S, statement_s=20, lock_s=20, answer_s=60, at_once=True
    )
    opened, go = asyncio.Barrier(8), asyncio.Event()

    async def hold() -> None:
        async with database.transaction() as link:
            await link.execute("select 1")
            await opened.wait()
            await go.wait()

    await database.open()
    try:
        async with asyncio.TaskGroup() as holding:
            for _ in range(8):
                holding.create_task(hold())
            go.set()
        yield database
    finally:
        await database.close()


async def test_sessions_that_are_ended_are_made_anew_at_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever meets one session that the server has ended meets no other: all that are as old are made anew, and nobody
    is refused. The pool alone takes a second for each further one."""
    slept = []
    sleep = asyncio.sleep

    async def sleeps(delay: float, *more: object) -> None:
        slept.append(delay)
        await sleep(delay)

    monkeypatch.setattr(asyncio, "sleep", sleeps)
    async with _pooled(database_url, "ended at once") as database:
        assert await _end_sessions(database_url, "ended at once") == 8
        slept.clear()
        assert await _answers(database)
        assert not database.is_away
        assert [delay for delay in slept if delay] == []


class _Reader(idempotency_service_pb2_grpc.IdempotencyServiceServicer):
    """A servicer that reads and writes, and whose session ends amid its first call."""

    def __init__(self, database: Database, database_url: str) -> None:
        self._database, self._url = database, database_url
        self.calls = 0

    async def Read(self, _request: object, _context: object) -> int:  # type: ignore[override]
        """Read."""
        return await self._asked()

    async def Renew(self, _request: object, _context: object) -> int:  # type: ignore[override]
        """Write."""
        return await self._asked()

    async def _asked(self) -> int:
        self.calls += 1
        async with self._database.transaction() as link:
            await link.execute("select 1")
            if self.calls == 1:
                await _end_sessions(self._url, "ended amid")
            row = await (await link.execute("select 42")).fetchone()
            assert row is not None
            return int(row[0])


async def test_a_read_is_made_again_and_a_write_is_not(database_url: str) -> None:
    """Of calls whose session ended amid them a read is answered, by another session; a write's caller is told, and the
    operator in the server's words."""
    async with _pooled(database_url, "ended amid") as database:
        with capture_logs() as lines:
            reader = rereading(_Reader(database, database_url))  # type: ignore[abstract]
            assert await reader.Read(None, None) == 42
            assert reader.calls == 2
            writer = rereading(_Reader(database, database_url))  # type: ignore[abstract]
            with pytest.raises(Unavailable, match="accounts cannot be reached"):
                await writer.Renew(None, None)
            assert writer.calls == 1
        assert "terminating connection" in next(line["words"] for line in lines if line["event"] == "database.lost")
        assert await _answers(database)


async def test_a_refusal_at_the_start_is_told_in_the_servers_words(database_url: str) -> None:
    """A database that refuses every connection is away before anybody asks for it, for the reason that it gives."""
    nowhere = make_conninfo(database_url, dbname="nowhere")
    database = Database(
        nowhere, what="accounts", size=1, wait_s=0.1, statement_s=20, lock_s=20, answer_s=60, at_once=True
    )
    await database.open()
    try:
        with capture_logs() as lines:
            await database.look()
        assert database.is_away
        assert 'database "nowhere" does not exist' in lines[0]["words"]
    finally:
        await database.close()


async def test_an_answer_that_came_while_the_process_stood_still_is_heard(database_url: str) -> None:
    """Its connection is not taken for one whose server is silent, and nobody is refused."""
    within_s = 0.01

    def stand_still() -> None:
        select.select([link], [], [])  # until the answer is there
        time.sleep(2 * within_s)

    async with await psycopg.AsyncConnection.connect(database_url) as link:
        for _ in range(3):
            asyncio.get_running_loop().call_soon(stand_still)
            with answering(link, within_s=within_s):
                assert await (await link.execute("select 1")).fetchone() == (1,)


async def test_the_server_that_writes_is_found_among_several(database_url: str) -> None:
    """Of hosts that a URL names, one that is not there and one that takes no writes are passed over."""
    place = conninfo_to_dict(database_url)
    name = sql.Identifier(str(place["dbname"]))
    port = str(place.get("port", 5432))
    several = make_conninfo(
        database_url,
        host=f"/nowhere,{place['host']}",
        port=f"{port},{port}",
        target_session_attrs="read-write",
    )
    database = Database(several, what="accounts", wait_s=20, size=2, statement_s=20, lock_s=20, answer_s=60)
    await database.open()
    try:
        assert await _answers(database)
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as operator:
            await operator.execute(sql.SQL("alter database {} set default_transaction_read_only = on").format(name))
            try:
                with pytest.raises(psycopg.OperationalError, match="read-only"):
                    await psycopg.AsyncConnection.connect(several)
            finally:
                await operator.execute(sql.SQL("alter database {} reset default_transaction_read_only").format(name))
    finally:
        await database.close()


async def test_a_database_that_takes_no_writes(database_url: str) -> None:
    """It counts as away until it takes writes again: callers may try again, and no row of theirs is blamed."""
    name = sql.Identifier(str(conninfo_to_dict(database_url)["dbname"]))
    database = Database(
        database_url, what="accounts", wait_s=20, size=2, statement_s=20, lock_s=20, answer_s=60, at_once=True
    )

    async def write() -> None:
        async with database.transaction() as link:
            await link.execute("create table written (n int)")
            raise ZeroDivisionError

    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as operator:
        await operator.execute(sql.SQL("alter database {} set default_transaction_read_only = on").format(name))
        await database.open()
        try:
            with pytest.raises(Unavailable, match="accounts cannot be reached"):
                await write()
            assert database.is_away
            await pass_turns(2)
            assert told("moa_database_lost") == 1
        finally:
            await operator.execute(sql.SQL("alter database {} reset default_transaction_read_only").format(name))
        try:
            pauses = waiting.pauses()
            async with asyncio.timeout(60):
                while database.is_away:
                    await asyncio.sleep(next(pauses))
            with pytest.raises(ZeroDivisionError):
                await write()
        finally:
            await database.close()
