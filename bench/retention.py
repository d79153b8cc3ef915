"""What it costs to remove old rows of the ledger, and to vacuum after them: `python -m bench.retention [ROWS]`.

ROWS are 2,000,000, of 100 settlements a block, 100 blocks at a time, as a hundred keys in use write them. They are
written with the ledger's triggers off, as if 60 days ago and audited; half of them are removed by what removes them in
auth, without its rests, and the ledger is vacuumed as autovacuum does it by PostgreSQL's default; then the other half,
with the limit that `docs/database.md` names. Last as many rows are written anew, to see whether the room is used again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Final

import psycopg

from deploy.local.database import Database
from services.auth.adapters.checker import Checker
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.retention import Retention
from services.auth.migrations import migrate

_DAYS: Final = 40
_AT_ONCE: Final = 10_000
"""Rows of a hundred blocks, which are open at the same time."""
_BLOCKS = """
insert into blocks (id, account_id, key_id, day, holder, tokens, images, settled_tokens, requests, settled_requests,
                    created_at, expires_at, closed_at)
select md5('b-' || n)::uuid, 'acc_' || n %% 200, 'key_' || n %% 1000, current_date - 60, 'h', 120000, 0, 120000,
       100, 100, now() - interval '60 days', now() - interval '60 days',
       now() - interval '60 days' + n * interval '100 ms'
from generate_series(%(first)s::bigint / 100, %(last)s::bigint / 100) n
"""
_ROWS = """
insert into ledger (at, kind, account_id, key_id, day, block_id, reference, tokens, images, nano_usd, operation,
                    provider, model, prompt_tokens, completion_tokens, requests, dialect, lease_id, request_id)
select now() - interval '60 days', 'settle', 'acc_' || b %% 200, 'key_' || b %% 1000, current_date - 60,
       md5('b-' || b)::uuid, md5('l-' || n) || '.' || n, 1200, 0, 1000, 1, 'openai-text', 'gpt-4o-mini', 1000, 200, 1,
       'openai', md5('l-' || b), md5('r-' || n)
from (select n, n / 10000 * 100 + n %% 100 as b from generate_series(%(first)s::bigint, %(last)s::bigint) n) rows
"""
_SIZES = "select pg_relation_size('ledger'), pg_indexes_size('ledger'), pg_current_wal_lsn() - '0/0'::pg_lsn"


def _fill(link: psycopg.Connection, first: int, last: int) -> None:
    link.execute("set session_replication_role = replica; set synchronous_commit = off")
    for start in range(first, last, 50 * _AT_ONCE):
        asked = {"first": start, "last": min(start + 50 * _AT_ONCE, last) - 1}
        link.execute(_BLOCKS, asked)
        link.execute(_ROWS, asked)
    link.execute(
        "insert into audit_position (upto, sums) select max(id), '{}' from ledger"
        " on conflict (single) do update set upto = excluded.upto"
    )
    link.execute("set session_replication_role = origin; set synchronous_commit = on")


def _sizes(link: psycopg.Connection) -> tuple[int, int, int]:
    (found,) = link.execute(_SIZES).fetchall()
    return int(found[0]), int(found[1]), int(found[2])


async def _remove(url: str, link: psycopg.Connection, rows: int) -> float:
    """Remove so many rows, at least; return in how many seconds."""
    postgres = Postgres(url, size=2, wait_s=20)
    await postgres.open()
    keeper = Retention(postgres, Checker(url), days=_DAYS)
    began = time.monotonic()
    before = _count(link)
    while before - _count(link) < rows and await keeper.tidy():
        pass
    took_s = time.monotonic() - began
    await keeper.close()
    await postgres.close()
    return took_s


def _count(link: psycopg.Connection) -> int:
    ((rows,),) = link.execute("select count(*) from blocks").fetchall()
    return int(rows) * 100


def _round(url: str, link: psycopg.Connection, rows: int, limit: int) -> None:
    before, wal = _count(link), _sizes(link)[2]
    took_s = asyncio.run(_remove(url, link, rows))
    gone = before - _count(link)
    written = _sizes(link)[2] - wal
    speed, log = gone / took_s, written / gone
    print(f"removed {gone:,} rows in {took_s:.0f} s: {speed:,.0f} a second, {log:,.0f} bytes of WAL each", flush=True)
    wal, began = _sizes(link)[2], time.monotonic()
    link.execute(f"set vacuum_cost_delay = '2ms'; set vacuum_cost_limit = {limit:d}".encode())
    link.execute("vacuum ledger")
    link.execute("reset vacuum_cost_delay")
    written = _sizes(link)[2] - wal
    print(
        f"vacuum with a limit of {limit}: {time.monotonic() - began:.0f} s, {written / gone:,.0f} bytes of WAL a row",
        flush=True,
    )


def _measure(url: str, rows: int) -> None:
    with psycopg.connect(url, autocommit=True) as link:
        link.execute("alter table ledger set (autovacuum_enabled = off)")
        began = time.monotonic()
        _fill(link, 0, rows)
        link.execute("vacuum analyze ledger")
        link.execute("vacuum analyze blocks")
        heap, indexes, _ = _sizes(link)
        print(f"{os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f}")
        print(
            f"{rows:,} rows written in {time.monotonic() - began:.0f} s: {heap / rows:.0f} bytes each,"
            f" and {indexes / rows:.0f} of indexes",
            flush=True,
        )
        _round(url, link, rows // 2, 200)
        _round(url, link, rows, 2000)
        _fill(link, rows, 2 * rows)
        again, indexes_again, _ = _sizes(link)
        print(
            f"{rows:,} rows written anew: the table is {again / 2**20:,.0f} MB where it was {heap / 2**20:,.0f},"
            f" its indexes {indexes_again / 2**20:,.0f} where they were {indexes / 2**20:,.0f}"
        )


def main() -> None:
    """Fill a database of our own, and print what removing and vacuuming took."""
    parser = argparse.ArgumentParser(prog="python -m bench.retention", description="Measure the ledger's retention.")
    parser.add_argument("rows", nargs="?", type=int, default=2_000_000, help="rows of the ledger (2,000,000)")
    given = parser.parse_args()
    if given.rows % (2 * _AT_ONCE):
        parser.error(f"ROWS are a multiple of {2 * _AT_ONCE}")
    with tempfile.TemporaryDirectory() as folder:
        server = Database(Path(folder) / "data", durable=True)
        server.start()
        try:
            url = server.create("moa")
            migrate(url)
            _measure(url, given.rows)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
