"""Between a task and its row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from psycopg import sql

from services.tasks.domain.task import Task, is_terminal

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
