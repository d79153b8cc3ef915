"""The audit log: what administrators did."""

from __future__ import annotations

from psycopg.rows import class_row

from services.auth.adapters.postgres import Link, Postgres
from services.auth.domain.records import AuditRecord


class AuditLog:
    """Reads the audit log."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def list(self, account_id: str, *, limit: int, before: int | None) -> list[AuditRecord]:
        """List what administrators did, the newest first, before an entry."""
        async with self._postgres.transaction() as link, link.cursor(row_factory=class_row(AuditRecord)) as cursor:
            await cursor.execute(
                "select id, at, actor, act, account_id, details from audit where (%(account)s = '' or account_id ="
                " %(account)s) and (%(before)s::bigint is null or id < %(before)s) order by id desc limit %(limit)s",
                {"account": account_id, "before": before, "limit": limit},
            )
            return await cursor.fetchall()


async def audit(link: Link, actor: str, act: str, account_id: str, *details: str) -> None:
    """Note what an administrator did, in the transaction that does it."""
    await link.execute(
        "insert into audit (actor, act, account_id, details) values (%s, %s, %s, %s)",
        (actor, act, account_id, list(details)),
    )
