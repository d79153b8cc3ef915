"""The worker of a process: claims what it has room for, keeps its leases, and decides how a task ends."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import datetime
from typing import Final

from services.common import errors, logs, tracing
from services.common.clock import now_utc
from services.common.errors import DeadlineExceeded, Internal, MoaError, Unavailable
from services.tasks import metrics
from services.tasks.adapters.database import CANCEL, QUEUE, REST_S, Database, Notices, steadily, wait
from services.tasks.adapters.queue import Queue, WorkerLock
from services.tasks.domain import retry
from services.tasks.domain.task import LeaseLost, Task
from services.tasks.worker.work import Work

_log = logs.get("tasks.worker")

_LOOK_S: Final = 1.0
_STOPPING: Final = "the worker is stopping"


class RunningTask:
    """A task that this process runs."""

    def __init__(self, task: Task, lease_s: float) -> None:
        self.task = task
        self.doing: asyncio.Task[None] | None = None
        self.cancel_asked = False
        self.lost = False
        self.failure = ""
        """The kind of what went wrong, for its span."""
        self.kept_until = time.monotonic() + lease_s
        """Until when the lease surely lasts, by this process's own clock."""

    def stop(self) -> None:
        """Stop the work behind it."""
        if self.doing is not None:
            self.doing.cancel()


