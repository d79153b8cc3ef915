"""What requests cost PostgreSQL: `python -m bench.database_cost [--requests N] [--tuned no]`.

Two routers and an auth process of its own serve chats of twenty keys with two tags each, over the embedded database
(durable). Of each way to send them: transactions, bytes of the write-ahead log and processor time of all of the
server's processes for one chat, what is done beside included. Then, table by table, the rows that a chat writes, how
many of its changes stay in their page, and how the tables have grown. `--tuned no` takes the tables' own settings away
first, for a comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql

from bench.admission import made_keys
from deploy.local.database import Database
from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.auth.migrations import migrate
from services.common import logs
from services.common.rpc.client import channel
from services.quota_client import Admission
from services.quota_client.amounts import Amount
from services.quota_client.labels import labelled
from tests.auth.asking import TOKEN
from tests.auth.conftest import spawned

_USAGE = usage_pb2.Usage(prompt_tokens=900, completion_tokens=300, exact=True)
_KEYS = 20
_TABLES = """
select relname, n_tup_ins, n_tup_upd, n_tup_hot_upd, n_tup_del, n_dead_tup, pg_table_size(relid), pg_indexes_size(relid)
from pg_stat_user_tables where n_tup_ins + n_tup_upd + n_tup_del > 0
"""
_SETTLED_S = 2.0


class Books:
    """What the database says of itself."""

    def __init__(self, url: str, pid: int) -> None:
        self._link = psycopg.connect(url, autocommit=True)
        self._server = psutil.Process(pid)
        self._ended_s = 0.0
        self._seen: dict[int, float] = {}

    def now(self) -> tuple[float, float, float]:
        """Return transactions, bytes of the write-ahead log and seconds of processors, all since the start."""
        row = self._link.execute(
            "select xact_commit + xact_rollback, pg_current_wal_lsn() - '0/0'::pg_lsn from pg_stat_database"
            " where datname = current_database()"
        ).fetchone()
        assert row is not None
        return float(row[0]), float(row[1]), self._cpu_s()

    def tables(self) -> dict[str, tuple[int, ...]]:
        """Return what was written of each table, and its size."""
        self._link.execute("select pg_stat_force_next_flush()")
        return {name: tuple(more) for name, *more in self._link.execute(_TABLES).fetchall()}

    def _cpu_s(self) -> float:
        for process in (self._server, *self._server.children()):
            try:
                used = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            self._seen[process.pid] = used.user + used.system
        return sum(self._seen.values())


async def _chats(admissions: list[Admission], keys: list[str], count: int, every_s: float) -> None:
    for number in range(count):
        admission, key = admissions[number % len(admissions)], keys[number % len(keys)]
        reservation: Any = await admission.reserve(
            key,
            operation=quota_pb2.OPERATION_TEXT,
            provider="openai",
            model=f"m-{number % 3}",
            need=Amount(tokens=2000),
            request_id=f"r-{number}",
        )
        reservation.labels = labelled("openai", ["nightly", f"project-{number % 5}"])
        reservation.settle(usage=_USAGE, provider="openai", model=f"m-{number % 3}")
        if every_s:
            await asyncio.sleep(every_s)
        elif number % 50 == 49:
            await asyncio.sleep(0.1)


async def _run(folder: Path, requests: int, *, tuned: bool) -> None:
    database = Database(folder / "database")
    await asyncio.to_thread(database.start)
    url = database.create("moa")
    await asyncio.to_thread(migrate, url)
    keys = await made_keys(url, _KEYS)
    if not tuned:
        with psycopg.connect(url) as link:
            for (table,) in link.execute(
                "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
                " and reloptions is not null"
            ).fetchall():
                link.execute(sql.SQL("alter table {} reset (fillfactor)").format(sql.Identifier(table)))
    process, address = await spawned(url)
    pid = database.pid
    assert pid is not None
    books = Books(url, pid)
    link_to_auth = channel(address)
    try:
        admissions = [
            Admission(link_to_auth, service_token=TOKEN, journal=folder / f"journal-{number}") for number in range(2)
        ]
        for admission in admissions:
            await admission.start()
        await _chats(admissions, keys, 200, 0)
        print(f"{'':32}{'transactions':>14}{'WAL bytes':>12}{'CPU us':>10}")
        first = books.tables()
        for name, count, every_s in (
            ("one each 1.2 s (booked alone)", 20, 1.2),
            ("20 a second", min(400, requests), 0.05),
            ("as many as there can be", requests, 0.0),
        ):
            await asyncio.sleep(_SETTLED_S)
            began, before = time.monotonic(), books.now()
            await _chats(admissions, keys, count, every_s)
            await asyncio.sleep(_SETTLED_S)
            after, took_s = books.now(), time.monotonic() - began
            each = [(one - other) / count for one, other in zip(after, before, strict=True)]
            print(
                f"{name:32}{each[0]:>14.2f}{each[1]:>12,.0f}{each[2] * 1e6:>10,.0f}   ({count / took_s:.0f} a second)"
            )
        _print_tables(first, books.tables(), requests + min(400, requests) + 20)
        for admission in admissions:
            await admission.stop()
    finally:
        await link_to_auth.close()
        process.terminate()
        await process.wait()
        await asyncio.to_thread(database.stop)


def _print_tables(first: dict[str, tuple[int, ...]], last: dict[str, tuple[int, ...]], count: int) -> None:
    print(f"\n{'rows a chat':32}{'new':>8}{'changed':>10}{'in place':>10}{'gone':>8}{'grown, bytes a chat':>22}")
    for name, now in sorted(last.items()):
        before = first.get(name, (0,) * len(now))
        new, changed, hot, gone, _, table, index = (one - other for one, other in zip(now, before, strict=True))
        if new + changed + gone < count / 1000:
            continue
        share = f"{hot / changed:.0%}" if changed else ""
        print(
            f"{name:32}{new / count:>8.3f}{changed / count:>10.3f}{share:>10}{gone / count:>8.3f}"
            f"{(table + index) / count:>22,.0f}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.database_cost", description="Measure chats in PostgreSQL.")
    parser.add_argument("--requests", type=int, default=5000, help="chats of the busiest part (5,000)")
    parser.add_argument("--tuned", choices=("yes", "no"), default="yes", help="whether tables keep their settings")
    given = parser.parse_args()
    logs.configure("bench", "error")
    with tempfile.TemporaryDirectory(prefix="moa-cost-") as folder:
        asyncio.run(_run(Path(folder), given.requests, tuned=given.tuned == "yes"))


if __name__ == "__main__":
    main()
