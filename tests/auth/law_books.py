"""What the database says of an account, in the tests of the ledger's law."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

import psycopg

from services.auth.adapters.columns import COLUMNS, each
from services.quota_client.amounts import NOTHING, Amount, Period

_SUMS = each("coalesce(sum({}), 0)::bigint")
_CHARGED = f"""
    with charged as (
        select {", ".join(Amount._fields)} from ledger where kind in ('settle', 'orphan', 'late')
        union all
        select {each("settled_{} + late_{}")} from ledger_carried where subject = account_id
    ) select {_SUMS} from charged
"""
_SPENT = f"""
    select g.grouping, g.period, {each("coalesce(sum(s.charged_{}), 0)::bigint")}
    from (
        values ('team', 'day'), ('account', 'day'), ('account', 'month'), ('key', 'day'), ('key', 'month'),
               ('model', 'day'), ('dialect', 'day')
    ) g (grouping, period)
    left join spend s on s.scope = '' and s.grouping = g.grouping and s.period = g.period
    group by 1, 2
"""
_OUTSTANDING = each("coalesce(sum({} - settled_{} - returned_{}), 0)::bigint")


class LawBooks:
    """Looks into the books.

    Args:
        url: The database's.
        account_id: Whose books.
    """

    def __init__(self, url: str, account_id: str) -> None:
        # One for all looks: there are a thousand, and PostgreSQL starts a process for each connection.
        self._link = psycopg.connect(url, autocommit=True)
        self._account_id = account_id

    @contextmanager
    def looking(self) -> Iterator[psycopg.Connection[Any]]:
        """Yield the connection, in a transaction."""
        with self._link.transaction():
            yield self._link

    def sums(self) -> tuple[dict[date, Amount], dict[date, Amount]]:
        """Return what is settled, and what blocks have outstanding, by day."""
        with self.looking() as link:
            booked = link.execute(
                f"select day, {_SUMS} from (select day, {COLUMNS} from ledger where account_id = %(a)s"
                " and kind in ('settle', 'orphan', 'late') union all"
                f" select day, {each('settled_{} + late_{}')} from ledger_carried"
                " where account_id = %(a)s and subject = account_id) l group by day",
                {"a": self._account_id},
            ).fetchall()
            held = link.execute(
                f"select day, {_OUTSTANDING} from blocks where account_id = %s group by day", (self._account_id,)
            ).fetchall()
        spent, outstanding = (
            {day: Amount(*amounts) for day, *amounts in rows if any(amounts)} for rows in (booked, held)
        )
        return spent, outstanding

    def by_subject(self, subjects: Iterable[str]) -> dict[str, tuple[dict[date, Amount], dict[date, Amount]]]:
        """Return what is settled, and what blocks have outstanding, by whom it counts on and day."""
        counted = "unnest(array[b.account_id] || coalesce(b.counts_as, array[b.key_id])) c (subject)"
        with self.looking() as link:
            booked = link.execute(
                f"select subject, day, {_SUMS} from (select c.subject, l.day, {each('l.{}')}"
                f" from ledger l join blocks b on b.id = l.block_id, {counted} where l.account_id = %(a)s"
                " and kind in ('settle', 'orphan', 'late') union all"
                f" select subject, day, {each('settled_{} + late_{}')} from ledger_carried where account_id = %(a)s"
                ") l group by 1, 2",
                {"a": self._account_id},
            ).fetchall()
            held = link.execute(
                f"select c.subject, day, {_OUTSTANDING} from blocks b, {counted} where account_id = %s group by 1, 2",
                (self._account_id,),
            ).fetchall()
        sums: dict[str, tuple[dict[date, Amount], dict[date, Amount]]] = {name: ({}, {}) for name in subjects}
        for at, rows in enumerate((booked, held)):
            for subject, day, *amounts in rows:
                sums[subject][at][day] = Amount(*amounts)
        return sums

    def charged(self) -> dict[str, Amount]:
        """Return what the ledger's rows charge, by reservation."""
        with self.looking() as link:
            rows = link.execute(
                f"select reference, {_SUMS} from ledger where account_id = %s"
                " and kind in ('settle', 'orphan', 'late') group by reference",
                (self._account_id,),
            ).fetchall()
        return {reference: Amount(*amounts) for reference, *amounts in rows}

    def taken(self, day: date, on: Sequence[str]) -> dict[tuple[str, Period], Amount]:
        """Return what is taken of the limits of these subjects, over the periods that a day is in."""
        with self.looking() as link:
            rows = link.execute(
                f"select subject, period, {COLUMNS} from quota_counters c join periods_of(%s) using (period, starts)"
                " where subject = any (%s)",
                (day, list(on)),
            ).fetchall()
        return {(subject, Period(period)): Amount(*amounts) for subject, period, *amounts in rows}

    def reported(self) -> Iterator[tuple[str, str, Amount]]:
        """Yield what reports of spending say was charged in all, with what they group by, and by which period."""
        for grouping, period, *spent in self._link.execute(_SPENT).fetchall():
            yield grouping, period, Amount(*spent)

    def charged_in_all(self) -> Amount:
        """Return what the ledger charged of everybody, rows that were removed included."""
        (charged,) = self._link.execute(_CHARGED).fetchall()
        return Amount(*charged)

    def close(self) -> None:
        """Look no more."""
        self._link.close()


def by_period(*by_day: dict[date, Amount]) -> dict[tuple[Period, date], Amount]:
    """Return the sums of amounts over each period that they are in."""
    sums: dict[tuple[Period, date], Amount] = defaultdict(Amount)
    for amounts in by_day:
        for day, amount in amounts.items():
            for period in Period:
                sums[period, period.began(day)] += amount
    return sums


def sum_of(period: Period, day: date, by_day: dict[date, Amount]) -> Amount:
    """Return the sum over the period that a day is in."""
    return sum((amount for other, amount in by_day.items() if period.began(other) == period.began(day)), NOTHING)
