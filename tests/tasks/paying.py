"""What the tests of credits share: an account, quota over real books, and a task's life by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from moa.image.v1 import image_service_pb2
from services.auth.adapters.checker import Checker
from services.common.clock import now_utc
from services.common.rpc.client import channel
from services.tasks.adapters.database import Database
from services.tasks.adapters.queue import Queue, WorkerLock
from services.tasks.adapters.quota import Quota
from services.tasks.domain.task import Task
from tests import poolers, shipped
from tests.auth.asking import TOKEN
from tests.auth.conftest import Auth

PRICE = 100
"""What a task costs, in micro-credits."""


def pool_of(url: str) -> Database:
    """Return a pool of connections to a database, not yet opened, behind a pooler where tests are asked for one."""
    shared, own = poolers.urls(url)
    return Database(shared, pooled=bool(own))


@asynccontextmanager
async def used(url: str, address: str, catalogue: Any = None) -> AsyncIterator[tuple[Database, Quota]]:
    """Yield a pool, and the quota over it, by the shipped catalogue or another one."""
    pool, link = pool_of(url), channel(address)
    await pool.open()
    yield pool, Quota(link, pool, catalogue=catalogue or shipped.watched(), service_token=TOKEN)
    await pool.close()
    await link.close()


async def held(quota: Quota, key_id: str, task: Task) -> Task:
    """Reserve what a task needs, as its creation does."""
    hold = await quota.hold(
        provider=task.provider,
        model=task.model,
        images=1,
        image=image_service_pb2.GenerateImageRequest(),
        micro_credits=task.reserved_micros,
        request_id=task.id,
        key_id=key_id,
    )
    task.quota_lease, task.reservation_id = hold.lease_id, hold.reservation_id
    task.price_unknown = hold.price_unknown
    return task


def books(auth: Auth, account: str) -> tuple[int, int]:
    """Return the credits that an account was charged, and what is charged or set aside in all."""
    (charged,) = auth.query(
        "select coalesce(sum(micro_credits), 0)::int from ledger where account_id = %s"
        " and kind in ('settle', 'orphan', 'late')",
        account,
    )
    taken = auth.query("select micro_credits from quota_counters where subject = %s and period = 'total'", account)
    return charged[0], taken[0][0] if taken else 0


async def balanced(auth: Auth) -> None:
    assert not (await Checker(auth.url).check(whole=True)).faults


async def succeeded(pool: Database, task: Task) -> None:
    """Let a worker end a task well, with one output."""
    (claimed,) = await Queue(pool, per_account=9, lease_s=30, attempts=3).claim("w", 1)
    assert claimed.id == task.id
    lock = WorkerLock(pool, claimed)
    async with lock.change() as changed:
        changed.begin("p", "m", now_utc())
    async with pool.transaction() as link:
        await link.execute("insert into tasks.objects values (%s, %s, 'output', 0, '')", (task.id, task.id))
    await lock.succeed()
