"""Tasks as their callers see them: created, read, listed, watched, cancelled."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from moa.task.v1 import task_pb2
from services.common import idempotency
from services.common.clock import now_utc
from services.common.errors import Conflict, NotFound, QueueFull
from services.tasks.adapters import records
from services.tasks.adapters.database import CANCEL, QUEUE, Database, Link
from services.tasks.domain.task import HELD, PENDING, Task

_NOTIFY = "select pg_notify(%s, %s)"
_KNOW = "insert into tasks.accounts (account_id) values (%s) on conflict do nothing"


class Tasks:
    """The tasks of all accounts.

    Args:
        database: Where they are.
        waiting: How many tasks of one account may wait.
    """

    def __init__(self, database: Database, *, waiting: int = 1000) -> None:
        self._database = database
        self._waiting = waiting

    async def known(self, account_id: str, idempotency_key: str, fingerprint: bytes) -> Task | None:
        """Return the task that was created under a key before. Raises IdempotencyKeyReused when it was for another."""
        async with self._database.transaction() as link:
            return await self._known(link, account_id, idempotency_key, fingerprint)

    async def create(self, task: Task) -> Task:
        """Write a new task; give the earlier one where its idempotency key is taken.

        Raises IdempotencyKeyReused, or QueueFull when too many of the account's tasks wait.
        """
        async with self._database.transaction() as link:
            await link.execute(_KNOW, (task.account_id,))
            if not await self._insert(link, task):
                known = await self._known(link, task.account_id, task.idempotency_key or "", task.fingerprint)
                if known is None:
                    raise Conflict("the task was created already")
                return known
            await self._check_room(link, task.account_id)
            await link.execute(_NOTIFY, (QUEUE, ""))
            await self._started_webhook(link, task)
        return task

    async def resume(self, task: Task, old: Task) -> Task:
        """Write a task that takes over another's spooled outputs; give the earlier one where that was done before."""
        async with self._database.transaction() as link:
            locked = await records.load(link, old.id)
            again = await link.execute(records.SELECT + sql.SQL(" where resumed_from = %s"), (old.id,))
            if row := await again.fetchone():
                return records.task_of(row)
            spooled = await link.execute("select 1 from tasks.spool where task_id = %s", (old.id,))
            if locked is None or not locked.made or not await spooled.fetchone():
                raise Conflict("the task's outputs were deleted; create the task again")
            await link.execute(_KNOW, (task.account_id,))
            await self._insert(link, task)
            await link.execute("update tasks.spool set task_id = %s where task_id = %s", (task.id, old.id))
            # Some of its outputs may have been stored before the store failed.
            await link.execute(
                "update tasks.objects set task_id = %s where task_id = %s and kind = 'output'", (task.id, old.id)
            )
            await link.execute(_NOTIFY, (QUEUE, ""))
        return task

    async def get(self, account_id: str, task_id: str) -> Task:
        """Return an account's task. Raises NotFound, for others' tasks too."""
        async with self._database.transaction() as link:
            result = await link.execute(
                records.SELECT + sql.SQL(" where id = %s and account_id = %s"), (task_id, account_id)
            )
            row = await result.fetchone()
        if row is None:
            raise NotFound("task not found")
        return records.task_of(row)

    async def find(self, task_id: str) -> Task | None:
        """Return a task, whoever's it is."""
        async with self._database.transaction() as link:
            result = await link.execute(records.SELECT + sql.SQL(" where id = %s"), (task_id,))
            row = await result.fetchone()
        return records.task_of(row) if row else None

    async def page(
        self,
        account_id: str,
        *,
        dialect: str | None = None,
        state: task_pb2.TaskState.ValueType = task_pb2.TASK_STATE_UNSPECIFIED,
        before: int | None = None,
        size: int,
    ) -> tuple[list[Task], int | None]:
        """Return a page of an account's tasks, the newest first, and where the next begins (None: nowhere)."""
        query = sql.SQL(
            "select number, {} from tasks.tasks where account_id = %(account)s "
            "and (%(dialect)s::text is null or dialect = %(dialect)s) and (%(state)s = 0 or state = %(state)s) "
            "and (%(before)s::bigint is null or number < %(before)s) order by number desc limit %(limit)s"
        ).format(records.COLUMNS)
        given = {"account": account_id, "dialect": dialect, "state": state, "before": before, "limit": size + 1}
        async with self._database.transaction() as link:
            rows = await (await link.execute(query, given)).fetchall()
        tasks = [records.task_of(row[1:]) for row in rows[:size]]
        return tasks, rows[size - 1][0] if len(rows) > size else None

    async def events(self, task_id: str, after: int, *, limit: int = 200) -> list[task_pb2.TaskEvent]:
        """Return a task's events behind `after`, in order."""
        async with self._database.transaction() as link:
            result = await link.execute(
                "select event from tasks.events where task_id = %s and sequence > %s order by sequence limit %s",
                (task_id, after, limit),
            )
            return [task_pb2.TaskEvent.FromString(row[0]) async for row in result]

    async def outputs(self, task_ids: Iterable[str]) -> dict[str, list[task_pb2.TaskOutput]]:
        """Return the outputs of tasks, in order."""
        results: dict[str, list[task_pb2.TaskOutput]] = {}
        async with self._database.transaction() as link:
            rows = await link.execute(
                "select task_id, output from tasks.objects where task_id = any(%s) and kind = 'output' "
                "order by task_id, position",
                (list(task_ids),),
            )
            async for task_id, output in rows:
                results.setdefault(task_id, []).append(task_pb2.TaskOutput.FromString(output))
        return results

    async def cancel(self, account_id: str, task_id: str) -> Task:
        """End a waiting task; have the worker of a running one end it; leave an ended one. Raises NotFound."""
        async with self._database.transaction() as link:
            task = await records.load(link, task_id)
            if task is None or task.account_id != account_id:
                raise NotFound("task not found")
            if task.state == PENDING:
                task.cancel(now_utc())
                await records.save(link, task)
            elif task.state in HELD:
                task.ask_cancel(now_utc())
                await records.save(link, task)
                await link.execute(_NOTIFY, (CANCEL, ""))
        return task

    async def _insert(self, link: Link, task: Task) -> bool:
        done = await link.execute(records.INSERT, records.values(task))
        if not done.rowcount:
            return False
        async with link.cursor() as cursor:
            await cursor.executemany(records.ADD_EVENT, records.event_rows(task))
        task.fresh.clear()
        return True

    async def _known(self, link: Link, account_id: str, key: str, fingerprint: bytes) -> Task | None:
        result = await link.execute(
            records.SELECT + sql.SQL(" where account_id = %s and idempotency_key = %s"), (account_id, key)
        )
        row = await result.fetchone()
        if row is None:
            return None
        task = records.task_of(row)
        if task.fingerprint != fingerprint:
            raise idempotency.reused()
        return task

    async def _check_room(self, link: Link, account_id: str) -> None:
        result = await link.execute(
            "select count(*) from (select 1 from tasks.tasks where account_id = %s and state = 1 limit %s) w",
            (account_id, self._waiting + 1),
        )
        row = await result.fetchone()
        if row and row[0] > self._waiting:
            raise QueueFull(f"{self._waiting} tasks wait already; wait for some to end", retry_after_s=10)

    async def _started_webhook(self, link: Link, task: Task) -> None:
        if task.webhook_url and "start" in task.webhook_events:
            await records.add_delivery(link, task, "start")
