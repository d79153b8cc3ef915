"""Reports of spending from a real streaming replica, made by pg_basebackup."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime
from typing import NamedTuple

import psycopg
import pytest

from deploy.local import unprivileged
from deploy.local.database import Database, binaries
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.spend import Spend, SpendReplica
from services.auth.domain.spend import read
from services.auth.migrations import migrate
from tests import waiting

DAY = date(2026, 11, 3)
REPORT = read(["day,model"], DAY.isoformat(), DAY.isoformat())


class Pair(NamedTuple):
    """A database and its replica."""

    primary: str
    copy: str
    server_of_copy: Database


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("replicated")
    with ExitStack() as stack:
        server = Database(folder / "primary", durable=False)
        server.start()
        stack.callback(server.stop)
        url = server.create("moa")
        migrate(url)
        copy = folder / "copy"
        copy.mkdir(mode=0o700)
        asked = [
            str(binaries() / "pg_basebackup"),
            "-d",
            server.url(),
            "-D",
            str(copy),
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
        ]
        if os.geteuid() == 0:
            user = unprivileged.nobody()
            os.chown(copy, user.pw_uid, user.pw_gid)
            asked = [sys.executable, "-I", unprivileged.__file__, *asked]
        done = subprocess.run(asked, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        # The server's socket lies among its data.
        for left in copy.glob(".s.PGSQL.*"):
            left.unlink()
        replica = Database(copy, durable=False)
        replica.start()
        stack.callback(replica.stop)
        yield Pair(url, replica.url("moa"), replica)


def book(url: str, model: str, tokens: int) -> datetime:
    """Add to the sums; return when that was there."""
    with psycopg.connect(url) as link:
        for grouping, value in (("model", model), ("dialect", "openai")):
            link.execute(
                "insert into spend (scope, grouping, period, starts, value, shard, requests, unpriced_requests,"
                " prompt_tokens, completion_tokens, charged_tokens) values ('', %s, 'day', %s, %s, 0, 1, 0, 0, 0, %s)"
                " on conflict (scope, grouping, period, starts, value, shard) do update"
                " set charged_tokens = spend.charged_tokens + excluded.charged_tokens",
                (grouping, DAY, value, tokens),
            )
    return datetime.now(UTC)


async def test_reports_come_from_a_replica_that_is_not_too_far_behind(pair: Pair) -> None:
    """They say as of when they are; where the replica is behind, another, promoted or gone, the database is read."""
    # A busy machine's replica is there all the same; one that is gone need not be waited for as long.
    primary, copy = Postgres(pair.primary, wait_s=20), Postgres(pair.copy, wait_s=20)
    gone = Postgres(pair.copy, wait_s=0.1)
    other = Postgres(pair.copy.replace("/moa?", "/postgres?"), wait_s=20)
    for each in (primary, copy, gone, other):
        await each.open()
    try:
        patient = Spend(primary, SpendReplica(copy, lag_s=3600))
        book(pair.primary, "p/a", 10)
        pauses = waiting.pauses()
        with psycopg.connect(pair.copy, autocommit=True) as link:
            # Until then the replica does not know how far it is, and the database itself is read.
            while link.execute("select 1 from spend where value = 'p/a'").fetchone() is None:
                await asyncio.sleep(next(pauses))
            found = await patient.read(REPORT, limit=5)
            assert found.total.spent.tokens == 10
            assert found.as_of <= datetime.now(UTC)
            link.execute("select pg_wal_replay_pause()")
            while link.execute("select pg_get_wal_replay_pause_state()").fetchone() != ("paused",):
                await asyncio.sleep(next(pauses))
        booked_at = book(pair.primary, "p/b", 5)
        found = await patient.read(REPORT, limit=5)
        assert [(row.value, row.spent.tokens) for row in found.rows] == [("p/a", 10)]
        assert found.as_of < booked_at
        asked_at = datetime.now(UTC)
        found = await Spend(primary, SpendReplica(copy, lag_s=0.000001)).read(REPORT, limit=5)
        assert found.total.spent.tokens == 15
        assert found.as_of >= asked_at
        with psycopg.connect(pair.copy, autocommit=True) as link:
            link.execute("select pg_wal_replay_resume()")
        while (found := await patient.read(REPORT, limit=5)).total.spent.tokens != 15:
            assert found.as_of < booked_at
            await asyncio.sleep(next(pauses))
        strange = Spend(primary, SpendReplica(other, lag_s=3600))
        assert (await strange.read(REPORT, limit=5)).total.spent.tokens == 15
        with psycopg.connect(pair.copy, autocommit=True) as link:
            assert link.execute("select pg_promote()").fetchone() == (True,)
        book(pair.primary, "p/b", 5)
        assert (await patient.read(REPORT, limit=5)).total.spent.tokens == 20
        pair.server_of_copy.kill()
        book(pair.primary, "p/b", 5)
        without = Spend(primary, SpendReplica(gone, lag_s=3600))
        assert (await without.read(REPORT, limit=5)).total.spent.tokens == 25
    finally:
        for each in (primary, copy, gone, other):
            await each.close()
