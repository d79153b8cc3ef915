"""Removes from the log of requests what is over, or was erased: in bounded batches, and whole months where nothing is left."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final, LiteralString

from services.auth.adapters.postgres import Postgres
from services.auth.domain.request_log import LATEST
from services.common import logs

_log = logs.get("request_log")

_BATCH: Final = 2000
_AT_WORK_S: Final = 1.0
"""How long it works at once: it is one of the sweeper's duties, and others wait."""
_PARTITION: Final = re.compile(r"request_log_(\d{4})_(\d{2})")
_LONGEST_DAYS: Final = 366

_OVER: Final[LiteralString] = (
    "delete from request_log where (id, at) in (select id, at from request_log where team_id = %(team)s"
    " and at < now() - make_interval(days => %(days)s) order by at limit %(limit)s)"
)
_ERASED: Final[LiteralString] = (
    "delete from request_log where (id, at) in (select id, at from request_log where at <= %(upto)s"
    " and {condition} limit %(limit)s)"
)


class RequestLogSweep:
    """Sweeps the log. Whoever reads it sees nothing of what is to go, whenever it goes."""

    def __init__(self, postgres: Postgres, clock: Callable[[], float] = time.monotonic) -> None:
        self._postgres = postgres
        self._clock = clock

    async def tidy(self) -> None:
        """Remove some of what is to go, for a moment."""
        until = self._clock() + _AT_WORK_S
        removed = await self._erased(until) + await self._over(until)
        if removed:
            _log.info("request_log.swept", rows=removed)
        await self._months()

    async def _erased(self, until: float) -> int:
        removed = 0
        async with self._postgres.transaction() as link:
            # Late requests are judged by it as long as any may come.
            await link.execute("delete from request_log_erasures where upto < now() - %s and swept_at is not null", (LATEST,))
            cursor = await link.execute(
                "select id, team_id, account_id, upto from request_log_erasures where swept_at is null order by id"
            )
            due = await cursor.fetchall()
        for erasure_id, team_id, account_id, upto in due:
            conditions: list[LiteralString] = []
            if team_id is not None:
                conditions.append("team_id = %(team)s")
            if account_id is not None:
                conditions.append("account_id = %(account)s")
            given = {"team": team_id, "account": account_id, "upto": upto}
            count, whole = await self._batches(_ERASED.format(condition=" and ".join(conditions)), given, until)
            removed += count
            if not whole:
                break
            async with self._postgres.transaction() as link:
                await link.execute("update request_log_erasures set swept_at = now() where id = %s", (erasure_id,))
        return removed

    async def _over(self, until: float) -> int:
        removed = 0
        async with self._postgres.transaction() as link:
            cursor = await link.execute("select id, log_days from teams")
            teams = await cursor.fetchall()
        for team_id, days in teams:
            count, whole = await self._batches(_OVER, {"team": team_id, "days": days}, until)
            removed += count
            if not whole:
                break
        return removed

    async def _batches(self, statement: LiteralString, given: dict[str, object], until: float) -> tuple[int, bool]:
        """Delete in batches; return how many rows, and whether all that was to go has gone."""
        removed = 0
        while True:
            async with self._postgres.transaction() as link:
                cursor = await link.execute(statement, {**given, "limit": _BATCH})
            removed += cursor.rowcount
            if cursor.rowcount < _BATCH:
                return removed, True
            if self._clock() >= until:
                return removed, False

    async def _months(self) -> None:
        """Drop months that are older than any team keeps, or that nothing is left of, and counts that are."""
        now = datetime.now(UTC)
        async with self._postgres.transaction() as link:
            await link.execute("delete from request_log_dropped where day < now() - make_interval(days => %s)", (_LONGEST_DAYS,))
            cursor = await link.execute(
                "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid"
                " where i.inhparent = 'request_log'::regclass order by 1"
            )
            names = [name for (name,) in await cursor.fetchall()]
            cursor = await link.execute("select coalesce(max(log_days), 0) from teams")
            row = await cursor.fetchone()
        longest = timedelta(days=row[0] if row else 0)
        for name in names:
            ends = _end_of(name)
            if ends is None or ends > now - LATEST:
                continue
            async with self._postgres.transaction() as link:
                if ends > now - longest:
                    cursor = await link.execute(f"select 1 from {name} limit 1")
                    if await cursor.fetchone() is not None:
                        continue
                await link.execute(f"drop table {name}")
            _log.info("request_log.month_dropped", month=name)


def _end_of(name: str) -> datetime | None:
    """Return when the month of a partition ends; None for what is none of ours."""
    matched = _PARTITION.fullmatch(name)
    if matched is None:
        return None
    first = date(int(matched[1]), int(matched[2]), 1)
    following = (first + timedelta(days=32)).replace(day=1)
    return datetime(following.year, following.month, 1, tzinfo=UTC)
