"""What the release before counted of credits in this schema, on its way into the quota ledger.

An entry stays queued until auth has booked it, which books each task once: a death at any moment has it told again.
To be removed, with `tasks.credit_entries`, when no database of that release is brought up to date any more.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

from moa.quota.v1 import quota_service_pb2 as pb
from services.tasks.adapters.database import Database

_LOCK: Final = 0x6D6F6163  # "moac"
_BATCH: Final = 500
_REST_S: Final = 60.0
_STEPS: Final = {"hold": pb.CREDIT_STEP_HOLD, "charge": pb.CREDIT_STEP_CHARGE, "release": pb.CREDIT_STEP_RELEASE}
_NEXT: Final = """
select e.id, e.reference, e.account_id, coalesce(t.key_id, ''), e.kind, e.micros, e.at
from tasks.credits_to_carry c join tasks.credit_entries e on e.id = c.entry_id
left join tasks.tasks t on t.id = e.reference
where e.reference <> all(%s) order by e.id limit %s"""
_UNTOLD: Final = """
select exists (select 1 from tasks.credits_to_carry c join tasks.credit_entries e on e.id = c.entry_id
               where e.kind = 'hold')"""


class CreditsToCarry:
    """The queue of entries."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.is_complete = False
        """What `complete` returned last: once it is so it always will be."""
        self._rest_until: dict[str, float] = {}
        """Tasks whose entries could not be booked: they keep no others back."""

    async def complete(self) -> bool:
        """Return whether the ledger knows of all credits that were held or spent here, so that it tells what is free.

        Nothing is held here any more.
        """
        if not self.is_complete:
            async with self._database.transaction() as link:
                found = await (await link.execute(_UNTOLD)).fetchone()
            self.is_complete = found == (False,)
        return self.is_complete

    async def carry(self, book: Callable[[Sequence[pb.CreditEntry]], Awaitable[set[int]]]) -> int:
        """Have entries booked, in their order, and forget those that `book` returns; return how many.

        Only one process does this at a time; the others return 0.
        """
        async with self._database.transaction() as link:
            if await (await link.execute("select pg_try_advisory_xact_lock(%s)", (_LOCK,))).fetchone() != (True,):
                return 0
            resting = [task_id for task_id, until in self._rest_until.items() if until > time.monotonic()]
            entries = [_entry(*row) for row in await (await link.execute(_NEXT, (resting, _BATCH))).fetchall()]
            if not entries:
                return 0
            booked = await book(entries)
            failed = {entry.task_id for entry in entries if entry.entry_id not in booked}
            until = time.monotonic() + _REST_S
            self._rest_until |= dict.fromkeys(failed, until)
            await link.execute("delete from tasks.credits_to_carry where entry_id = any(%s)", (list(booked),))
        return len(booked)


def _entry(
    entry_id: int, task_id: str, account_id: str, key_id: str, kind: str, micros: int, at: datetime
) -> pb.CreditEntry:
    entry = pb.CreditEntry(
        entry_id=entry_id,
        task_id=task_id,
        account_id=account_id,
        key_id=key_id,
        step=_STEPS[kind],
        micro_credits=micros,
    )
    entry.at.FromDatetime(at)
    return entry
