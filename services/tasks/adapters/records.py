"""A task's rows: its own, its events', and, when it ended, all that goes with the end, in one transaction."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from psycopg import sql

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.common.clock import now_utc
from services.quota_client.amounts import Amount, ReservationId
from services.tasks.adapters.database import EVENTS, OWED, QUEUE, WEBHOOKS, Link
from services.tasks.domain.task import PENDING, SUCCEEDED, LeaseLost, Task, is_terminal

DIALECT: Final = "tasks"
"""What reports of spending call the dialect of all tasks."""
FIXED: Final = (
    "id",
    "account_id",
    "key_id",
    "dialect",
    "provider",
    "model",
    "work",
    "given",
    "idempotency_key",
    "fingerprint",
    "resumed_from",
    "traceparent",
    "created_at",
    "price_micros",
    "in_ledger",
    "webhook_url",
    "webhook_events",
    "tags",
)
"""Columns that never change."""
MOVING: Final = (
    "state",
    "not_before",
    "deadline",
    "started_at",
    "ended_at",
    "attempts",
    "fence",
    "leased_by",
    "leased_until",
    "cancel_asked_at",
    "last_sequence",
    "progress",
    "desk",
    "error",
    "made",
    "consumed_micros",
    "quota_lease",
    "reservation_id",
    "price_unknown",
)
"""Columns that transitions change."""

ALL: Final = (*FIXED, *MOVING)
COLUMNS: Final = sql.SQL(", ").join(map(sql.Identifier, ALL))

INSERT: Final = sql.SQL("insert into tasks.tasks ({}) values ({}) on conflict do nothing").format(
    COLUMNS, sql.SQL(", ").join(map(sql.Placeholder, ALL))
)
UPDATE: Final = sql.SQL("update tasks.tasks set {}, ledger_fence = %(fence)s where id = %(id)s").format(
    sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(c), sql.Placeholder(c)) for c in MOVING)
)
SELECT: Final = sql.SQL("select {} from tasks.tasks").format(COLUMNS)
SELECT_MOVING: Final = sql.SQL("select {} from tasks.tasks").format(sql.SQL(", ").join(map(sql.Identifier, MOVING)))

ADD_EVENT: Final = "insert into tasks.events (task_id, sequence, terminal, event) values (%s, %s, %s, %s)"
_NOTIFY = "select pg_notify(%s, %s)"
_ADD_DELIVERY = "insert into tasks.deliveries (id, task_id, account_id, event, url) values (%s, %s, %s, %s, %s)"


def values(task: Task) -> dict[str, Any]:
    """Return a task's columns."""
    return {name: getattr(task, name) for name in ALL}


def task_of(row: Sequence[Any]) -> Task:
    """Return the task of a row of `SELECT`."""
    return Task(**dict(zip(ALL, row, strict=True)))


def moved(task: Task, row: Sequence[Any]) -> Task:
    """Return a known task as a row of `SELECT_MOVING` shows it."""
    return replace(task, fresh=[], **dict(zip(MOVING, row, strict=True)))


def event_rows(task: Task) -> list[tuple[str, int, bool, bytes]]:
    """Return the rows of the task's events that are not written yet."""
    return [(task.id, e.sequence, is_terminal(e), e.SerializeToString()) for e in task.fresh]


async def load(link: Link, task_id: str) -> Task | None:
    """Lock a task's row and give it; None when there is none."""
    result = await link.execute(SELECT + sql.SQL(" where id = %s for update"), (task_id,))
    row = await result.fetchone()
    return None if row is None else task_of(row)


async def load_held(link: Link, held: Task) -> Task:
    """Lock the row of a task that a worker holds, and give it as it is now. Raises LeaseLost when its fence is old.

    What never changes is not read again: the work may carry images.
    """
    result = await link.execute(SELECT_MOVING + sql.SQL(" where id = %s for update"), (held.id,))
    row = await result.fetchone()
    if row is None:
        raise LeaseLost(held.id)
    task = moved(held, row)
    if task.fence != held.fence or task.leased_by is None:
        raise LeaseLost(held.id)
    return task


