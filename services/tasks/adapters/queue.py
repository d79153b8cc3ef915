"""Tasks as workers see them: which one gets next, for how long, what it writes of it, and what becomes of those whose
worker vanished.

Claims are taken one after the other (a transaction-long advisory lock, a few milliseconds), so that the limit on an
account's running tasks is exact. Accounts take turns: the one with the fewest running tasks first, then the one that
waited longest for its turn; within an account, first come first served. Rows that another transaction holds (a
cancellation) are skipped, not waited for. What a worker writes counts only while it still holds the task.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from psycopg import sql

from moa.task.v1 import task_pb2
from services.common.clock import CLOCK, now_utc
from services.common.errors import DeadlineExceeded, Unavailable
from services.common.isolate import Isolation, concerns_all
from services.tasks.adapters import records
from services.tasks.adapters.database import Database, Link
from services.tasks.domain.task import PENDING, Task

_LOCK: Final = 0x6D6F6171  # "moaq"

# The accounts with something waiting are found by jumping along the index, one step an account, however many tasks
# wait.
_CHOOSE: Final = """
with recursive waiting(account_id) as (
    (select account_id from tasks.tasks where state = 1 order by account_id limit 1)
    union all
    select (select t.account_id from tasks.tasks t where t.state = 1 and t.account_id > w.account_id
            order by t.account_id limit 1)
    from waiting w where w.account_id is not null
), running as (
    select account_id, count(*) as n from tasks.tasks where state in (2, 3) group by account_id
), candidates as (
    select t.id, a.claimed_at, t.number, coalesce(r.n, 0)
               + row_number() over (partition by w.account_id order by t.not_before, t.number) as turn
    from waiting w
    join tasks.accounts a using (account_id)
    left join running r using (account_id)
    cross join lateral (
        select id, not_before, number from tasks.tasks q
        where q.account_id = w.account_id and q.state = 1 and q.not_before <= now() and q.id <> all(%(but)s)
        order by q.not_before, q.number
        limit least(%(count)s, greatest(0, %(per_account)s - coalesce(r.n, 0)))
    ) t
)
select id from candidates order by turn, claimed_at, number limit %(count)s
"""

PART_BYTES: Final = 256 * 1024
"""How much of an output is written or read at once: a connection keeps a buffer for the longest that it ever sent."""

_EXPIRED: Final = "state in (2, 3) and leased_until < now()"
_OVERDUE: Final = "state = 1 and deadline < now()"


@dataclass(frozen=True, slots=True)
class LeaseRenewal:
    """What a worker learns of a task when it renews its lease."""

    task_id: str
    cancel: bool
    """Whether its account asked for its end."""


class Queue:
    """Hands tasks to workers.

    Args:
        database: Where they are.
        per_account: How many of one account's tasks run at once.
        lease_s: How long a silent worker keeps a task.
        attempts: How often a task is taken up before it fails.
    """

    def __init__(self, database: Database, *, per_account: int, lease_s: float, attempts: int) -> None:
        self._database = database
        self._per_account = per_account
        self._lease_s = lease_s
        self._attempts = attempts
        self._claims: Isolation[str] = Isolation("claim")
        self._sweeps: Isolation[str] = Isolation("task sweep")

    @property
    def lease_s(self) -> float:
        """How long a claim lasts without renewal."""
        return self._lease_s

    async def claim(self, worker: str, count: int) -> list[Task]:
        """Take up to `count` tasks for a worker. One that cannot be taken keeps no other back. Raises Unavailable."""
        try:
            return await self._taken(worker, count)
        except Exception as error:
            if concerns_all(error):
                raise
        taken: list[Task] = []

        async def take(ids: Sequence[str]) -> None:
            taken.extend(await self._taken(worker, count, among=ids))

        async with self._database.transaction() as link:
            ids = await self._chosen(link, count)
        await self._claims.do(ids, take)
        return taken

    async def _chosen(self, link: Link, count: int) -> list[str]:
        given = {"count": count, "per_account": self._per_account, "but": self._claims.resting()}
        return [row[0] for row in await (await link.execute(_CHOOSE, given)).fetchall()]

    async def _taken(self, worker: str, count: int, *, among: Sequence[str] | None = None) -> list[Task]:
        async with self._database.transaction() as link:
            await link.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
            ids = await self._chosen(link, count)
            if among is not None:
                ids = [task_id for task_id in ids if task_id in among]
            if not ids:
                return []
            tasks = await _locked(link, sql.SQL("id = any(%s) and state = 1 order by array_position(%s, id)"), ids, ids)
            now = now_utc()
            for task in tasks:
                task.claim(worker, now, self._lease_s)
            async with link.pipeline():
                for task in tasks:
                    await records.save(link, task)
            await link.execute(
                "update tasks.accounts set claimed_at = now() where account_id = any(%s)",
                ([task.account_id for task in tasks],),
            )
        return tasks

    async def beat(self, worker: str, tasks: Iterable[Task]) -> list[LeaseRenewal]:
        """Renew the leases of a worker's tasks. A task that is not in the answer is the worker's no more."""
        held = list(tasks)
        async with self._database.transaction() as link:
            result = await link.execute(
                "update tasks.tasks t set leased_until = now() + %s "
                "from unnest(%s::text[], %s::bigint[]) as mine(id, fence) "
                "where t.id = mine.id and t.fence = mine.fence and t.leased_by = %s and t.state in (2, 3) "
                "returning t.id, t.cancel_asked_at is not null",
                (timedelta(seconds=self._lease_s), [t.id for t in held], [t.fence for t in held], worker),
            )
            return [LeaseRenewal(*row) for row in await result.fetchall()]

    async def sweep(self, *, limit: int = 100) -> int:
        """Put back what vanished workers held, and end what is overdue; give how many tasks that were."""
        async with self._database.transaction() as link:
            result = await link.execute(
                f"select id from tasks.tasks where (({_EXPIRED}) or ({_OVERDUE})) and id <> all(%s) limit %s",  # noqa: S608  # constants of this module
                (self._sweeps.resting(), limit),
            )
            ids = [task_id for (task_id,) in await result.fetchall()]
        return sum(await self._sweeps.do(ids, self._swept))

    async def _swept(self, ids: Sequence[str]) -> int:
        async with self._database.transaction() as link:
            tasks = await _locked(link, sql.SQL(f"id = any(%s) and (({_EXPIRED}) or ({_OVERDUE}))"), list(ids))
            for task in tasks:
                self._settle_fate(task)
                await records.save(link, task)
        return len(tasks)

    def _settle_fate(self, task: Task) -> None:
        now = now_utc()
        if task.cancel_asked_at is not None:
            task.cancel(now)
        elif task.deadline < now:
            task.fail(DeadlineExceeded("the task did not end before its deadline"), now)
        elif task.attempts >= self._attempts:
            task.fail(Unavailable(f"the task's worker was lost {task.attempts} times"), now)
        elif task.state != PENDING:
            task.put_back("the worker was lost", now)

    async def waits(self) -> bool:
        """Return whether a task waits, be it for its time or for its account's turn."""
        async with self._database.transaction() as link:
            result = await link.execute("select 1 from tasks.tasks where state = 1 limit 1")
            return await result.fetchone() is not None

    async def depth(self) -> dict[int, int]:
        """Count the open tasks by state."""
        async with self._database.transaction() as link:
            asked_at = CLOCK.elapsed()
            result = await link.execute(
                "select clock_timestamp(), state, n from (select 1) as always left join "
                "(select state, count(*) as n from tasks.tasks where state < 4 group by state) as open on true"
            )
            rows = await result.fetchall()
        # Tasks are asked for again and again, and a connection is not made anew for an hour.
        CLOCK.learn(rows[0][0], asked_at)
        return {state: count for _, state, count in rows if state is not None}


