"""What was used, read from the ledger."""

from __future__ import annotations

from datetime import date

from psycopg.rows import class_row

from services.auth.adapters.postgres import Postgres
from services.auth.domain.records import LedgerRecord, UsageRecord


class Usage:
    """Reads the ledger for people."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def by_day(self, account_id: str, first: date, last: date) -> list[UsageRecord]:
        """Sum up by day, key, provider, model and operation; the newest day first."""
        async with self._postgres.transaction() as link, link.cursor(row_factory=class_row(UsageRecord)) as cursor:
            await cursor.execute(
                "select day, key_id, provider, model, operation, count(distinct reference) as requests,"
                " coalesce(sum(prompt_tokens), 0)::bigint as prompt_tokens,"
                " coalesce(sum(completion_tokens), 0)::bigint as completion_tokens,"
                " sum(tokens)::bigint as charged_tokens, sum(images)::bigint as charged_images"
                " from ledger where account_id = %s and day between %s and %s and kind in ('settle', 'orphan', 'late')"
                # Nothing came of those that were released.
                " and (tokens <> 0 or images <> 0 or provider <> '')"
                " group by day, key_id, provider, model, operation"
                " order by day desc, key_id, provider, model, operation",
                (account_id, first, last),
            )
            return await cursor.fetchall()

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
