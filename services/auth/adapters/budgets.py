"""Budgets in PostgreSQL."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, LiteralString

from psycopg import sql
from psycopg.rows import class_row

from services.auth.adapters.audit import audit
from services.auth.adapters.columns import zone_of
from services.auth.adapters.postgres import Link, Postgres
from services.auth.adapters.spent import spent_of
from services.auth.domain import keys
from services.auth.domain.accounts import PACES
from services.auth.domain.records import BudgetRecord
from services.common.errors import Conflict, InvalidField, NotFound
from services.quota_client.amounts import LIMITS, Amount, Period

MOST: Final = 20
"""Budgets of one owner."""
_LIMITS: Final = frozenset({*LIMITS, *PACES})
_BUDGETS: LiteralString = (
    "select id, name, owner, provider, model, tag, created_at, warn_url, warn_emails, team_id, "
    + ", ".join([*LIMITS, *PACES])
    + " from budgets where"
)
_OWNER: Final = f"""
select a.id, {zone_of("a")}, a.id as account_id from accounts a where a.id = %(owner)s
union all select t.id, {zone_of("a")}, a.id from teams t join accounts a on a.id = t.account_id
    where t.id = %(owner)s and t.deleted_at is null
-- What replaces a key goes on with its counters.
union all select coalesce(k.counts_as, k.id), {zone_of("a")}, a.id from keys k join accounts a on a.id = k.account_id
    where k.id = %(owner)s
"""


_WITHIN: Final = """
select exists (
    select 1 from teams where id = %(owner)s and id = %(team)s and deleted_at is null
    union all select 1 from accounts a where a.id = %(owner)s and a.team_id = %(team)s and a.role <> 'admin'
    union all select 1 from keys k join accounts a on a.id = k.account_id
        where k.id = %(owner)s and a.team_id = %(team)s and a.role <> 'admin'
)
"""


class Budgets:
    """Keeps budgets. What is done to them is in the audit log, in the same transaction."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def create(self, *, owner: str, actor: str, **kept: Any) -> BudgetRecord:
        """Make a budget of a team, an account, a key or (empty) everybody.

        Raises NotFound, or Conflict where the owner has as many as it may.
        """
        async with self._postgres.transaction() as link:
            account_id = ""
            if owner:
                owner, _, account_id = await _owner(link, owner)
            # Two calls at once must not both take the last place.
            await link.execute("select pg_advisory_xact_lock(hashtext('budgets of ' || %s))", (owner,))
            cursor = await link.execute(
                "select count(*) from budgets where owner = %s and deleted_at is null", (owner,)
            )
            if await cursor.fetchone() == (MOST,):
                raise Conflict(f"at most {MOST} budgets of one owner; delete one first")
            budget_id = keys.new_id("budget")
            row = {"id": budget_id, "owner": owner, **kept}
            await link.execute(
                sql.SQL("insert into budgets ({}) values ({})").format(
                    sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join([sql.Placeholder()] * len(row))
                ),
                tuple(row.values()),
            )
            details = (f"{name}={value}" for name, value in row.items() if value is not None)
            await audit(link, actor, "budget.created", account_id, *details)
            return await _budget(link, budget_id)

    async def page(self, owner: str, *, limit: int, after: tuple[datetime, str] | None) -> list[BudgetRecord]:
        """List budgets, of an owner or all, the newest first, after a place in that order."""
        at, budget_id = after or (None, None)
        async with self._postgres.transaction() as link, link.cursor(row_factory=class_row(BudgetRecord)) as cursor:
            await cursor.execute(
                _BUDGETS + " deleted_at is null and (%(owner)s = '' or owner = %(owner)s"
                " or owner = (select counts_as from keys where id = %(owner)s))"
                " and (%(at)s::timestamptz is null or (created_at, id) < (%(at)s, %(id)s))"
                " order by created_at desc, id desc limit %(limit)s",
                {"owner": owner, "at": at, "id": budget_id, "limit": limit},
            )
            return await cursor.fetchall()

    async def is_within(self, team_id: str, owner: str) -> bool:
        """Return whether a budget's owner is a team, a member of it who is no administrator, or a key of theirs."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(_WITHIN, {"owner": owner, "team": team_id})
            return await cursor.fetchone() == (True,)

    async def get(self, budget_id: str) -> tuple[BudgetRecord, dict[Period, tuple[Amount, datetime | None]]]:
        """Return a budget, and what is spent of it today. Raises NotFound."""
        async with self._postgres.transaction() as link:
            budget = await _budget(link, budget_id)
            zone = (await _owner(link, budget.owner))[1] if budget.owner else "UTC"
            return budget, await spent_of(link, budget_id, zone)

    async def find(self, budget_id: str) -> BudgetRecord:
        """Return a budget, deleted ones too. Raises NotFound."""
        async with self._postgres.transaction() as link:
            return await _budget(link, budget_id, deleted=True)

    async def update(self, budget_id: str, *, actor: str, **changes: Any) -> BudgetRecord:
        """Set a budget's `name` or limits. Raises NotFound, or InvalidField where it would have no limit."""
        async with self._postgres.transaction() as link:
            budget = await _budget(link, budget_id, lock=True)
            limits = {name: changes.get(name, getattr(budget, name)) for name in _LIMITS}
            if not _LIMITS.isdisjoint(changes) and all(limit is None for limit in limits.values()):
                raise InvalidField("this takes the budget's last limit away; delete the budget", param="no_limit")
            if changes:
                columns = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in changes)
                await link.execute(
                    sql.SQL("update budgets set {} where id = %s").format(columns), (*changes.values(), budget_id)
                )
                details = (f"{name}={value}" for name, value in changes.items())
                await audit(link, actor, "budget.changed", "", f"budget={budget_id}", *details)
            return await _budget(link, budget_id)

    async def delete(self, budget_id: str, *, actor: str) -> None:
        """Take a budget away. Does nothing where it is gone; raises NotFound for one that never was."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute("select deleted_at from budgets where id = %s for update", (budget_id,))
            row = await cursor.fetchone()
            if row is None:
                raise NotFound("no such budget")
            if row[0] is None:
                await link.execute("update budgets set deleted_at = now() where id = %s", (budget_id,))
                await audit(link, actor, "budget.deleted", "", f"budget={budget_id}")


async def _budget(link: Link, budget_id: str, *, lock: bool = False, deleted: bool = False) -> BudgetRecord:
    those: LiteralString = "true" if deleted else "deleted_at is null"
    async with link.cursor(row_factory=class_row(BudgetRecord)) as cursor:
        await cursor.execute(f"{_BUDGETS} {those} and id = %s" + (" for update" if lock else ""), (budget_id,))
        found = await cursor.fetchone()
    if found is None:
        raise NotFound("no such budget")
    return found


async def _owner(link: Link, owner: str) -> tuple[str, str, str]:
    """Return an owner's id, on which its requests count, with the zone and the account of its days. Raises NotFound."""
    cursor = await link.execute(_OWNER, {"owner": owner})
    found = await cursor.fetchone()
    if found is None:
        raise NotFound("no such team, account or key", param="owner")
    return found[0], found[1], found[2]
