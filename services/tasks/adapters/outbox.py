"""The outbox of webhooks: what is due, what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from moa.task.v1 import webhook_service_pb2 as pb
from services.common.errors import NotFound
from services.tasks.adapters.database import WEBHOOKS, Database

_DUE: Final = """
update tasks.deliveries set leased_until = now() + %s, attempts = attempts + 1 where id in (
    select id from tasks.deliveries
    where state = 1 and next_at <= now() and (leased_until is null or leased_until < now())
    order by next_at limit %s for update skip locked
)"""
_AGAIN: Final = """
update tasks.deliveries
set state = 1, attempts = 0, next_at = now(), leased_until = null, delivered_at = null
where id = %s and account_id = %s"""
_PAGE: Final = """
where account_id = %(account)s and (%(task)s = '' or task_id = %(task)s) and (%(state)s = 0 or state = %(state)s)
and (%(before)s::bigint is null or number < %(before)s) order by number desc limit %(limit)s"""
_COLUMNS: Final = (
    "id, number, task_id, account_id, event, url, state, attempts, created_at, next_at, last_status, last_error, "
    "delivered_at"
)


@dataclass(slots=True)
class Delivery:
    """A webhook, as it is stored."""

    id: str
    number: int
    task_id: str
    account_id: str
    event: str
    url: str
    state: pb.DeliveryState.ValueType
    attempts: int
    created_at: datetime
    next_at: datetime
    last_status: int
    last_error: str
    delivered_at: datetime | None


class Outbox:
    """Webhooks of all accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due(self, count: int, *, lease_s: float) -> list[Delivery]:
        """Take up to `count` deliveries that are due; nobody else gets them while the lease lasts."""
        async with self._database.transaction() as link:
            result = await link.execute(f"{_DUE} returning {_COLUMNS}", (timedelta(seconds=lease_s), count))
            return [Delivery(*row) for row in await result.fetchall()]

    async def next_in_s(self) -> float | None:
        """Return in how many seconds the next delivery is due; None where there is none.

        One that is due and leased to somebody is due now.
        """
        async with self._database.transaction() as link:
            result = await link.execute(
                "select greatest(0, extract(epoch from next_at - now()))::float8 from tasks.deliveries "
                "where state = 1 order by next_at limit 1"
            )
            row = await result.fetchone()
        return None if row is None else row[0]

    async def delivered(self, delivery: Delivery, status: int) -> None:
        """Note that the receiver has it."""
        await self._ended(delivery, pb.DELIVERY_STATE_DELIVERED, status, "")

    async def dead(self, delivery: Delivery, status: int, why: str) -> None:
        """Return it up."""
        await self._ended(delivery, pb.DELIVERY_STATE_DEAD, status, why)

    async def again(self, delivery: Delivery, status: int, why: str, pause_s: float) -> None:
        """Try it again after a pause."""
        async with self._database.transaction() as link:
            await link.execute(
                "update tasks.deliveries set leased_until = null, next_at = now() + %s, last_status = %s, "
                "last_error = %s where id = %s and state = 1 and attempts = %s",
                (timedelta(seconds=pause_s), status, why, delivery.id, delivery.attempts),
            )

    async def redeliver(self, account_id: str, delivery_id: str) -> Delivery:
        """Make a delivery due now, from its first attempt on. Raises NotFound."""
        async with self._database.transaction() as link:
            result = await link.execute(f"{_AGAIN} returning {_COLUMNS}", (delivery_id, account_id))
            row = await result.fetchone()
            if row is None:
                raise NotFound("delivery not found")
            await link.execute("select pg_notify(%s, '')", (WEBHOOKS,))
        return Delivery(*row)

    async def page(
        self, account_id: str, *, task_id: str, state: int, before: int | None, size: int
    ) -> tuple[list[Delivery], int | None]:
        """Return a page of an account's deliveries, the newest first, and where the next begins (None: nowhere)."""
        async with self._database.transaction() as link:
            result = await link.execute(
                f"select {_COLUMNS} from tasks.deliveries {_PAGE}",  # noqa: S608  # constants of this module
                {"account": account_id, "task": task_id, "state": state, "before": before, "limit": size + 1},
            )
            rows = [Delivery(*row) for row in await result.fetchall()]
        return rows[:size], rows[size - 1].number if len(rows) > size else None

    async def generation(self, account_id: str) -> tuple[int, datetime]:
        """Return the generation of an account's secret, and since when it is in force."""
        async with self._database.transaction() as link:
            await link.execute(
                "insert into tasks.webhook_keys (account_id) values (%s) on conflict do nothing", (account_id,)
            )
            result = await link.execute(
                "select generation, rotated_at from tasks.webhook_keys where account_id = %s", (account_id,)
            )
            row = await result.fetchone()
        assert row is not None
        return row[0], row[1]

    async def rotate(self, account_id: str) -> tuple[int, datetime]:
        """Begin a new generation of an account's secret."""
        async with self._database.transaction() as link:
            result = await link.execute(
                "insert into tasks.webhook_keys (account_id, generation, rotated_at) values (%s, 2, now()) "
                "on conflict (account_id) do update set generation = tasks.webhook_keys.generation + 1, "
                "rotated_at = now() returning generation, rotated_at",
                (account_id,),
            )
            row = await result.fetchone()
        assert row is not None
        return row[0], row[1]

    async def _ended(self, delivery: Delivery, state: int, status: int, why: str) -> None:
        async with self._database.transaction() as link:
            await link.execute(
                "update tasks.deliveries set state = %(state)s, leased_until = null, last_status = %(status)s, "
                "last_error = %(why)s, delivered_at = case when %(state)s = 2 then now() end "
                "where id = %(id)s and state = 1 and attempts = %(attempts)s",
                {"state": state, "status": status, "why": why, "id": delivery.id, "attempts": delivery.attempts},
            )
