"""The loop that every engine runs in, with a kind of engine that counts."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import REGISTRY

from inference import queue
from inference.engine import Engine
from inference.fair import Flow
from inference.job import Failed, Job
from services.common import errors


@dataclass(slots=True, eq=False)
class Count(Job[str]):
    """Counts up to a number."""

    upto: int
    number: int = 0
    at: int = 0
    events: list[Any] = field(default_factory=list)


class Counts(queue.Queue[Count, Count, Count]):
    """Two places."""

    def __init__(self) -> None:
        super().__init__("counter", max_waiting=4)
        self.running: list[Count] = []
        self.taken: list[list[Count]] = []

    @property
    def running_count(self) -> int:
        return len(self.jobs()) - self.waiting_count

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.running)

    def jobs(self) -> Collection[Count]:
        return [*itertools.chain.from_iterable(self.waiting.values()), *self.running]

    def add(self, job: Count) -> None:
        self._let_in(job.flow, [job], active=self.active(), credit=1, wait_s=lambda: 7.0)

    def withdraw(self, job: Count) -> None:
        self._keep(job.flow, lambda other: other is not job)

    def drop(self, job: Count) -> None:
        self.withdraw(job)
        self.running = [other for other in self.running if other is not job]

    def admit(self) -> list[Count]:
        entering = []
        while self.waiting and len(self.running) < 2:
            entering.append(self._take(self._fairest()))
            self.running.append(entering[-1])
        return entering

    def batch(self) -> list[Count]:
        return list(self.running)

    def took(self, batch: list[Count], seconds: float) -> None:
        self.taken.append(batch)


class Counter(Engine[Count, Count, int]):
    """Adds one to each in a step."""

    makes = "count"

    def __init__(self) -> None:
        self.queue = Counts()
        super().__init__("counter", self.queue, size_bytes=0)
        self.resets = 0
        self.closed = False
        self.refuses: Callable[[Count], Exception | None] = lambda job: None
        self.breaks: Exception | None = None
        self.watch: Callable[[], object] = lambda: None

    def _admit(self, entering: list[Count]) -> None:
        for job in entering:
            with self._blaming(job, "begin"):
                error = self.refuses(job)
                if error is not None:
                    raise error

    def _step(self, batch: list[Count]) -> int:
        self.watch()
        if self.breaks is not None:
            raise self.breaks
        return 1

    def _finish(self, batch: list[Count], output: int) -> None:
        for job in batch:
            job.at += output
            if job.at == job.upto:
                self._end(job, "done")

    def _reset(self) -> None:
        self.resets += 1

    def _close(self) -> None:
        self.closed = True


@pytest.fixture
def engine() -> Iterator[Counter]:
    made = Counter()
    yield made
    made.stop()


def put(engine: Counter, upto: int = 2, **fields: Any) -> Count:
    job = Count(upto, **fields)
    engine.submit(job, job.events.append)
    return job


def ended(how: str) -> float:
    return REGISTRY.get_sample_value("moa_engine_ended_total", {"model": "counter", "how": how}) or 0.0


def gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"moa_engine_{name}", {"model": "counter"})


def why(job: Count) -> errors.MoaError:
    (event,) = job.events
    assert isinstance(event, Failed)
    return event.error


def test_jobs_join_and_leave_between_ticks(engine: Counter) -> None:
    """Those that have places go on together; as one ends, the next goes on beside the other, and each ends once."""
    before = ended("finished")
    long, short, third = put(engine, 3), put(engine, 1), put(engine, 2)
    while engine.busy:
        engine.tick()
    assert engine.queue.taken == [[long, short], [long, third], [long, third]]
    assert [job.events for job in (long, short, third)] == [["done"]] * 3
    assert engine.ticks == 3
    assert ended("finished") - before == 3


def test_one_that_fails_fails_alone(engine: Counter) -> None:
    """What a job's own preparation raises ends that job: a known error as it is, another as an internal one."""
    engine.refuses = lambda job: {1: errors.InvalidField("no", param="upto"), 2: ValueError("secret")}.get(job.upto)
    known, unknown, good = put(engine, 1), put(engine, 2), put(engine, 3)
    while engine.busy:
        engine.tick()
    assert isinstance(why(known), errors.InvalidField)
    assert isinstance(why(unknown), errors.Internal)
    assert "secret" not in why(unknown).message
    assert good.events == ["done"]