class Worker:
    """Runs tasks, `room` at once, until it is stopped.

    Args:
        database: Where tasks are.
        queue: Where they come from.
        work: How they are done.
        notices: Come when something can be claimed, or a running task's account asks for its end.
        room: How many at once.
        attempts: How often a task is taken up before it fails.
        retry_s: Pause before a first retry.
    """

    def __init__(
        self,
        database: Database,
        queue: Queue,
        work: Work,
        notices: Notices,
        *,
        room: int,
        attempts: int,
        retry_s: float,
    ) -> None:
        self.name = f"{os.uname().nodename}-{os.getpid()}-{os.urandom(4).hex()}"
        self._database = database
        self._queue = queue
        self._work = work
        self._notices = notices
        self._room = room
        self._attempts = attempts
        self._retry_s = retry_s
        self._runs: dict[str, RunningTask] = {}
        self._freed = asyncio.Event()
        self._stopping = False

    async def run(self) -> None:
        """Claim and run tasks until cancelled; then put back what runs."""
        beating = asyncio.create_task(self._beat(), name="worker.beat")
        try:
            with self._notices.listening(QUEUE) as rung:
                while True:
                    rung.clear()
                    if await self._claim() == 0:
                        await wait(rung, await self.pause_s())
        finally:
            self._stopping = True
            for run in self._runs.values():
                run.stop()
            await asyncio.gather(*(r.doing for r in self._runs.values() if r.doing), return_exceptions=True)
            beating.cancel()

    async def pause_s(self) -> float:
        """Return how long to wait for a ring. Nothing tells that a waiting task's time or turn has come."""
        try:
            return _LOOK_S if await self._queue.waits() else REST_S
        except Exception:
            return _LOOK_S

    async def _claim(self) -> int:
        """Claim what there is room for; give how many tasks that were."""
        while len(self._runs) >= self._room:
            self._freed.clear()
            await self._freed.wait()
        try:
            tasks = await self._queue.claim(self.name, self._room - len(self._runs))
        except Unavailable:
            await asyncio.sleep(_LOOK_S)
            return 0
        except Exception:
            # A bug must not end the only thing of this process that takes tasks up.
            _log.exception("claim.failed")
            await asyncio.sleep(_LOOK_S)
            return 0
        for task in tasks:
            metrics.QUEUE_WAIT.observe(max(0.0, (now_utc() - task.not_before).total_seconds()))
            run = self._runs[task.id] = RunningTask(task, self._queue.lease_s)
            run.doing = asyncio.create_task(self._run(run), name=f"task.{task.id}")
        return len(tasks)

    async def _beat(self) -> None:
        """Keep the leases, learn of cancellations, and stop what is another's by now."""
        every_s = self._queue.lease_s / 4
        with self._notices.listening(CANCEL) as rung:
            while True:
                await wait(rung, every_s)
                rung.clear()
                await self._beat_once()

    async def _beat_once(self) -> None:
        if not self._runs:
            return
        held = dict(self._runs)
        asked_at = time.monotonic()
        try:
            heartbeats = {b.task_id: b for b in await self._queue.beat(self.name, [r.task for r in held.values()])}
        except Exception as error:
            if not isinstance(error, Unavailable):
                # A bug must not end what keeps the leases: the next beat may succeed.
                _log.exception("beat.failed")
            for run in held.values():
                if asked_at > run.kept_until:
                    run.lost = True
                    run.stop()
            return
        for task_id, run in held.items():
            beat = heartbeats.get(task_id)
            if beat is None:
                run.lost = True
                run.stop()
                continue
            run.kept_until = asked_at + self._queue.lease_s
            if beat.cancel and not run.cancel_asked:
                run.cancel_asked = True
                run.stop()

    async def _run(self, run: RunningTask) -> None:
        task = run.task
        metrics.RUNNING.inc()
        started = time.monotonic()
        span = tracing.working("run task", task.traceparent)
        try:
            await self._do(run)
        except LeaseLost:
            _log.info("task.lost", task=task.id)
        except Exception:
            _log.exception("task.crashed", task=task.id)
        finally:
            metrics.RUNNING.dec()
            metrics.RUN_TIME.observe(time.monotonic() - started)
            if span is not None:
                span.note({"moa.task": task.id, "moa.attempt": task.attempts})
                span.end(run.failure)
            self._runs.pop(task.id, None)
            self._freed.set()
            self._notices.notify(QUEUE)

    async def _do(self, run: RunningTask) -> None:
        task = run.task
        lock = WorkerLock(self._database, task)
        try:
            async with asyncio.timeout(_left_s(task.deadline)):
                await self._work.do(task)
            metrics.ENDED.labels("succeeded").inc()
        except TimeoutError:
            run.failure = "deadline_exceeded"
            await self._fail(lock, DeadlineExceeded("the task did not end before its deadline"))
        except MoaError as error:
            run.failure = errors.word(error.reason)
            await self._failed(lock, error)
        except asyncio.CancelledError:
            run.failure = "cancelled"
            if run.lost:
                raise LeaseLost(task.id) from None
            current = asyncio.current_task()
            if current is not None:
                current.uncancel()
            await self._stopped(lock, run)
        except LeaseLost:
            raise
        except Exception:
            run.failure = "internal"
            _log.exception("task.failed", task=task.id)
            await self._fail(lock, Internal(f"internal error (task {task.id})"))

    async def _failed(self, lock: WorkerLock, error: MoaError) -> None:
        """Put a task back whose failure may pass; fail it otherwise, or when it was tried often enough."""
        task = lock.claimed
        if not retry.is_worthwhile(error, task.attempts, self._attempts):
            await self._fail(lock, error)
            return
        pause_s = retry.pause_s(error, task.attempts, self._retry_s)
        await self._put_back(lock, error.message, pause_s)
        metrics.RETRIED.labels(errors.word(error.reason)).inc()

    async def _stopped(self, lock: WorkerLock, run: RunningTask) -> None:
        if not run.cancel_asked:
            await self._put_back(lock, _STOPPING, 0.0, counted=False)
            return

        async def cancel() -> None:
            async with lock.change() as task:
                task.cancel(now_utc())

        await steadily(cancel)
        metrics.ENDED.labels("cancelled").inc()

    async def _put_back(self, lock: WorkerLock, why: str, pause_s: float, *, counted: bool = True) -> None:
        async def put_back() -> None:
            async with lock.change() as task:
                task.put_back(why, now_utc(), pause_s=pause_s, counted=counted)

        await steadily(put_back)

    async def _fail(self, lock: WorkerLock, error: MoaError) -> None:
        async def fail() -> None:
            async with lock.change() as task:
                task.fail(error, now_utc())

        await steadily(fail)
        metrics.ENDED.labels("failed").inc()


def _left_s(deadline: datetime) -> float:
    return max(0.0, (deadline - now_utc()).total_seconds())
