"""What must be done now and then, by whichever process comes to it: sweeping, settling, renewing, cleaning up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, LiteralString

from moa.task.v1 import task_pb2
from services.common import logs
from services.common.errors import MoaError
from services.common.isolate import Isolation
from services.common.store import Store
from services.tasks import metrics
from services.tasks.adapters.database import OWED, QUEUE, REST_S, Database, Notices, wait
from services.tasks.adapters.queue import Queue
from services.tasks.adapters.quota import Quota

_log = logs.get("tasks.keeper")

_BATCH: Final = 100
_FLUSH_S: Final = 0.5
_TEND_S: Final = 5.0
_CLEAN_S: Final = 60.0
_LEFTOVERS: Final = """
select o.name from tasks.objects o join tasks.tasks t on t.id = o.task_id
where o.kind <> 'output' and t.ended_at < now() - interval '1 hour' and o.name <> all(%(but)s) limit %(limit)s"""
"""Previews, and outputs of attempts that were given up."""
_OLD: Final = """
select o.name from tasks.objects o join tasks.tasks t on t.id = o.task_id
where t.ended_at < now() - %(keep)s and o.name <> all(%(but)s) limit %(limit)s"""
_STATES: Final = {
    task_pb2.TASK_STATE_PENDING: "pending",
    task_pb2.TASK_STATE_SUBMITTED: "submitted",
    task_pb2.TASK_STATE_RUNNING: "running",
}


class Keeper:
    """Keeps the books straight until it is stopped.

    Args:
        database: Where tasks are.
        queue: Where they wait.
        quota: Where their reservations lie.
        notices: Come when a task comes, and when one ended.
        store: Where their outputs lie.
        keep_s: How long an ended task and its outputs are kept.
    """

    def __init__(
        self, database: Database, queue: Queue, quota: Quota, store: Store, notices: Notices, *, keep_s: float
    ) -> None:
        self._database = database
        self._queue = queue
        self._quota = quota
        self._store = store
        self._notices = notices
        self._keep_s = keep_s
        self._objects: Isolation[str] = Isolation("remove object")
        self._open = asyncio.Event()
        """Set while a task waits or runs: the others need no care."""
        self._open.set()

    async def run(self) -> None:
        """Do each of its duties at its own pace, until cancelled. Where no task is open, only a ring begins them."""
        sweep_s = min(1.0, self._queue.lease_s / 3)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look())
            group.create_task(_every(sweep_s, self._queue.sweep, self._open))
            group.create_task(_every(_TEND_S, self._quota.renew, self._open))
            group.create_task(self._book())
            group.create_task(_every(_CLEAN_S, self.clean))

    async def _look(self) -> None:
        """Count the open tasks: often while there are some, else when one comes."""
        with self._notices.listening(QUEUE) as rung:
            while True:
                rung.clear()
                try:
                    is_open = await self._count()
                except Exception as error:
                    _tell("count", error)
                    is_open = True
                if is_open:
                    self._open.set()
                    await asyncio.sleep(_TEND_S)
                else:
                    self._open.clear()
                    await wait(rung, REST_S)

    async def _book(self) -> None:
        """Book what ended tasks owe: soon after a ring, a batch at a time, and again while anything is left."""
        with self._notices.listening(OWED) as rung:
            while True:
                rung.clear()
                try:
                    booked = await self._quota.flush()
                    owed = await self._quota.owes()
                    if owed.credits:
                        booked += await self._quota.carry()
                    owes = bool(booked or owed)
                except Exception as error:
                    _tell("flush", error)
                    owes = True
                await asyncio.sleep(_FLUSH_S)
                if not owes:
                    await wait(rung, REST_S)

    async def clean(self) -> int:
        """Remove what is no longer kept: objects first, so that none is forgotten; give how many tasks went."""
        await self._remove_objects(_LEFTOVERS)
        await self._remove_objects(_OLD)
        async with self._database.transaction() as link:
            gone = await link.execute(
                "delete from tasks.tasks where id in (select id from tasks.tasks t where ended_at < now() - %(keep)s "
                "and not exists (select 1 from tasks.objects o where o.task_id = t.id) "
                "and not exists (select 1 from tasks.quota_outbox q where q.task_id = t.id) limit %(limit)s)",
                {"keep": timedelta(seconds=self._keep_s), "limit": _BATCH},
            )
            return gone.rowcount

    async def _remove_objects(self, which: LiteralString) -> None:
        given = {"keep": timedelta(seconds=self._keep_s), "limit": _BATCH, "but": self._objects.resting()}
        async with self._database.transaction() as link:
            result = await link.execute(which, given)
            names = [row[0] for row in await result.fetchall()]
        await self._objects.do(names, self._remove)

    async def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            await self._store.delete(name)
        async with self._database.transaction() as link:
            await link.execute("delete from tasks.objects where name = any(%s)", (list(names),))

    async def _count(self) -> bool:
        """Publish how many tasks are open; tell whether any is."""
        depth = await self._queue.depth()
        for state, name in _STATES.items():
            metrics.OPEN.labels(name).set(depth.get(state, 0))
        return bool(depth)


async def _every(seconds: float, duty: Callable[[], Awaitable[object]], needed: asyncio.Event | None = None) -> None:
    """Do a duty again and again, while `needed` is set; what fails is done the next time."""
    while True:
        if needed is not None:
            await needed.wait()
        try:
            await duty()
        except Exception as error:
            _tell(duty.__name__, error)
        await asyncio.sleep(seconds)


def _tell(duty: str, error: Exception) -> None:
    """Log what became of a duty. A bug in one must not end the others."""
    if isinstance(error, MoaError):
        _log.info("duty.postponed", duty=duty, why=error.message)
    else:
        _log.error("duty.failed", duty=duty, exc_info=error)
