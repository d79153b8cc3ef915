"""What was used: the sums that the ledger keeps by day, and its rows."""

from __future__ import annotations

from datetime import date, datetime
from typing import LiteralString, NamedTuple

from psycopg.rows import class_row

from services.auth.adapters.postgres import Postgres
from services.auth.domain.records import LedgerRecord, UsageRecord


class UsagePlace(NamedTuple):
    """A row's place in the order of `Usage.by_day`."""

    day: date
    key_id: str
    provider: str
    model: str
    operation: int


class Usage:
    """Reads the ledger for people."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def by_day(
        self, account_id: str, first: date, last: date, *, limit: int, after: UsagePlace | None = None
    ) -> list[UsageRecord]:
        """Return what was used by day, key, provider, model and operation, the newest day first, after a row."""
        given = {"account": account_id, "first": first, "last": last, "limit": limit}
        behind: LiteralString = ""
        if after is not None:
            given |= after._asdict()
            behind = (
                " and (day < %(day)s or (day = %(day)s and"
                " (key_id, provider, model, operation) > (%(key_id)s, %(provider)s, %(model)s, %(operation)s)))"
            )
        async with self._postgres.transaction() as link, link.cursor(row_factory=class_row(UsageRecord)) as cursor:
            await cursor.execute(
                "select day, key_id, provider, model, operation, sum(requests)::bigint as requests,"
                " sum(prompt_tokens)::bigint as prompt_tokens, sum(completion_tokens)::bigint as completion_tokens,"
                " sum(charged_tokens)::bigint as charged_tokens, sum(charged_images)::bigint as charged_images"
                " from usage_days where account_id = %(account)s and day between %(first)s and %(last)s"
                + behind
                + " group by day, key_id, provider, model, operation"
                " order by day desc, key_id, provider, model, operation limit %(limit)s",
                given,
            )
            return await cursor.fetchall()

    async def complete_since(self, account_id: str) -> datetime | None:
        """Return the time after which no row of an account was removed; None when none was at all."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select max(newest) from ledger_carried where account_id = %s and subject = account_id", (account_id,)
            )
            row = await cursor.fetchone()
        return row[0] if row else None

    async def ledger(self, account_id: str, *, limit: int, before: int | None) -> list[LedgerRecord]:
        """List an account's quota rows, the newest first, before a row."""
        async with self._postgres.transaction() as link, link.cursor(row_factory=class_row(LedgerRecord)) as cursor:
            await cursor.execute(
                "select id, at, kind, key_id, day, reference, tokens, images, provider, model, request_id"
                " from ledger where account_id = %(account)s"
                " and (%(before)s::bigint is null or id < %(before)s) order by id desc limit %(limit)s",
                {"account": account_id, "before": before, "limit": limit},
            )
            return await cursor.fetchall()