async def save(link: Link, task: Task, *, outputs: int = 0) -> None:
    """Write a locked task and its fresh events.

    A task that ends here notes what it owes of its quota and writes its webhook in the same transaction: either all of
    that happened, or none. `outputs` says how many images its quota is charged for.
    """
    async with link.pipeline():  # one round trip for all of it
        await link.execute(UPDATE, values(task))
        if task.fresh:
            async with link.cursor() as cursor:
                await cursor.executemany(ADD_EVENT, event_rows(task))
            await link.execute(_NOTIFY, (EVENTS, task.id))
        if any(is_terminal(event) for event in task.fresh):
            await _end(link, task, outputs)
        elif task.state == PENDING:
            await link.execute(_NOTIFY, (QUEUE, ""))
    task.fresh.clear()


async def _end(link: Link, task: Task, outputs: int) -> None:
    if not task.in_ledger:
        await _close_entries(link, task)
    await _close_quota(link, task, outputs)
    if task.webhook_url and "completed" in task.webhook_events:
        await add_delivery(link, task, "completed")


async def add_delivery(link: Link, task: Task, event: str) -> None:
    """Write a webhook to the outbox."""
    await link.execute(_ADD_DELIVERY, (f"msg_{uuid.uuid4().hex}", task.id, task.account_id, event, task.webhook_url))
    await link.execute(_NOTIFY, (WEBHOOKS, ""))


def _shared(reserved: Amount, outputs: int) -> Amount:
    """Return what so many images come to, of those that were reserved: each at its price of then. Credits are whole."""
    made = min(outputs, reserved.images)
    return reserved._replace(images=made, nano_usd=reserved.nano_usd * made // max(1, reserved.images))


async def _close_entries(link: Link, task: Task) -> None:
    """Charge or release the credits of a task of the release before, which held them in this schema.

    What is noted here is carried over to the ledger (`carrying`).
    """
    if not task.price_micros:
        return
    charged = task.consumed_micros if task.state == SUCCEEDED else 0
    await link.execute(
        "update tasks.accounts set held_micros = held_micros - %s, spent_micros = spent_micros + %s "
        "where account_id = %s",
        (task.price_micros, charged, task.account_id),
    )
    kind = "charge" if task.state == SUCCEEDED else "release"
    await link.execute(
        "insert into tasks.credit_entries (account_id, kind, reference, micros) values (%s, %s, %s, %s)",
        (task.account_id, kind, task.id, task.price_micros),
    )


async def _close_quota(link: Link, task: Task, outputs: int) -> None:
    if not task.quota_lease or not task.reservation_id:
        return
    reservation = ReservationId.parse(task.reservation_id)
    if reservation is None:
        raise ValueError("this is no reservation's id")
    reserved = reservation.amount
    if task.state == SUCCEEDED:
        usage = usage_pb2.Usage(images=outputs, exact=True)
        settlement = quota_pb2.Settlement(
            reservation_id=task.reservation_id,
            charged=_shared(reserved, outputs).message(),
            usage=usage,
            operation=quota_pb2.OPERATION_IMAGE,
            provider=task.provider,
            model=task.model,
            request_id=task.id,
            price_unknown=task.price_unknown and outputs > 0,
            dialect=DIALECT,
            tags=task.tags,
        )
        settlement.ended_at.FromDatetime(task.ended_at or now_utc())
        message, settles = settlement.SerializeToString(), True
    else:
        back = quota_pb2.LeaseReturn(return_id=task.id, lease_id=task.quota_lease, amount=reserved.message())
        message, settles = back.SerializeToString(), False
    await link.execute(
        "insert into tasks.quota_outbox (task_id, message, settles) values (%s, %s, %s)", (task.id, message, settles)
    )
    await link.execute(_NOTIFY, (OWED, ""))