def test_a_step_that_fails_ends_what_is_there_and_the_loop_goes_on(engine: Counter) -> None:
    """Everything that waits or runs is told of an internal error, state is reset, and the next job is served."""
    engine.breaks = RuntimeError("secret")
    lost = [put(engine) for _ in range(3)]
    engine.start()
    assert engine.wait_idle(60)
    assert all(isinstance(why(job), errors.Internal) and "secret" not in why(job).message for job in lost)
    assert engine.resets == 1
    engine.breaks = None
    served = put(engine)
    assert engine.wait_idle(60)
    assert served.events == ["done"]


def test_who_is_late_is_told_and_takes_no_place(engine: Counter) -> None:
    """A job whose deadline passed ends with that, waiting or running; the others have its place in the same tick."""
    late = put(engine, deadline=time.monotonic() - 1)
    good, other = put(engine, 1), put(engine, 1)
    engine.tick()
    assert isinstance(why(late), errors.DeadlineExceeded)
    assert [good.events, other.events] == [["done"]] * 2


def test_who_leaves_is_told_nothing_and_counted_once(engine: Counter) -> None:
    """A cancelled job, waiting or running, emits nothing more, leaves its place, and is counted as cancelled once."""
    before = ended("cancelled"), ended("finished")
    running, _, waiting = put(engine, 9), put(engine, 1), put(engine, 9)
    engine.tick()
    for job in (running, waiting):
        engine.cancel(job)
        engine.cancel(job)
    after = put(engine, 1)
    while engine.busy:
        engine.tick()
    engine.cancel(after)
    assert [running.events, waiting.events, after.events] == [[], [], ["done"]]
    assert (running.at, waiting.at) == (1, 0)
    assert (ended("cancelled") - before[0], ended("finished") - before[1]) == (2, 2)


def test_an_unloaded_engine_fails_what_it_has_and_takes_no_more(engine: Counter) -> None:
    """Stopping ends what waits and runs as unavailable, with a time; so does asking afterwards."""
    jobs = [put(engine, 1 << 60) for _ in range(3)]
    engine.start()
    engine.stop()
    for job in jobs:
        assert isinstance(why(job), errors.Unavailable)
        assert why(job).retry_after_s == 1
    assert engine.closed
    with pytest.raises(errors.Unavailable):
        put(engine)


def test_what_waits_and_runs_is_told_in_a_step_and_when_nothing_does(engine: Counter) -> None:
    """The gauges are of the step that is taken, and zero once all is done, though nobody comes after."""
    seen: list[tuple[float | None, float | None]] = []
    engine.watch = lambda: seen.append((gauge("waiting"), gauge("running")))
    jobs = [put(engine, 1) for _ in range(3)]
    engine.start()
    assert engine.wait_idle(60)
    assert all(job.events == ["done"] for job in jobs)
    assert seen == [(1, 2), (0, 1)]
    assert (gauge("waiting"), gauge("running")) == (0, 0)


def test_a_flow_that_fills_its_room_is_refused_with_a_time(engine: Counter) -> None:
    """A flow has so many waiting; one more is refused, others are let in, and the fairest goes first."""
    flood = [put(engine, 1, flow=Flow("flood")) for _ in range(4)]
    with pytest.raises(errors.QueueFull) as caught:
        put(engine, flow=Flow("flood"))
    assert caught.value.retry_after_s == 7
    light = put(engine, 1, flow=Flow("light"))
    engine.queue.shares.charge(Flow("flood"), 10)
    engine.tick()
    assert [job.events for job in (light, flood[0], flood[1])] == [["done"], ["done"], []]


async def test_the_result_of_a_job_with_one_event_is_awaited(engine: Counter) -> None:
    """`result` returns the event, raises what the job failed with, and withdraws the job of a caller who leaves."""
    engine.refuses = lambda job: errors.InvalidField("no", param="upto") if job.upto == 1 else None
    left = Count(9)
    leaving = asyncio.create_task(engine.result(left))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    engine.start()
    assert await engine.result(Count(2)) == "done"
    with pytest.raises(errors.InvalidField):
        await engine.result(Count(1))
    assert left.at == 0
