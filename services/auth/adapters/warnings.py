"""Warnings in PostgreSQL: which limits of teams and budgets are how far used, and who is to hear of it.

That a limit is so far used is a fact of the ledger, from which it is read: a process that dies loses no warning, as
the next look finds it. It is written once, with all of its deliveries in the same transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, LiteralString

from services.auth.adapters.columns import each, zone_of
from services.auth.adapters.postgres import Postgres
from services.auth.domain import keys
from services.quota_client.amounts import DIMENSIONS, LIMITS, Amount, Period, named

PERCENTS: Final = (50, 80, 100)
"""How far a limit is used when somebody is warned."""
_LATE_DAYS: Final = 2
"""For how long after its end a period is looked at, by who could not look before."""
_WATCHED: LiteralString = "deleted_at is null and (warn_url <> '' or warn_emails <> '{}')"


def _near(name: str) -> LiteralString:
    dimension, period = named(name)
    # Only names that are declared in the code come into a statement.
    form: LiteralString = "c.period = '{p}' and l.{n} > 0 and c.{d} * 2 >= l.{n}"
    return form.replace("{p}", period.value).replace("{n}", name).replace("{d}", dimension)


_USED: LiteralString = (
    "with watched as ("
    f" select t.id, t.name, {zone_of('a')} as zone from teams t join accounts a on a.id = t.account_id where t."
    + _WATCHED
    + f" union all select b.id, b.name, coalesce((select {zone_of('a')} from accounts a where a.id = b.owner),"
    f" (select {zone_of('a')} from teams t join accounts a on a.id = t.account_id where t.id = b.owner),"
    f" (select {zone_of('a')} from keys k join accounts a on a.id = k.account_id where k.id = b.owner), 'UTC')"
    " from budgets b where b."
    + _WATCHED
    + ") select w.id, w.name, c.period, c.starts, p.ends::timestamp at time zone w.zone, "
    + ", ".join([f"l.{name}" for name in LIMITS])
    + ", "
    + each("c.{} - coalesce(h.{}, 0)")
    + " from watched w join subject_limits l on l.subject = w.id join quota_counters c on c.subject = w.id"
    " join lateral periods_of(c.starts) p on p.period = c.period,"
    " lateral (select "
    + each("sum({} - settled_{} - returned_{})::bigint as {}")
    + " from blocks where closed_at is null and w.id = any (counts_as)"
    " and day >= p.starts and (p.ends is null or day < p.ends)) h"
    " where (p.ends is null or p.ends > current_date - %(late)s) and ("
    + " or ".join([_near(name) for name in LIMITS])
    + ")"
)
_NOTE: LiteralString = (
    "insert into warnings (id, subject, limit_name, starts, percent, label, used, most, resets_at)"
    " values (%s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing"
)
_SEND: LiteralString = (
    "insert into warning_deliveries (id, warning_id, channel, target)"
    " select 'wdl_' || substr(md5(%(id)s || t.channel || t.target), 1, 24), %(id)s, t.channel, t.target from ("
    " select 'webhook' as channel, warn_url as target, id from teams where warn_url <> '' union all"
    " select 'webhook', warn_url, id from budgets where warn_url <> '' union all"
    " select 'email', unnest(warn_emails), id from teams union all"
    " select 'email', unnest(warn_emails), id from budgets) t where t.id = %(subject)s on conflict do nothing"
)
_DUE: LiteralString = (
    "update warning_deliveries d set next_at = now() + make_interval(secs => %s), attempts = attempts + 1"
    " from warnings w where w.id = d.warning_id and d.id in ("
    " select due.id from warning_deliveries due join warnings of on of.id = due.warning_id"
    " where delivered_at is null and given_up_at is null and next_at <= now()"
    " order by next_at, of.percent limit %s for update of due skip locked)"
    " returning d.id, d.channel, d.target, d.attempts, w.subject, w.label, w.limit_name, w.starts, w.percent, w.used,"
    " w.most, w.resets_at, w.at"
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A warning on its way to one who is to hear of it."""

    id: str
    channel: str
    target: str
    attempts: int
    """How often it was tried, this time included."""
    subject: str
    label: str
    limit: str
    starts: date
    percent: int
    used: int
    most: int
    resets_at: datetime | None
    at: datetime


class Warnings:
    """Keeps warnings, and what became of them."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def watched(self) -> bool:
        """Return whether anybody is to be warned of anything, or has not heard yet."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                f"select exists (select 1 from teams where {_WATCHED})"
                f" or exists (select 1 from budgets where {_WATCHED})"
                " or exists (select 1 from warning_deliveries where delivered_at is null and given_up_at is null)"
            )
            row = await cursor.fetchone()
        return bool(row and row[0])

    async def note(self) -> int:
        """Write the warnings that are due and were not written yet; return how many."""
        written = 0
        async with self._postgres.transaction() as link:
            cursor = await link.execute(_USED, {"late": _LATE_DAYS})
            # In one order for everybody: two replicas that find the same ones cannot wait for each other.
            for subject, label, period, starts, resets_at, *more in sorted(
                await cursor.fetchall(), key=lambda row: (row[0], row[2], row[3])
            ):
                limits = dict(zip(LIMITS, more[: len(LIMITS)], strict=True))
                spent = Amount(*more[len(LIMITS) : len(LIMITS) + len(DIMENSIONS)])
                for name, used, most, percent in crossed(Period(period), limits, spent):
                    warning_id = keys.new_id("warn")
                    row = (warning_id, subject, name, starts, percent, label, used, most, resets_at)
                    if (await link.execute(_NOTE, row)).rowcount:
                        await link.execute(_SEND, {"id": warning_id, "subject": subject})
                        written += 1
        return written

    async def due(self, count: int, *, lease_s: float) -> list[Delivery]:
        """Take deliveries that are due, the least percent first; nobody else gets them while the lease lasts."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(_DUE, (lease_s, count))
            return sorted((Delivery(*row) for row in await cursor.fetchall()), key=lambda one: one.percent)

    async def delivered(self, delivery: Delivery) -> None:
        """Note that it was heard."""
        await self._set(delivery, "delivered_at = now(), last_error = %s", "")

    async def again(self, delivery: Delivery, why: str, pause_s: float) -> None:
        """Try it again after a pause."""
        await self._set(delivery, "last_error = %s, next_at = now() + make_interval(secs => %s)", why, pause_s)

    async def give_up(self, delivery: Delivery, why: str) -> None:
        """Try it no more."""
        await self._set(delivery, "given_up_at = now(), last_error = %s", why)

    async def _set(self, delivery: Delivery, what: LiteralString, *values: object) -> None:
        async with self._postgres.transaction() as link:
            await link.execute(
                "update warning_deliveries set " + what + " where id = %s and attempts = %s and delivered_at is null",
                (*values, delivery.id, delivery.attempts),
            )


def crossed(period: Period, limits: dict[str, int | None], spent: Amount) -> list[tuple[str, int, int, int]]:
    """Return the limits over a period that are used by some of `PERCENTS`: name, what is used, what may be, percent."""
    found = []
    for name, most in limits.items():
        dimension, over = named(name)
        used = getattr(spent, dimension)
        if over is period and most:
            found += [(name, used, most, percent) for percent in PERCENTS if used * 100 >= most * percent]
    return found
