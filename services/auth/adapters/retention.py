"""Removes what is older than a span from the ledger, in whole blocks, and keeps its sums.

A block that is gone takes no settlement any more: what comes for one of its reservations after that is refused, so it
is charged once, as before. Only what an audit has checked is removed; a trigger adds the removed rows' sums to
`ledger_carried` in the same transaction (decision 0021).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from prometheus_client import Gauge

from services.auth.adapters.checker import AUDIT_LOCK, Checker
from services.auth.adapters.columns import each
from services.auth.adapters.postgres import Postgres
from services.common import logs
from services.common.cancelling import cancel_and_wait
from services.common.isolate import each_isolated, note_failure

FAULTS: Final = Gauge("moa_ledger_faults", "Rows that do not balance, by the last audit before rows are removed.")

_log = logs.get("retention")

_BATCH: Final = 50
_AT_WORK_S: Final = 1.0
"""How long it works at once: others wait for the database meanwhile."""
_REST_S: Final = 3600.0
"""After the last of what is old, and after an audit that found a fault."""

_OLD: Final = "closed_at < now() - make_interval(days => %(days)s)"
# What is locked here, no settlement adds a row to before it is gone.
_REMOVABLE: Final = (
    f"select id from blocks b where id = any(%(ids)s) and {_OLD} and {each('{} = settled_{} + returned_{}', ' and ')}"
    " order by id for update skip locked"
)
_CHECKED_OF: Final = (
    "select c.id from unnest(%(ids)s::uuid[]) as c (id)"
    " where not exists (select 1 from open_reservations o where o.block_id = c.id)"
    " and not exists (select 1 from ledger l where l.block_id = c.id"
    " and (l.at > now() - make_interval(days => %(days)s) or l.id > coalesce((select upto from audit_position), 0)))"
)


class _Place(NamedTuple):
    """A block's place in the order in which blocks were closed."""

    closed_at: datetime
    id: UUID


class Retention:
    """Removes rows of blocks that were closed so many days ago.

    Args:
        postgres: Where.
        checker: What checks rows before they are removed.
        days: For how long rows are kept at least.
    """

    def __init__(
        self, postgres: Postgres, checker: Checker, *, days: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._postgres = postgres
        self._checker = checker
        self._days = days
        self._clock = clock
        self._after: _Place | None = None
        self._removed = 0
        self._rest_until = self._audit_from = clock()
        self.audit: asyncio.Task[None] | None = None
        """What checks old rows now, or did last."""

    async def close(self) -> None:
        """End an audit that is under way; the next one goes on from where it was."""
        await cancel_and_wait(self.audit)

    async def tidy(self) -> bool:
        """Remove some of what is old, for a moment; begin an audit where old rows were not checked yet.

        Returns whether more is left of it.
        """
        if self._clock() < self._rest_until or (self.audit is not None and not self.audit.done()):
            return False
        if self._after is None and self._clock() >= self._audit_from:
            if await self._unchecked():
                self.audit = asyncio.create_task(self._check(), name="audit before removal")
                return False
            FAULTS.set(0)  # another replica may have checked what this one found a fault in
        until = self._clock() + _AT_WORK_S
        while self._clock() < until:
            batch = await self._next()
            if not batch:
                if self._removed:
                    _log.info("ledger.rows_removed", rows=self._removed, days=self._days)
                self._after, self._removed = None, 0
                self._rest_until = self._clock() + _REST_S
                return False
            done, failed = await each_isolated([place.id for place in batch], self.remove)
            self._removed += sum(done)
            for block_id, error in failed:
                note_failure("retain", str(block_id), error)
            self._after = batch[-1]
        return True

    async def remove(self, block_ids: Sequence[UUID]) -> int:
        """Remove those of the blocks that are over, checked and balanced, with their rows; return how many rows.

        Nothing is removed while an audit is under way.
        """
        given = {"days": self._days}
        async with self._postgres.transaction() as link:
            cursor = await link.execute("select pg_try_advisory_xact_lock(%s)", (AUDIT_LOCK,))
            if await cursor.fetchone() != (True,):
                return 0
            cursor = await link.execute(_REMOVABLE, {**given, "ids": list(block_ids)})
            locked = [block_id for (block_id,) in await cursor.fetchall()]
            # A statement of its own, for it has to see what was booked while the lock was waited for.
            cursor = await link.execute(_CHECKED_OF, {**given, "ids": locked})
            chosen = [block_id for (block_id,) in await cursor.fetchall()]
            if not chosen:
                return 0
            removed = await link.execute("delete from ledger where block_id = any(%s)", (chosen,))
            await link.execute("delete from ended_leases where block_id = any(%s)", (chosen,))
            await link.execute("delete from blocks where id = any(%s)", (chosen,))
        return removed.rowcount

    async def _next(self) -> list[_Place]:
        at, block_id = self._after or (None, None)
        given = {"days": self._days, "limit": _BATCH, "at": at, "id": block_id}
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select closed_at, id from blocks where " + _OLD + " and (%(at)s::timestamptz is null"
                " or (closed_at, id) > (%(at)s::timestamptz, %(id)s::uuid)) order by closed_at, id limit %(limit)s",
                given,
            )
            return [_Place(*row) for row in await cursor.fetchall()]

    async def _unchecked(self) -> bool:
        """Return whether the first row that no audit has checked is old."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select at < now() - make_interval(days => %s) from ledger"
                " where id > coalesce((select upto from audit_position), 0) order by id limit 1",
                (self._days,),
            )
            return await cursor.fetchone() == (True,)

    async def _check(self) -> None:
        try:
            found = await self._checker.check()
        except Exception:
            _log.exception("audit.failed")
        else:
            FAULTS.set(sum(map(len, found.faults.values())))
            if not found.faults:
                return
            # What was checked before the fault may go; what comes after it stays until it is mended.
            _log.error("ledger.unbalanced", faults={name: len(rows) for name, rows in found.faults.items()})
        self._audit_from = self._clock() + _REST_S
