"""The engines' loop: one thread, one tick after another, many requests in each.

A tick lets jobs in (`_admit`), takes one step with all that are due in one call of the model (`_step`), and hands out
what came of it (`_finish`). Jobs join and leave between ticks. A kind of engine is these three, and a queue that
decides whose turn it is.
"""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from inference import metrics
from inference.job import Failed, Job
from inference.mailbox import Mailbox
from inference.queue import Queue
from inference.recent import Rates, Recent
from services.common import logs
from services.common.errors import DeadlineExceeded, Internal, MoaError, Unavailable

_log = logs.get("engine")

J = TypeVar("J", bound=Job[Any])
R = TypeVar("R")
O = TypeVar("O")  # noqa: E741  # the output of a step

Report = Callable[[str, float], None]
"""Told the stage of loading and the part that is done, from any thread."""


class Standing(NamedTuple):
    """What an engine has to do and does."""

    waiting: int
    running: int
    work_s: float | None
    """How long both are guessed to take; None where nobody can tell."""
    most_rows: int
    """How many rows a step can carry; 0: it goes by something else."""
    rates: Rates
    steps: int


class Engine(ABC, Generic[J, R, O]):
    """One model at work for many requests at once.

    Type parameters: jobs, the rows of a tick, and what a step gives for all of them.

    Args:
        name: The model's catalogue id, for logs and metrics.
        queue: Its jobs.
        size_bytes: Of the weights.
    """

    makes: ClassVar[str]
    """What a job comes to, in messages."""

    def __init__(self, name: str, queue: Queue[J, Any, R], *, size_bytes: int) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self.ticks = 0
        """Steps that were taken."""
        self.progress = 0
        """A number that grows with every piece of work: what shows that the engine is not stuck."""
        self.recent = Recent()
        self._jobs = queue
        self._waiting = metrics.WAITING.labels(name)
        self._running = metrics.RUNNING.labels(name)
        self._changed = threading.Condition()
        self._stopping = False
        self._idle = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"{self.makes}-{name}", daemon=True)

    @abstractmethod
    def _admit(self, entering: list[J]) -> None:
        """Prepare for their first step the jobs that got a place, or a part of what such jobs need."""

    @abstractmethod
    def _step(self, batch: list[R]) -> O:
        """Take one step with all rows, in one call of the model."""

    @abstractmethod
    def _finish(self, batch: list[R], output: O) -> None:
        """Hand out what a step gave; end the jobs that are done."""

    def _rows(self, batch: list[R]) -> int:
        """Return how many rows of the model's call a batch takes, for metrics."""
        return len(batch)

    def _reset(self) -> None:
        """Forget what a tick that failed may have left behind."""

    def _close(self) -> None:
        """Free what the loop needed; it has ended."""

    def warm(self, report: Report) -> None:
        """Run what the first requests would otherwise wait for; called before `start`."""

    def start(self) -> None:
        """Start the loop's thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the loop; what waits or runs fails as unavailable."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        self._close()

    def submit(self, job: J, emit: Callable[[Any], None]) -> None:
        """Queue a job; its events go to `emit`, from the engine's threads. Raises QueueFull."""
        job.emit = emit
        with self._changed:
            if self._stopping:
                raise Unavailable("the model is being unloaded; try again", retry_after_s=1)
            self._jobs.add(job)
            self._idle.clear()
            self._changed.notify()

    async def result(self, job: J) -> Any:
        """Submit a job that has one event, and return that; cancelled, the job is too. Raises what it failed with."""
        mailbox: Mailbox[Any] = Mailbox()
        self.submit(job, mailbox.put)
        try:
            (event,) = await mailbox.take()
        finally:
            self.cancel(job)
        if isinstance(event, Failed):
            raise event.error
        return event

    def cancel(self, job: J) -> None:
        """End a job within one step; nothing more is emitted. No effect once it is over."""
        with self._changed:
            if not job.live:
                return
            job.cancelled = True
            self._jobs.withdraw(job)
            metrics.ENDED.labels(self.name, "cancelled").inc()
            self._changed.notify()

    def jobs(self) -> list[J]:
        """Return the jobs that wait or run."""
        with self._changed:
            return list(self._jobs.jobs())

    def standing(self) -> Standing:
        """Return what the engine has to do and does."""
        with self._changed:
            queue = self._jobs
            waiting, running, work_s = queue.waiting_count, queue.running_count, queue.work_s()
        return Standing(waiting, running, work_s, queue.most_rows, self.recent.rates(), self.ticks)

    @property
    def busy(self) -> bool:
        """Whether anything waits or runs."""
        return self._jobs.busy

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing waits or runs; tell whether that came true in time."""
        return self._idle.wait(timeout_s)

    def tick(self) -> None:
        """Let jobs in, and take one step with those that are due."""
        with self._changed:
            late = self._jobs.sweep(time.monotonic())
            entering = self._jobs.admit()
        for job in late:
            self._fail(job, DeadlineExceeded(f"the deadline passed before the {self.makes} was done"))
        self._admit(entering)
        with self._changed:
            batch = self._jobs.batch()
            self._count()
        if batch:
            self._finish(batch, self._measured(batch))

    def _measured(self, batch: list[R]) -> O:
        """Take a step, and note how long it took."""
        started = time.perf_counter()
        output = self._step(batch)
        took = time.perf_counter() - started
        self.ticks += 1
        self.progress += 1
        self._jobs.took(batch, took)
        metrics.TICKS.labels(self.name).inc()
        rows = self._rows(batch)
        self.recent.add(rows, took)
        metrics.ROWS.labels(self.name).inc(rows)
        metrics.TICK_SECONDS.labels(self.name).observe(took)
        return output

    def _loop(self) -> None:
        while self._wait_for_work():
            try:
                self.tick()
            except Exception:
                _log.exception("engine.tick_failed", model=self.name)
                self._reset()
                self._fail_all(Internal(f"the model failed while it made the {self.makes}"))
        self._fail_all(Unavailable("the model was unloaded; try again", retry_after_s=1))
        self._count()

    def _wait_for_work(self) -> bool:
        """Wait until there is work; return False at the end."""
        with self._changed:
            while not self._stopping and not self._jobs.busy:
                # Nobody may come for long, and only a tick would count again.
                self._count()
                self._idle.set()
                self._changed.wait()
            self._idle.clear()
            return not self._stopping

    def _count(self) -> None:
        self._waiting.set(self._jobs.waiting_count)
        self._running.set(self._jobs.running_count)

    def _end(self, job: J, event: object, how: str = "finished") -> None:
        """End a job with its last event, once; from any of the engine's threads."""
        with self._changed:
            self._jobs.drop(job)
            if not job.live:
                return
            job.over = True
            metrics.ENDED.labels(self.name, how).inc()
            job.emit(event)

    def _fail(self, job: J, error: MoaError) -> None:
        self._end(job, Failed(error), "failed")

    def _fail_all(self, error: MoaError) -> None:
        for job in self.jobs():
            self._fail(job, error)

    @contextlib.contextmanager
    def _blaming(self, job: J, doing: str) -> Iterator[None]:
        """Fail one job alone with what the body raises."""
        try:
            yield
        except MoaError as error:
            self._fail(job, error)
        except Exception:
            _log.exception("engine.job_failed", model=self.name, doing=doing)
            self._fail(job, Internal(f"the model failed while it made the {self.makes}"))
