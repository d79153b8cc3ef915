"""What accounts may use, in PostgreSQL."""

from __future__ import annotations

from psycopg.rows import class_row

from moa.quota.v1 import quota_pb2
from services.auth.adapters.accounts import account_of
from services.auth.adapters.audit import audit
from services.auth.adapters.postgres import Postgres
from services.auth.domain.records import RuleRecord
from services.common.errors import NotFound


class Rules:
    """Keeps the rules of accounts. What administrators do is in the audit log, in the same transaction."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def of(self, account_id: str) -> list[RuleRecord]:
        """List what an account may use."""
        async with self._postgres.transaction() as link, link.cursor(row_factory=class_row(RuleRecord)) as cursor:
            await cursor.execute(
                "select id, provider, model, operations, created_at from rules where account_id = %s order by id",
                (account_id,),
            )
            return await cursor.fetchall()

    async def grant(self, account_id: str, rule: quota_pb2.Rule, *, actor: str) -> RuleRecord:
        """Let an account use models. Raises NotFound."""
        async with self._postgres.transaction() as link:
            await account_of(link, account_id)
            async with link.cursor(row_factory=class_row(RuleRecord)) as cursor:
                await cursor.execute(
                    "insert into rules (account_id, provider, model, operations) values (%s, %s, %s, %s)"
                    " returning id, provider, model, operations, created_at",
                    (account_id, rule.provider, rule.model, list(rule.operations)),
                )
                made = await cursor.fetchone()
            assert made is not None
            await audit(link, actor, "rule.granted", account_id, f"provider={rule.provider}", f"model={rule.model}")
            return made

    async def revoke(self, account_id: str, rule_id: int, *, actor: str) -> None:
        """Take a permission away. Raises NotFound."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "delete from rules where id = %s and account_id = %s returning provider, model", (rule_id, account_id)
            )
            row = await cursor.fetchone()
            if row is None:
                raise NotFound("no such rule")
            await audit(link, actor, "rule.revoked", account_id, f"provider={row[0]}", f"model={row[1]}")
