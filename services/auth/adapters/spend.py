"""Reports of what was spent, read from the sums that the ledger's own transactions keep."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from typing import Final, LiteralString, NamedTuple

import psycopg
from prometheus_client import Counter

from services.auth.adapters.columns import each, rows_of
from services.auth.adapters.postgres import Postgres
from services.auth.domain.spend import Report, SpendRecord
from services.common import logs
from services.common.errors import Unavailable
from services.common.isolate import OneFailed
from services.common.reminder import Reminder

PASSED_OVER: Final = Counter(
    "moa_replica_passed_over_total", "Reports that were read from the database and not from its replica.", ["why"]
)

AWAY_S: Final = 5.0
"""How long a replica that did not answer is not asked."""

_log = logs.get("spend")

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
_AS_OF: Final = (
    "select pg_is_in_recovery(), greatest(pg_last_xact_replay_timestamp(),"
    # Where nothing is written, nothing is replayed: what the primary has had by its last word is here as well.
    " (select last_msg_send_time from pg_stat_wal_receiver where pg_last_wal_replay_lsn() >= latest_end_lsn)),"
    " clock_timestamp()"
)
_NAMES: Final[dict[str, LiteralString]] = {
    "team": "(select name from teams where id = r.value)",
    "account": "(select name from accounts where id = r.value)",
    "key": "(select name from keys where id = r.value)",
}
_RECORDS: Final = rows_of(SpendRecord, "spent", "spent_")
_TOTALLED: Final = "dialect"
"""A grouping in which every row of the ledger is once."""


class Spent(NamedTuple):
    """A report, or a page of one."""

    rows: list[SpendRecord]
    total: SpendRecord
    as_of: datetime
    """What was booked until then is in it, whatever came later may be."""


class PassedOver(Exception):
    """A replica is not read. The message is why: `behind`, or `writes`."""


class SpendReplica(NamedTuple):
    """A copy of the database that replays what the primary writes."""

    postgres: Postgres
    lag_s: float
    """How far it may be behind."""

    async def as_of(self) -> datetime:
        """Return the moment up to which it has everything. Raises PassedOver, Unavailable, psycopg.Error.

        Passed over, too, is a server that takes writes: one that was promoted knows nothing of what is booked since.
        """
        async with self.postgres.transaction() as link:
            cursor = await link.execute(_AS_OF)
            row: tuple[bool, datetime | None, datetime]
            (row,) = await cursor.fetchall()
        replays, at, now = row
        if not replays:
            raise PassedOver("writes")
        if at is None or (now - at).total_seconds() > self.lag_s:
            raise PassedOver("behind")
        return at


class Spend:
    """Reads what was spent, from the replica where there is one that is not too far behind and answers."""

    def __init__(self, postgres: Postgres, replica: SpendReplica | None = None) -> None:
        self._postgres = postgres
        self._replica = replica
        self._reminder = Reminder()
        self._asked_again_at = 0.0

    async def read(self, report: Report, *, limit: int, after: tuple[date, str] | None = None) -> Spent:
        """Return rows, the newest time first and behind a row, with the total of all: one snapshot of the books."""
        if self._replica is not None and time.monotonic() >= self._asked_again_at:
            try:
                as_of = await self._replica.as_of()
                rows, total = await _read(self._replica.postgres, report, limit=limit, after=after)
                return Spent(rows, total, as_of)
            except PassedOver as reason:
                self._pass_over(str(reason))
            except (Unavailable, OneFailed):
                # The second, too: what the primary has removed may end what is read on a replica.
                self._asked_again_at = time.monotonic() + AWAY_S
                self._pass_over("away")
            except psycopg.Error as error:
                self._pass_over("refused", words=str(error).partition("\n")[0])
        as_of = datetime.now(UTC)
        rows, total = await _read(self._postgres, report, limit=limit, after=after)
        return Spent(rows, total, as_of)

    def _pass_over(self, why: str, **more: str) -> None:
        """Tell the operator that the database itself is read in the replica's place."""
        PASSED_OVER.labels(why).inc()
        # One that is behind catches up, and looks so where nothing is written: the counter tells of it.
        if why != "behind" and self._reminder.is_due():
            _log.warning("replica.passed_over", why=why, **more)


async def _read(
    postgres: Postgres, report: Report, *, limit: int, after: tuple[date, str] | None
) -> tuple[list[SpendRecord], SpendRecord]:
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
    # In one go: each answer that is waited for costs more than what it says, where others keep the processors busy.
    async with (
        postgres.transaction() as link,
        link.pipeline(),
        link.cursor(row_factory=_RECORDS) as rows,
        link.cursor(row_factory=_RECORDS) as total,
    ):
        await link.execute("set transaction isolation level repeatable read")
        await rows.execute(
            f"select r.*, coalesce({called}, '') as name from ("
            f"select starts, {value} as value, {_SUMS}{_OF}{behind}"
            f" group by starts, {value} order by starts desc, {value} limit %(limit)s"
            ") r order by starts desc, value",
            given,
        )
        await total.execute(
            f"select null::date as starts, '' as value, '' as name, {_SUMS}{_OF}",
            given | {"grouping": _TOTALLED},
        )
        found = await rows.fetchall()
        (all_of_it,) = await total.fetchall()
    return found, all_of_it