@dataclass(frozen=True, slots=True)
class Spooled:
    """An output that was made and is not in the store yet."""

    position: int
    name: str
    output: task_pb2.TaskOutput


class WorkerLock:
    """A claimed task, for the worker that claimed it. Every method raises LeaseLost once it holds it no more."""

    def __init__(self, database: Database, task: Task) -> None:
        self._database = database
        self.id = task.id
        self.claimed = task

    @asynccontextmanager
    async def change(self) -> AsyncIterator[Task]:
        """Lend the task, locked; what was changed is written at the end."""
        async with self._changing() as (_, task):
            yield task
            self.claimed = task

    async def restart(self) -> None:
        """Forget what an earlier attempt made: its spool, and its outputs, which become orphans in the store."""
        async with self._changing() as (link, _):
            await link.execute("delete from tasks.spool where task_id = %s", (self.id,))
            await link.execute(
                "update tasks.objects set kind = 'orphan' where task_id = %s and kind <> 'orphan'", (self.id,)
            )

    async def spool(self, made: Spooled, data: bytes, *, last: bool) -> None:
        """Keep an output until it is in the store. After the last, a later attempt only stores what was made."""
        async with self._changing() as (link, task):
            task.made = task.made or last
            added = await link.execute(
                "insert into tasks.spool (task_id, position, name, output) values (%s, %s, %s, %s) "
                "on conflict do nothing",
                (self.id, made.position, made.name, made.output.SerializeToString()),
            )
            if not added.rowcount:
                return
            for part, at in enumerate(range(0, len(data), PART_BYTES)):
                await link.execute(
                    "insert into tasks.spool_parts (task_id, position, part, data) values (%s, %s, %s, %b)",
                    (self.id, made.position, part, data[at : at + PART_BYTES]),
                )

    async def made(self) -> None:
        """Note that everything is made: a later attempt only stores it."""
        async with self.change() as task:
            task.made = True

    async def spooled(self) -> int:
        """Count the outputs that are not in the store yet."""
        async with self._database.transaction() as link:
            result = await link.execute("select count(*) from tasks.spool where task_id = %s", (self.id,))
            row = await result.fetchone()
        return row[0] if row else 0

    async def next_spooled(self) -> Spooled | None:
        """Return the first output that is not in the store yet."""
        async with self._database.transaction() as link:
            result = await link.execute(
                "select position, name, output from tasks.spool where task_id = %s order by position limit 1",
                (self.id,),
            )
            row = await result.fetchone()
        return None if row is None else Spooled(row[0], row[1], task_pb2.TaskOutput.FromString(row[2]))

    async def spooled_part(self, spooled: Spooled, part: int) -> bytes:
        """Return a part of a spooled output; empty behind the last."""
        async with self._database.transaction() as link:
            result = await link.execute(
                "select data from tasks.spool_parts where task_id = %s and position = %s and part = %s",
                (self.id, spooled.position, part),
                binary=True,
            )
            row = await result.fetchone()
        return row[0] if row else b""

    async def stored(self, output: task_pb2.TaskOutput, *, last: bool = False) -> None:
        """Note that an output is in the store, whether it came from the spool or was stored by the desk.

        With the last one the task ends well, charged for the outputs that are in the store.
        """
        async with self._database.transaction() as link:
            task = await self._mine(link)
            await link.execute("delete from tasks.spool where task_id = %s and position = %s", (self.id, output.index))
            # A commit whose answer was lost is tried again: it must not be told twice.
            if await self._add_object(link, "output", output.name, output.index, output):
                task.deliver(output, now_utc())
                if task.webhook_url and "output" in task.webhook_events:
                    await records.add_delivery(link, task, "output")
            outputs = await self._succeed(link, task) if last else 0
            await records.save(link, task, outputs=outputs)

    async def preview(self, name: str, progress: task_pb2.TaskProgress) -> None:
        """Note how far the task is, with a picture that lies in the store."""
        async with self._changing() as (link, task):
            await self._add_object(link, "preview", name, 0, task_pb2.TaskOutput(name=name))
            task.advance(progress, now_utc())

    async def succeed(self) -> None:
        """End the task well, charged for the outputs that are in the store."""
        async with self._database.transaction() as link:
            task = await self._mine(link)
            await records.save(link, task, outputs=await self._succeed(link, task))

    async def _succeed(self, link: Link, task: Task) -> int:
        """End the task well; give how many outputs are in the store."""
        result = await link.execute(
            "select count(*) from tasks.objects where task_id = %s and kind = 'output'", (self.id,)
        )
        row = await result.fetchone()
        task.succeed(now_utc())
        return row[0] if row else 0

    async def webhook(self, event: str) -> None:
        """Report progress by webhook, to those who asked for it."""
        async with self._changing() as (link, task):
            if task.webhook_url and event in task.webhook_events:
                await records.add_delivery(link, task, event)

    async def _add_object(self, link: Link, kind: str, name: str, position: int, output: task_pb2.TaskOutput) -> bool:
        done = await link.execute(
            "insert into tasks.objects (name, task_id, kind, position, output) values (%s, %s, %s, %s, %s) "
            "on conflict (name) do nothing",
            (name, self.id, kind, position, output.SerializeToString()),
        )
        return done.rowcount == 1

    async def _mine(self, link: Link) -> Task:
        return await records.load_held(link, self.claimed)

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[tuple[Link, Task]]:
        async with self._database.transaction() as link:
            task = await self._mine(link)
            yield link, task
            await records.save(link, task)


async def _locked(link: Link, where: sql.Composable, *given: object) -> list[Task]:
    query = records.SELECT + sql.SQL(" where ") + where + sql.SQL(" for update skip locked")
    result = await link.execute(query, given)
    return [records.task_of(row) for row in await result.fetchall()]
