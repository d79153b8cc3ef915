"""Reports of what was spent, read from the sums that the ledger's own transactions keep."""

from __future__ import annotations

from datetime import date
from typing import Final, LiteralString, NamedTuple

from services.auth.adapters.columns import each, rows_of
from services.auth.adapters.postgres import Postgres
from services.auth.domain.spend import Report, SpendRecord

_SUMS: Final = (
    "coalesce(sum(requests), 0)::bigint as requests, coalesce(sum(unpriced_requests), 0)::bigint as unpriced_requests,"
    " coalesce(sum(prompt_tokens), 0)::bigint as prompt_tokens,"
    " coalesce(sum(completion_tokens), 0)::bigint as completion_tokens, "
    + each("coalesce(sum(charged_{}), 0)::bigint as spent_{}")
)
_OF: LiteralString = (
    " from spend where scope = %(scope)s and grouping = %(grouping)s and period = %(period)s"
    " and starts between %(first)s and %(last)s"
)
_NAMES: Final[dict[str, LiteralString]] = {
    "team": "(select name from teams where id = r.value)",
    "account": "(select name from accounts where id = r.value)",
    "key": "(select name from keys where id = r.value)",
}
_TOTALLED: Final = "dialect"
"""A grouping in which every row of the ledger is once."""


class Spent(NamedTuple):
    """A report, or a page of one."""

    rows: list[SpendRecord]
    total: SpendRecord


class Spend:
    """Reads what was spent."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def read(self, report: Report, *, limit: int, after: tuple[date, str] | None = None) -> Spent:
        """Return rows, the newest time first and behind a row, with the total of all: one snapshot of the books."""
        value: LiteralString = "split_part(value, '/', 1)" if report.group == "provider" else "value"
        starts, name = after or (None, None)
        given: dict[str, object] = {
            "scope": report.scope,
            "grouping": "model" if report.group == "provider" else report.group,
            "period": report.time,
            "first": report.first,
            "last": report.last,
            "limit": limit,
            "starts": starts,
            "value": name,
        }
        behind: LiteralString = (
            f" and starts <= %(starts)s and (starts < %(starts)s or {value} > %(value)s)" if after is not None else ""
        )
        called: LiteralString = _NAMES.get(report.group, "''")
        async with (
            self._postgres.transaction() as link,
            link.cursor(row_factory=rows_of(SpendRecord, "spent", "spent_")) as cursor,
        ):
            await cursor.execute("set transaction isolation level repeatable read")
            await cursor.execute(
                f"select r.*, coalesce({called}, '') as name from ("
                f"select starts, {value} as value, {_SUMS}{_OF}{behind}"
                f" group by starts, {value} order by starts desc, {value} limit %(limit)s"
                ") r order by starts desc, value",
                given,
            )
            rows = await cursor.fetchall()
            await cursor.execute(
                f"select null::date as starts, '' as value, '' as name, {_SUMS}{_OF}",
                given | {"grouping": _TOTALLED},
            )
            (total,) = await cursor.fetchall()
        return Spent(rows, total)
