"""Removes from the log of requests what is over or was erased: whole months where it can, else in bounded batches."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final, LiteralString

from psycopg import sql

from services.auth.adapters.postgres import Postgres
from services.auth.domain.request_log import LATEST, MOST_DAYS
from services.common import logs

_log = logs.get("request_log")

BATCH: Final = 2000
_LATE_COMMIT: Final = timedelta(minutes=1)
"""Longer than any transaction lasts."""
_REST_S: Final = 3600.0
AT_WORK_S: Final = 1.0
"""How long it works at once: it is one of the sweeper's duties, and others wait."""
_PARTITION: Final = re.compile(r"request_log_(\d{4})_(\d{2})")
_LONGEST: Final = timedelta(days=MOST_DAYS)

_DELETED: Final[LiteralString] = (
    "with gone as (delete from request_log where (id, at) in ({chosen} limit %(limit)s for update skip locked)"
    " returning *),"
    " untagged as (delete from request_log_tags g using gone cross join lateral unnest(gone.tags) t (tag)"
    " where g.team_id = gone.team_id and g.tag = t.tag and g.at = gone.at and g.id = gone.id)"
    " select count(*)::int from gone"
)
_OVER: Final[LiteralString] = (
    "select id, at from request_log where team_id = %(team)s and at < now() - make_interval(days => %(days)s)"
    " order by at"
)
_ERASED: Final[LiteralString] = "select id, at from request_log where at <= %(upto)s"


class RequestLogSweep:
    """Sweeps the log. Whoever reads it sees nothing of what is to go, whenever it goes."""

    def __init__(self, postgres: Postgres, clock: Callable[[], float] = time.monotonic) -> None:
        self._postgres = postgres
        self._clock = clock
        self._rest_until = clock()

    async def tidy(self) -> bool:
        """Remove some of what is to go, for a moment: what was erased at once, what is over within the hour.

        Returns whether more is left of it.
        """
        until = self._clock() + AT_WORK_S
        removed, whole = await self._erased(until)
        if whole and self._clock() >= self._rest_until:
            # A month that is over for everybody goes at once, whatever is in it.
            names = await self._drop(await self._months())
            over, whole = await self._over(until) if names else (0, True)
            removed += over
            if whole:
                if over:
                    await self._drop(names)
                self._rest_until = self._clock() + _REST_S
        if removed:
            _log.info("request_log.swept", rows=removed)
        return not whole

    async def _erased(self, until: float) -> tuple[int, bool]:
        """Remove what was erased; return how many rows, and whether all of it went."""
        removed = 0
        async with self._postgres.transaction() as link:
            # Late requests are judged by it as long as any may come.
            await link.execute(
                "delete from request_log_erasures where swept_at is not null and upto < now() - %s", (LATEST,)
            )
            cursor = await link.execute(
                "select id, team_id, account_id, upto from request_log_erasures where swept_at is null order by id"
            )
            due = await cursor.fetchall()
        for erasure_id, team_id, account_id, upto in due:
            statement: LiteralString = _ERASED
            if team_id is not None:
                statement += " and team_id = %(team)s"
            if account_id is not None:
                statement += " and account_id = %(account)s"
            given = {"team": team_id, "account": account_id, "upto": upto}
            count, whole = await self._batches(statement, given, until)
            removed += count
            if not whole:
                return removed, False
            async with self._postgres.transaction() as link:
                # What was being written when it was made may be committed behind this sweep.
                await link.execute(
                    "update request_log_erasures set swept_at = now() where id = %s and upto < now() - %s",
                    (erasure_id, _LATE_COMMIT),
                )
        return removed, True

    async def _over(self, until: float) -> tuple[int, bool]:
        """Remove what is older than its team keeps; return how many rows, and whether all of them went."""
        removed = 0
        async with self._postgres.transaction() as link:
            cursor = await link.execute("select id, log_days from teams")
            teams = await cursor.fetchall()
        for team_id, days in teams:
            count, whole = await self._batches(_OVER, {"team": team_id, "days": days}, until)
            removed += count
            if not whole:
                return removed, False
        return removed, True

    async def _batches(self, chosen: LiteralString, given: dict[str, object], until: float) -> tuple[int, bool]:
        """Delete what is chosen in batches; return how many rows, and whether all that was to go has gone."""
        removed = 0
        while True:
            async with self._postgres.transaction() as link:
                # A batch is found by the indexes, and never by reading all that there is.
                await link.execute("set local enable_hashjoin = off; set local enable_mergejoin = off")
                cursor = await link.execute(_DELETED.replace("{chosen}", chosen), {**given, "limit": BATCH})
                row = await cursor.fetchone()
            count: int = row[0] if row else 0
            removed += count
            if count < BATCH:
                return removed, True
            if self._clock() >= until:
                return removed, False

    async def _months(self) -> list[str]:
        """Return the names of the months that there are."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid"
                " where i.inhparent = 'request_log'::regclass order by 1"
            )
            return [name for (name,) in await cursor.fetchall()]

    async def _drop(self, names: Iterable[str]) -> list[str]:
        """Drop months of which nothing may be left, or is, and counts that nobody asks for; return those that stay."""
        stay: list[str] = []
        async with self._postgres.transaction() as link:
            await link.execute("delete from request_log_dropped where day < now() - %s", (_LONGEST,))
            # What was erased is told by rows of its own, and what is of no team any more nobody may read.
            cursor = await link.execute("select now(), coalesce(max(log_days), 0) from teams")
            ((now, days),) = await cursor.fetchall()
        for name in names:
            ends = _end_of(name)
            # What may still come late would want it back.
            if ends is None or ends > now - LATEST:
                stay.append(name)
                continue
            async with self._postgres.transaction() as link:
                # Another replica may sweep at once: whoever comes second finds the month gone.
                await link.execute("select pg_advisory_xact_lock(hashtext('months of the request log'))")
                cursor = await link.execute("select to_regclass(%s) is null", (name,))
                if (await cursor.fetchone()) == (True,):
                    continue
                if ends > now - timedelta(days=days):
                    cursor = await link.execute(sql.SQL("select 1 from {} limit 1").format(sql.Identifier(name)))
                    if await cursor.fetchone() is not None:
                        stay.append(name)
                        continue
                tags = name.replace("request_log_", "request_log_tags_", 1)
                await link.execute(
                    sql.SQL("drop table if exists {}, {}").format(sql.Identifier(name), sql.Identifier(tags))
                )
            _log.info("request_log.month_dropped", month=name)
        return stay


def _end_of(name: str) -> datetime | None:
    """Return when the month of a partition ends; None for what is none of ours."""
    matched = _PARTITION.fullmatch(name)
    if matched is None:
        return None
    first = date(int(matched[1]), int(matched[2]), 1)
    following = (first + timedelta(days=32)).replace(day=1)
    return datetime(following.year, following.month, 1, tzinfo=UTC)
