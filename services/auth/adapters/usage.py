"""What was used: the sums that the ledger keeps by day, and its rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final, LiteralString, NamedTuple

from services.auth.adapters.columns import COLUMNS, each, rows_of
from services.auth.adapters.postgres import Postgres
from services.auth.domain.records import LedgerRecord, UsageRecord


class _Column(NamedTuple):
    """What rows may be grouped by."""

    name: LiteralString
    value: LiteralString
    none: LiteralString
    """What stands there where they are not."""


_COLUMNS: Final = (
    _Column("month", "date_trunc('month', day)::date", "null::date"),
    _Column("day", "day", "null::date"),
    _Column("key_id", "key_id", "''"),
    _Column("provider", "provider", "''"),
    _Column("model", "model", "''"),
    _Column("operation", "operation", "0"),
)
_TIMES: Final = ("month", "day")
_SUMS: Final = (
    "sum(requests)::bigint as requests, sum(prompt_tokens)::bigint as prompt_tokens,"
    " sum(completion_tokens)::bigint as completion_tokens, sum(unpriced_requests)::bigint as unpriced_requests, "
    + each("sum(charged_{})::bigint as charged_{}")
)
EACH: Final = ("day", "key_id", "provider", "model", "operation")
"""Rows as they are kept."""


class Usage:
    """Reads the ledger for people."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def grouped(
        self,
        account_id: str,
        first: date,
        last: date,
        *,
        by: Sequence[str] = EACH,
        limit: int,
        after: Sequence[date | str | int] | None = None,
    ) -> list[UsageRecord]:
        """Return what was used, summed up by columns in the order of the rows, the newest time first, after a row.

        Args:
            by: Some of `month` and those of `EACH`, in this order.
            after: That row's values of them.
        """
        given: dict[str, object] = {"account": account_id, "first": first, "last": last, "limit": limit}
        behind: LiteralString = ""
        if after is not None:
            given |= {f"after_{name}": value for name, value in zip(by, after, strict=True)}
            behind = " and (" + _behind(by) + ")"
        chosen = [column for column in _COLUMNS if column.name in by]
        shown = ", ".join([(c.value if c in chosen else c.none) + " as " + c.name for c in _COLUMNS])
        groups = ", ".join([c.value for c in chosen])
        order = ", ".join([c.value + (" desc" if c.name in _TIMES else "") for c in chosen])
        async with (
            self._postgres.transaction() as link,
            link.cursor(row_factory=rows_of(UsageRecord, "charged", "charged_")) as cursor,
        ):
            await cursor.execute(
                "select " + shown + ", " + _SUMS + " from usage_days where account_id = %(account)s"
                " and day between %(first)s and %(last)s"
                + behind
                + " group by "
                + groups
                + " order by "
                + order
                + " limit %(limit)s",
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
        async with (
            self._postgres.transaction() as link,
            link.cursor(row_factory=rows_of(LedgerRecord, "amount")) as cursor,
        ):
            await cursor.execute(
                f"select id, at, kind, key_id, day, reference, {COLUMNS}, provider, model, request_id,"
                " coalesce(price_unknown, false) as price_unknown from ledger where account_id = %(account)s"
                " and (%(before)s::bigint is null or id < %(before)s) order by id desc limit %(limit)s",
                {"account": account_id, "before": before, "limit": limit},
            )
            return await cursor.fetchall()


def _behind(by: Sequence[str]) -> LiteralString:
    """Return the condition for rows behind a place: earlier, or at the same time and behind it in the other columns."""

    def pair(names: Sequence[str]) -> tuple[LiteralString, LiteralString]:
        chosen = [column for column in _COLUMNS if column.name in names]
        return ", ".join([c.value for c in chosen]), ", ".join(["%(after_" + c.name + ")s" for c in chosen])

    times, others = [name for name in by if name in _TIMES], [name for name in by if name not in _TIMES]
    (time, time_given), (other, other_given) = pair(times), pair(others)
    if not times:
        return "(" + other + ") > (" + other_given + ")"
    earlier: LiteralString = "(" + time + ") < (" + time_given + ")"
    if not others:
        return earlier
    return earlier + " or ((" + time + ") = (" + time_given + ") and (" + other + ") > (" + other_given + "))"
