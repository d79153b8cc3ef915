"""What a worker writes of the task that it holds: every write counts only while it still holds it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from moa.task.v1 import task_pb2
from services.tasks.adapters import log
from services.tasks.adapters.database import Database, Link
from services.tasks.domain.task import Task, now_utc

PART_BYTES: Final = 256 * 1024
"""How much of an output is written or read at once: a connection keeps a buffer for the longest that it ever sent."""


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
                    await log.add_delivery(link, task, "output")
            outputs = await self._succeed(link, task) if last else 0
            await log.save(link, task, outputs=outputs)

    async def preview(self, name: str, progress: task_pb2.TaskProgress) -> None:
        """Note how far the task is, with a picture that lies in the store."""
        async with self._changing() as (link, task):
            await self._add_object(link, "preview", name, 0, task_pb2.TaskOutput(name=name))
            task.advance(progress, now_utc())

    async def succeed(self) -> None:
        """End the task well, charged for the outputs that are in the store."""
        async with self._database.transaction() as link:
            task = await self._mine(link)
            await log.save(link, task, outputs=await self._succeed(link, task))

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
                await log.add_delivery(link, task, event)

    async def _add_object(self, link: Link, kind: str, name: str, position: int, output: task_pb2.TaskOutput) -> bool:
        done = await link.execute(
            "insert into tasks.objects (name, task_id, kind, position, output) values (%s, %s, %s, %s, %s) "
            "on conflict (name) do nothing",
            (name, self.id, kind, position, output.SerializeToString()),
        )
        return done.rowcount == 1

    async def _mine(self, link: Link) -> Task:
        return await log.load_held(link, self.claimed)

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[tuple[Link, Task]]:
        async with self._database.transaction() as link:
            task = await self._mine(link)
            yield link, task
            await log.save(link, task)
