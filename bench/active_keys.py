"""What many active keys do to a new one, and whether any of them settles late: `python -m bench.active_keys [KEYS]`.

A router's half of admission over a real auth in a process of its own and the embedded PostgreSQL. All keys are verified
again in every round, as keys in use are; some hundreds have leases, which are renewed. Prints a cold key's p50 and p95
in quiet and beside them, how long a round takes, how many leases auth took back though they were in use, and how many
settlements came too late.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
import uvloop

from deploy.local.database import Database
from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.auth.domain import keys
from services.auth.migrations import migrate
from services.common import logs
from services.common.rpc.client import channel
from services.quota_client import Admission, Reservation, TaskReservation
from services.quota_client._lease_store import LeaseStore
from services.quota_client.amounts import Amount
from tests.auth.asking import PEPPER, TOKEN, Router
from tests.auth.conftest import spawned

KEYS: Final = 50_000
_COLD: Final = 200
_USAGE: Final = usage_pb2.Usage(prompt_tokens=3, completion_tokens=2, exact=True)
_AT_ONCE: Final = 16
_PAYING: Final = 300
_ROUNDS_S: Final = 30.0
"""Longer than a lease lasts without being renewed (20 s)."""


class Found(NamedTuple):
    """What was measured."""

    quiet: list[float]
    beside: list[float]
    ended: int
    """Leases that were taken back."""
    late: int
    settled: int

    @property
    def ratio(self) -> float:
        """The p95 of a cold key beside the active ones, over that in quiet."""
        return p95(self.beside) / p95(self.quiet)


def p95(seconds: Sequence[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(seconds, n=20)[18]


async def measure(count: int) -> Found:
    """Return what so many active keys do."""
    async with replica() as (url, address):
        made = [keys.make(PEPPER) for _ in range(count + 2 * _COLD + _PAYING)]
        await asyncio.to_thread(_fill, url, made)
        secrets = iter([key.secret for key in made])
        link = channel(address)
        admission = Router(link, service_token=TOKEN)
        await admission.start()
        try:
            quiet = [await _cold(admission, next(secrets)) for _ in range(_COLD)]
            paying = [next(secrets) for _ in range(_PAYING)]
            await _admitted(admission, paying)
            stores = _in_use(admission, count)
            while not all(store.version for store in stores):  # noqa: ASYNC110  # auth reads them once; nothing tells
                await asyncio.sleep(0.5)
            await asyncio.sleep(_ROUNDS_S)
            beside = [await _cold(admission, next(secrets)) for _ in range(_COLD)]
            await _admitted(admission, paying)
        finally:
            await admission.stop()
            await link.close()
        with psycopg.connect(url) as database:
            row = database.execute(
                "select (select count(*) from ended_leases l join blocks b on b.id = l.block_id"
                " where split_part(b.key_id, '_', 2)::int between %s and %s), count(*) filter (where kind = 'late'),"
                " count(*) filter (where kind = 'settle') from ledger",
                (_COLD, _COLD + _PAYING - 1),
            ).fetchone()
        assert row is not None
        return Found(quiet, beside, *row)


@asynccontextmanager
async def replica() -> AsyncIterator[tuple[str, str]]:
    """Yield a database and the address of an auth replica over it."""
    with tempfile.TemporaryDirectory(prefix="moa-bench-") as folder:
        database = Database(Path(folder) / "data", durable=False)
        await asyncio.to_thread(database.start)
        try:
            url = database.create("moa")
            await asyncio.to_thread(migrate, url)
            # A busy machine is no database that is away.
            os.environ["MOA_DATABASE_WAIT_S"] = "30"
            process, address = await spawned(url)
            try:
                yield url, address
            finally:
                process.terminate()
                await process.wait()
        finally:
            await asyncio.to_thread(database.stop)


def _fill(url: str, made: Sequence[keys.NewKey]) -> None:
    """Store the keys, ten of an account, whose limits none of them reaches."""

    def copied(statement: str, rows: Iterator[tuple[Any, ...]]) -> None:
        with link.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for row in rows:
                copy.write_row(row)

    accounts = range(1 + len(made) // 10)
    with psycopg.connect(url) as link:
        copied(
            "copy accounts (id, role, tokens_a_day, images_a_day, key_count) from stdin",
            ((f"acc_{n}", "user", 10**9, 0, 10) for n in accounts),
        )
        copied("copy rules (account_id, provider, model) from stdin", ((f"acc_{n}", "*", "*") for n in accounts))
        copied(
            "copy keys (id, account_id, prefix, digest) from stdin",
            ((f"key_{n}", f"acc_{n // 10}", key.prefix, key.digest) for n, key in enumerate(made)),
        )
    with psycopg.connect(url, autocommit=True) as link:
        link.execute("analyze")


async def _reserved(admission: Admission, key: str) -> Reservation | TaskReservation:
    return await admission.reserve(
        key, operation=quota_pb2.OPERATION_TEXT, provider="p", model="m", need=Amount(tokens=100), request_id="r"
    )


async def _cold(admission: Admission, key: str) -> float:
    """Return how long a key that nobody has seen takes."""
    began = time.perf_counter()
    reservation = await _reserved(admission, key)
    taken = time.perf_counter() - began
    reservation.release()
    return taken


async def _admitted(admission: Admission, made: Sequence[str]) -> None:
    """Let each key pay for a request."""
    left = iter(made)

    async def some() -> None:
        for key in left:
            reservation = await _reserved(admission, key)
            reservation.settle(usage=_USAGE, provider="p", model="m")

    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))


def _in_use(admission: Admission, count: int) -> list[LeaseStore]:
    """Let so many keys be in use, and those that pay, for as long as this lasts: auth tells of them what it knows.

    Returns those that do not pay.
    """
    made = []
    stores = admission._stores
    now = time.monotonic()
    for number in range(_COLD + _PAYING, _COLD + _PAYING + count):
        grant = quota_pb2.Grant(account_id=f"acc_{number // 10}", key_id=f"key_{number}")
        grant.fresh_for.FromMilliseconds(1500)
        grant.remaining.resets_at.FromDatetime(datetime.now(UTC))
        store = LeaseStore(str(number).encode(), grant, now, admission._settling, admission._paces, stores.give_back)
        stores.by_key_id[grant.key_id] = store
        made.append(store)
    for store in stores.by_key_id.values():
        store.used_at = now + 3600
    return made


def main() -> None:
    """Print what was measured."""
    count = int(sys.argv[1]) if sys.argv[1:] else KEYS
    began = time.monotonic()
    found = uvloop.run(measure(count))
    for name, took in (("quiet", found.quiet), (f"{count:,} active keys", found.beside)):
        print(f"a cold key, {name:<22} p50 {1000 * statistics.median(took):>8.1f} ms   p95 {1000 * p95(took):>8.1f} ms")
    print(f"p95 {found.ratio:.2f} times quiet; {found.ended} leases taken back in use,")
    print(f"{found.late} of {found.settled:,} settlements late")
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    logs.configure("bench", "error")
    main()
