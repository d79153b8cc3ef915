"""Credits of tasks in the quota ledger: reserved, settled and returned with images."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import AsyncMock, Mock

import psycopg
import pytest

from services.auth.adapters.ledger import Ledger
from services.common.errors import NoCredit
from services.quota_client.amounts import Amount
from services.tasks.adapters.database import Database, Notices
from services.tasks.adapters.quota import Quota, QuotaHold
from services.tasks.adapters.tasks import Tasks
from services.tasks.domain.task import Task
from services.tasks.operations import Operations, Order
from tests import shipped
from tests.auth.conftest import Auth
from tests.tasks.conftest import IMAGE, Make
from tests.tasks.paying import PRICE, balanced, books, held, succeeded, used


async def test_a_tasks_price_is_charged_once_when_it_succeeds_and_is_free_again_when_it_does_not(
    auth: Auth, payer: tuple[str, str, str], tasks_database: Database, tasks_url: str, make: Make
) -> None:
    """It is set aside with its images, in one reservation; what the outbox sends twice is booked once."""
    account, key_id, _ = payer
    async with used(tasks_url, auth.address) as (pool, quota):
        tasks = Tasks(pool)
        done = await tasks.create(await held(quota, key_id, make(account, price_micros=4 * PRICE)))
        await succeeded(pool, done)
        ended = await tasks.create(await held(quota, key_id, make(account, price_micros=6 * PRICE)))
        with pytest.raises(NoCredit, match="not enough credits"):
            await held(quota, key_id, make(account, price_micros=1))
        await tasks.cancel(account, ended.id)
        async with pool.transaction() as link:
            rows = await (await link.execute("select * from tasks.quota_outbox")).fetchall()
        assert await quota.flush() == 2
        async with pool.transaction() as link, link.cursor() as cursor:
            await cursor.executemany("insert into tasks.quota_outbox values (%s, %s, %s, %s, %s)", rows)
        assert await quota.flush() == 2
        assert books(auth, account) == (4 * PRICE, 4 * PRICE)
        await held(quota, key_id, make(account, price_micros=6 * PRICE))
    await balanced(auth)


class _Overtaken(Quota):
    """Quota of which another request takes the last, just before this one asks."""

    def __init__(self, before: Callable[[], Awaitable[Task]]) -> None:
        self._before = before

    async def hold(self, **asked: Any) -> QuotaHold:
        await self._before()
        raise NoCredit("not enough credits")


class _Enough(Quota):
    """Quota of which there is always enough."""

    def __init__(self) -> None:
        """Ask nobody."""

    async def hold(self, **asked: Any) -> QuotaHold:
        return QuotaHold("acc", "key", "", "", Amount())


async def test_a_request_that_is_sent_twice_at_once_gives_its_task_though_credits_are_for_one(
    tasks_database: Database,
) -> None:
    """Who is refused for want of credits finds the task that took them, and no other request's."""
    nobody: Any = None
    uncounted: Any = Mock(count=AsyncMock(return_value=lambda: None))

    def operations(quota: Quota) -> Operations:
        return Operations(
            tasks=Tasks(tasks_database),
            admission=uncounted,
            quota=quota,
            catalogue=shipped.watched(),
            notices=Notices(),
            views=nobody,
            targets=nobody,
            deadline_s=60,
        )

    who: Any = Mock(account_id="acc", key_id="key")
    order = Order(work=IMAGE, dialect="native", model="moa-tiny-image", idempotency_key="once")
    first = partial(operations(_Enough()).create, "", who, order, request_id="r")
    second = await operations(_Overtaken(first)).create("", who, order, request_id="r")
    assert second.id == (await first()).id
    for other in (replace(order, idempotency_key=""), replace(order, idempotency_key="another")):
        with pytest.raises(NoCredit):
            await operations(_Overtaken(first)).create("", who, other, request_id="r")


async def test_a_task_whose_price_nobody_knew_is_not_said_to_have_cost_nothing(
    auth: Auth, payer: tuple[str, str, str], tasks_database: Database, tasks_url: str, make: Make
) -> None:
    """Its settlement says so, by what was known when its quota was reserved."""
    account, key_id, _ = payer
    unknown = Mock()
    unknown.now.image_nano_usd.return_value = None
    async with used(tasks_url, auth.address, unknown) as (pool, quota):
        waits = await Tasks(pool).create(await held(quota, key_id, make(account)))
        unknown.now.image_nano_usd.return_value = 5
        await succeeded(pool, waits)
        await succeeded(pool, await Tasks(pool).create(await held(quota, key_id, make(account))))
        await quota.flush()
    rows = "select price_unknown, nano_usd from ledger where kind = 'settle' and account_id = %s order by id"
    assert sorted(auth.query(rows, account)) == [(False, 5), (True, 0)]
    usage = auth.query("select sum(requests), sum(unpriced_requests) from usage_days where account_id = %s", account)
    assert usage == [(2, 1)]
    await balanced(auth)


@pytest.mark.parametrize("unknown", [True, False])
async def test_a_task_keeps_whether_its_price_was_known(tasks_database: Database, unknown: bool) -> None:
    """As its reservation does, until it ends."""
    nobody: Any = None
    uncounted: Any = Mock(count=AsyncMock(return_value=lambda: None))
    quota: Any = Mock(hold=AsyncMock(return_value=QuotaHold("acc", "key", "", "", Amount(), unknown)))
    operations = Operations(
        tasks=Tasks(tasks_database),
        admission=uncounted,
        quota=quota,
        catalogue=shipped.watched(),
        notices=Notices(),
        views=nobody,
        targets=nobody,
        deadline_s=60,
    )
    who: Any = Mock(account_id=f"acc_{unknown}", key_id="key")
    order = Order(work=IMAGE, dialect="native", model="moa-tiny-image")
    made = await operations.create("", who, order, request_id="r")
    assert (await Tasks(tasks_database).get(made.account_id, made.id)).price_unknown is unknown


async def test_what_is_made_is_charged_though_its_lease_ended_and_what_is_not_is_reserved_anew(
    auth: Auth, payer: tuple[str, str, str], tasks_database: Database, tasks_url: str, make: Make
) -> None:
    """A task service that was away for too long loses what was set aside: no task succeeds without a charge."""
    account, key_id, _ = payer
    async with used(tasks_url, auth.address) as (pool, quota):
        tasks = Tasks(pool)
        made = await tasks.create(await held(quota, key_id, make(account, price_micros=PRICE, made=True)))
        waits = await tasks.create(await held(quota, key_id, make(account, price_micros=PRICE)))
        with psycopg.connect(auth.url) as link:
            gone = "update blocks set expires_at = now() - interval '1 s' where account_id = %s returning id"
            blocks = [block_id for (block_id,) in link.execute(gone, (account,)).fetchall()]
        await Ledger(auth.postgres, grace_s=0, alive_s=20).expire(blocks)
        assert books(auth, account) == (0, 0)
        assert await quota.renew() == 2
        assert (await tasks.get(account, made.id)).reservation_id == made.reservation_id
        assert (await tasks.get(account, waits.id)).reservation_id is None
        await succeeded(pool, made)
        await quota.flush()
        assert books(auth, account) == (PRICE, PRICE)
    rows = auth.query("select kind, images, micro_credits from ledger where request_id = %s", made.id)
    assert rows == [("late", 1, PRICE)]
    await balanced(auth)
