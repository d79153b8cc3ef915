"""What accounts, ledger rows, waiting tasks and keys in use cost, each at sizes ten times apart (`bench.growth`).

Over the embedded PostgreSQL, whose tables are filled by SQL; what is measured is the services' own adapters.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg

from deploy.local.database import Database
from moa.quota.v1 import quota_pb2, quota_service_pb2
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.checker import Checker
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.usage import Usage
from services.auth.migrations import migrate as migrate_auth
from services.quota_client._lease_store import LeaseStore
from services.quota_client._lease_stores import LeaseStores
from services.quota_client._pace import Paces
from services.quota_client._refreshing import Refreshing
from services.quota_client._settling import Settling
from services.tasks.adapters.database import Database as TasksDatabase
from services.tasks.adapters.queue import Queue
from services.tasks.migrate import migrate as migrate_tasks

_TIMES: Final = 9
_YEAR: Final = (date(2026, 1, 1), date(2026, 12, 31))
_ACCOUNTS: Final[LiteralString] = (
    "insert into accounts (id, email, name, role, tokens_a_day, images_a_day, key_count)"
    " select 'acc_' || n, 'user' || n || '@example.com', 'Name ' || md5(n::text), 'user', 1000, 10, 5"
    " from generate_series(%s::int, %s::int) n"
)
# Blocks of 500 tokens with 49 settlements of 10 each and a return of the rest; so the books balance.
_BLOCKS: Final[LiteralString] = (
    "insert into blocks (id, account_id, key_id, day, holder, tokens, images, settled_tokens, returned_tokens,"
    " expires_at, closed_at) select md5('b' || n)::uuid, 'acc_' || n %% 10, 'key_' || n %% 10,"
    " date '2026-01-01' + n / 40, 'h', 500, 0, 490, 10, now(), now() from generate_series(%s::int, %s::int) n"
)
_ROWS: Final[LiteralString] = (
    "insert into ledger (at, kind, account_id, key_id, day, block_id, reference, tokens, images, operation, provider,"
    " model, prompt_tokens, completion_tokens, exact, request_id) select"
    # What is a moment old is audited again.
    " now() - interval '1 hour',"
    " case i when 0 then 'borrow' when 50 then 'return' else 'settle' end, 'acc_' || n %% 10, 'key_' || n %% 10,"
    " date '2026-01-01' + n / 40, md5('b' || n)::uuid, 'r' || n || '-' || i || '.1.10.0',"
    " case i when 0 then 500 else 10 end, 0,"
    " 1, case when i between 1 and 49 then 'p' end, case when i between 1 and 49 then 'm' || n %% 3 end, 5, 5, true,"
    " 'q' from generate_series(%s::int, %s::int) n, generate_series(0, 50) i"
)
_DAYS: Final[LiteralString] = (
    "insert into quota_counters (subject, period, starts, tokens) select s, 'day', day, 490 * count(*) from blocks,"
    " unnest(array[account_id, key_id]) s group by 1, 3 on conflict (subject, period, starts) do update set tokens ="
    " excluded.tokens"
)
_TASKS: Final[LiteralString] = (
    "insert into tasks.tasks (id, account_id, key_id, dialect, provider, model, work, fingerprint, state, created_at,"
    " not_before, deadline, price_micros) select 'ta' || gen_random_uuid(), 'acc_' || n %% 50, 'k', 'native', 'p',"
    " 'm', '', '', 1, now(), now(), now() + interval '1 h', 0 from generate_series(%s::int, %s::int) n"
)
_ROWS_A_BLOCK: Final = 51
_A_TRANSACTION: Final = 500


@contextlib.asynccontextmanager
async def _filled(migrate: Callable[[str], None]) -> AsyncIterator[str]:
    """Yield the URL of a database of our own."""
    with tempfile.TemporaryDirectory(prefix="moa-bench-") as folder:
        server = Database(Path(folder) / "data", durable=False)
        server.start()
        try:
            url = server.create("growth")
            migrate(url)
            yield url
        finally:
            server.stop()


def _fill(url: str, statements: dict[LiteralString, tuple[int, int]]) -> None:
    with psycopg.connect(url, autocommit=True) as link:
        for statement, (first, last) in statements.items():
            # As in the gateway, no transaction adds to one sum a thousand times: its versions could not be tidied.
            for begin in range(first, last + 1, _A_TRANSACTION) if "%s" in statement else ():
                link.execute(statement, (begin, min(last, begin + _A_TRANSACTION - 1)))
            if "%s" not in statement:
                link.execute(statement)
        link.execute("analyze")


async def _median_ms(work: Callable[[], Awaitable[object]]) -> float:
    taken = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        await work()
        taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


async def _accounts(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    async with _filled(migrate_auth) as url:
        postgres, found, filled = Postgres(url), [], 0
        await postgres.open()
        for size in sizes:
            _fill(url, {_ACCOUNTS: (filled + 1, size)})
            filled = size
            asked = f"user{size // 2}@"
            accounts = Accounts(postgres)
            found.append({"search": await _median_ms(lambda: accounts.search(asked, limit=50, after=None))})  # noqa: B023  # awaited at once
        await postgres.close()
    return found


async def _ledger(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    async with _filled(migrate_auth) as url:
        postgres, found, filled = Postgres(url), [], 0
        await postgres.open()
        usage, checker = Usage(postgres), Checker(url)
        for size in sizes:
            blocks = size // _ROWS_A_BLOCK
            _fill(url, {_BLOCKS: (filled + 1, blocks), _ROWS: (filled + 1, blocks), _DAYS: (0, 0)})
            await _balanced(checker)
            filled = blocks + 20
            _fill(url, {_BLOCKS: (blocks + 1, filled), _ROWS: (blocks + 1, filled), _DAYS: (0, 0)})
            began = time.perf_counter()
            await _balanced(checker)
            audited_ms = 1000 * (time.perf_counter() - began)
            found.append(
                {
                    "usage": await _median_ms(lambda: usage.grouped("acc_1", *_YEAR, limit=100)),
                    "page": await _median_ms(lambda: usage.ledger("acc_1", limit=100, before=None)),
                    "audit": audited_ms,
                }
            )
        await postgres.close()
    return found


async def _balanced(checker: Checker) -> None:
    findings = await checker.check()
    if findings.faults:
        raise SystemExit(f"the books that were made do not balance: {findings.faults}")


async def _tasks(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    async with _filled(migrate_tasks) as url:
        database, found, filled = TasksDatabase(url), [], 0
        await database.open()
        queue = Queue(database, per_account=1_000_000, lease_s=60, attempts=3)
        for size in sizes:
            _fill(url, {_TASKS: (filled + 1, size)})
            with psycopg.connect(url, autocommit=True) as link:
                link.execute(
                    "insert into tasks.accounts (account_id) select distinct account_id from tasks.tasks"
                    " on conflict do nothing"
                )
            filled = size
            found.append({"claim": await _median_ms(lambda: queue.claim("bench", 1))})
        await database.close()
    return found


class _Auth:
    """Auth, as far as it verifies keys again: nothing has changed."""

    async def Refresh(self, request: quota_service_pb2.RefreshRequest, **_: Any) -> quota_service_pb2.RefreshResponse:
        answer = quota_service_pb2.RefreshResponse(reported=True, unchanged=range(len(request.key_ids)))
        await asyncio.sleep(0)
        return answer


async def _there() -> None:
    """Auth is there."""


async def _keys(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    return [await _refreshed(size) for size in sizes]


async def _refreshed(count: int) -> dict[str, float]:
    """Return the longest turn of a loop that verifies so many keys again, and the round's time."""
    auth: Any = _Auth()
    settling = Settling(auth, service_token="bench", folder=None, holder="h")  # noqa: S106  # no secret
    paces = Paces(auth, service_token="bench", holder="h")  # noqa: S106
    stores = LeaseStores(auth, service_token="bench", holder="h", settling=settling, paces=paces, there=_there)  # noqa: S106
    now = time.monotonic()
    for number in range(count):
        grant = quota_pb2.Grant(account_id="a", key_id=f"key_{number}", version=1)
        grant.fresh_for.FromMilliseconds(1500)
        grant.remaining.resets_at.FromDatetime(datetime.now(UTC))
        store = LeaseStore(str(number).encode(), grant, now, settling, paces, stores.give_back)
        stores.by_key_id[grant.key_id] = store
    for store in stores.by_key_id.values():
        store.used_at = time.monotonic()
    refreshing = Refreshing(
        auth,
        service_token="bench",  # noqa: S106
        holder="h",
        stores=stores,
        settling=settling,
        paces=paces,
    )
    longest, over = 0.0, False

    async def watch() -> None:
        nonlocal longest
        while not over:
            # The thread's own time: other processes' turns are none of the loop's.
            last = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - last)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    began = time.thread_time()
    await refreshing.round()
    taken = time.thread_time() - began
    over = True
    await watching
    return {"turn": 1000 * longest, "round": 1000 * taken}


def accounts(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """Return for each number of accounts what a search takes, in ms."""
    return asyncio.run(_accounts(sizes))


def ledger(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """Return for each number of rows what a year's usage, a page, and the audit of 1,000 new rows take, in ms."""
    return asyncio.run(_ledger(sizes))


def tasks(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """Return for each number of waiting tasks what a claim takes, in ms."""
    return asyncio.run(_tasks(sizes))


def keys(sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """Return for each number of keys in use the longest turn of a router's loop, and a whole round, in ms."""
    return asyncio.run(_keys(sizes))
