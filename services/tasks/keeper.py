"""What must be done now and then, by whichever process comes to it: sweeping, settling, renewing, cleaning up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, LiteralString

from moa.task.v1 import task_pb2
from services.common import logs
from services.common.apart import Apart
from services.common.errors import MoaError
from services.common.store import Store
from services.tasks import metrics
from services.tasks.adapters.database import Database
from services.tasks.adapters.queue import Queue
from services.tasks.adapters.quota import Quota

_log = logs.get("tasks.keeper")

_BATCH: Final = 100
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
        store: Where their outputs lie.
        keep_s: How long an ended task and its outputs are kept.
    """

    def __init__(self, database: Database, queue: Queue, quota: Quota, store: Store, *, keep_s: float) -> None:
        self._database = database
        self._queue = queue
        self._quota = quota
        self._store = store
        self._keep_s = keep_s
        self._objects: Apart[str] = Apart("remove object")

    async def run(self) -> None:
        """Do each of its duties at its own pace, until cancelled."""
        sweep_s = min(1.0, self._queue.lease_s / 3)
        async with asyncio.TaskGroup() as group:
            group.create_task(_every(sweep_s, self._queue.sweep))
            group.create_task(_every(0.5, self._quota.flush))
            group.create_task(_every(5.0, self._quota.renew))
            group.create_task(_every(5.0, self._count))
            group.create_task(_every(30.0, self.clean))

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
            found = await link.execute(which, given)
            names = [row[0] for row in await found.fetchall()]
        await self._objects.do(names, self._remove)

    async def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            await self._store.delete(name)
        async with self._database.transaction() as link:
            await link.execute("delete from tasks.objects where name = any(%s)", (list(names),))

    async def _count(self) -> None:
        depth = await self._queue.depth()
        for state, name in _STATES.items():
            metrics.OPEN.labels(name).set(depth.get(state, 0))


async def _every(seconds: float, duty: Callable[[], Awaitable[object]]) -> None:
    """Do a duty again and again; what fails is done the next time."""
    while True:
        try:
            await duty()
        except MoaError as error:
            _log.info("duty.postponed", duty=duty.__name__, why=error.message)
        except Exception:
            # A bug in one duty must not end the others.
            _log.exception("duty.failed", duty=duty.__name__)
        await asyncio.sleep(seconds)
