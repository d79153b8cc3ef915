"""What whoever has limits has spent of them: what is charged, without what blocks still hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg.rows import class_row

from services.auth.adapters.columns import each
from services.auth.adapters.postgres import Link, Postgres
from services.auth.domain.accounts import PACES, PacedLimits
from services.auth.domain.held import Held
from services.quota_client.amounts import LIMITS, NOTHING, Amount, Period

_SPENT: Final = f"""
select p.period, p.ends::timestamp at time zone %(zone)s, {each("coalesce(c.{}, 0) - coalesce(b.{}, 0)")}
from periods_of((now() at time zone %(zone)s)::date) p
     left join quota_counters c on c.subject = %(subject)s and c.period = p.period and c.starts = p.starts,
     lateral (select {each("sum({} - settled_{} - returned_{})::bigint as {}")} from blocks
              where closed_at is null and %(subject)s = any(counts_as)
              and day >= p.starts and (p.ends is null or day < p.ends)) b
"""


async def spent_of(link: Link, subject: str, zone: str) -> dict[Period, tuple[Amount, datetime | None]]:
    """Return what a team or a budget has spent of each period of today, and when that ends."""
    cursor = await link.execute(_SPENT, {"subject": subject, "zone": zone})
    return {Period(period): (Amount(*amounts), ends) for period, ends, *amounts in await cursor.fetchall()}


_HELD: Final = f"""
select array[account_id] || coalesce(counts_as, array[key_id]), day, extract(epoch from expires_at - now())::float8,
       {each("{} - settled_{} - returned_{}")}
from blocks where closed_at is null and
"""
_OF_ACCOUNT: Final = _HELD + " account_id = %(account)s"
_OF_ANYBODY: Final = _HELD + " (account_id = %(account)s or counts_as && %(subjects)s::text[])"
_TAKEN_BACK: Final = 1.3
"""A lease that is renewed no more is taken back a quarter of its time after its end, by a look each twentieth."""
_SOON_S: Final = 1.0


async def held_of(link: Link, account_id: str, subjects: Sequence[str], *, lease_s: float) -> list[Held]:
    """Return what open blocks hold that count on an account, or on what it shares with others.

    A block whose owner lives gives back what a lease holds when that is renewed no more; another one at its end.
    """
    cursor = await link.execute(
        _OF_ANYBODY if subjects else _OF_ACCOUNT, {"account": account_id, "subjects": list(subjects)}
    )
    return [
        Held(
            frozenset(counts_on),
            day,
            min(max(0.0, ends_in_s), lease_s * _TAKEN_BACK) + _SOON_S,
            Amount(*amounts).at_least(NOTHING),
        )
        for counts_on, day, ends_in_s, *amounts in await cursor.fetchall()
    ]


@dataclass(frozen=True, kw_only=True)
class Shared(PacedLimits):
    """Limits that an account keeps with others: a team's, or a budget's."""

    id: str
    name: str


async def shared_by(
    postgres: Postgres, owners: Sequence[str], zone: str
) -> list[tuple[Shared, dict[Period, tuple[Amount, datetime | None]]]]:
    """Return the teams among some ids, and the budgets of all of these, with what is spent of each."""
    limits = ", ".join([*LIMITS, *PACES])
    async with postgres.transaction() as link:
        async with link.cursor(row_factory=class_row(Shared)) as cursor:
            await cursor.execute(
                f"select id, name, {limits} from teams where id = any (%(owners)s) and deleted_at is null"
                f" union all select id, name, {limits} from budgets where owner = any (%(owners)s)"
                " and (team_id is null or team_id = any (%(owners)s)) and deleted_at is null order by 1",
                {"owners": list(owners)},
            )
            found = await cursor.fetchall()
        return [(one, await spent_of(link, one.id, zone)) for one in found]
