"""The queue and the log, against the real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from moa.task.v1 import task_pb2
from services.common import clock
from services.common.clock import now_utc
from services.common.errors import Conflict, IdempotencyKeyReused, NotFound, QueueFull, Unavailable
from services.tasks.adapters.database import Database
from services.tasks.adapters.queue import Queue, WorkerLock
from services.tasks.adapters.tasks import Tasks
from services.tasks.domain.task import CANCELLED, FAILED, PENDING, SUBMITTED, SUCCEEDED, LeaseLost, Task
from tests.tasks.conftest import Make


def queue_of(database: Database, *, per_account: int = 2, lease_s: float = 30, attempts: int = 3) -> Queue:
    return Queue(database, per_account=per_account, lease_s=lease_s, attempts=attempts)


async def expire(database: Database) -> None:
    async with database.transaction() as link:
        await link.execute("update tasks.tasks set leased_until = now() - interval '1 s' where state in (2, 3)")


async def events(tasks: Tasks, task_id: str) -> list[str | None]:
    return [event.WhichOneof("event") for event in await tasks.events(task_id, 0)]


async def test_two_claimers_never_take_the_same_task(tasks_database: Database, make: Make) -> None:
    """Twenty claimers at once take each of forty tasks exactly once."""
    tasks, queue = Tasks(tasks_database), queue_of(tasks_database, per_account=100)
    made = {(await tasks.create(make())).id for _ in range(40)}
    taken = await asyncio.gather(*(queue.claim(f"w{n}", 3) for n in range(20)))
    counted = Counter(task.id for batch in taken for task in batch)
    assert set(counted) == made
    assert set(counted.values()) == {1}


async def test_an_account_with_a_thousand_tasks_does_not_starve_another(tasks_database: Database, make: Make) -> None:
    """Accounts take turns, and none runs more than its limit."""
    tasks, queue = Tasks(tasks_database), queue_of(tasks_database, per_account=2)
    for _ in range(30):
        await tasks.create(make("greedy"))
    for name in ("second", "third"):
        await tasks.create(make(name))
    first = await queue.claim("w", 3)
    assert Counter(task.account_id for task in first) == {"greedy": 1, "second": 1, "third": 1}
    more = [task.account_id for task in await queue.claim("w", 10)]
    assert more == ["greedy"]
    assert await queue.claim("w", 10) == []


async def test_a_vanished_workers_task_goes_to_another_and_its_late_words_are_void(
    tasks_database: Database, make: Make
) -> None:
    """A lease that ends puts the task back; the first worker's writes raise LeaseLost; it ends once."""
    tasks, queue = Tasks(tasks_database), queue_of(tasks_database)
    created = await tasks.create(make())
    [first] = await queue.claim("one", 1)
    await expire(tasks_database)
    assert await queue.sweep() == 1
    [second] = await queue.claim("two", 1)
    assert second.attempts == 2
    with pytest.raises(LeaseLost):
        async with WorkerLock(tasks_database, first).change() as task:
            task.begin("p", "m", now_utc())
    assert await queue.beat("one", [first]) == []
    assert [beat.task_id for beat in await queue.beat("two", [second])] == [created.id]
    mine = WorkerLock(tasks_database, second)
    async with mine.change() as task:
        task.begin("p", "m", now_utc())
    await mine.succeed()
    with pytest.raises(LeaseLost):
        await mine.succeed()
    assert await events(tasks, created.id) == [
        "created",
        "submitted",
        "requeued",
        "submitted",
        "started",
        "succeeded",
    ]


@pytest.mark.parametrize("off_s", [300, -300])
async def test_a_worker_whose_clock_is_off_keeps_its_task(
    tasks_url: str, tasks_database: Database, make: Make, monkeypatch: pytest.MonkeyPatch, off_s: int
) -> None:
    """Five minutes ahead or behind: no other worker takes its task while it is held."""
    queue = queue_of(tasks_database)
    off = clock.SharedClock(wall=lambda: datetime.now(UTC) + timedelta(seconds=off_s))
    for module in ("services.common.clock", "services.common.database", "services.tasks.adapters.queue"):
        monkeypatch.setattr(f"{module}.CLOCK", off)
    assert abs((now_utc() - datetime.now(UTC)).total_seconds()) > 200
    database = Database(tasks_url)
    await database.open()
    try:
        async with database.transaction():
            pass
        created = await Tasks(database).create(make())
        [mine] = await queue_of(database).claim("off", 1)
        assert mine.id == created.id
        assert await queue.sweep() == 0
        assert [beat.task_id for beat in await queue.beat("off", [mine])] == [created.id]
        async with database.transaction() as link:
            found = await link.execute(
                "select extract(epoch from deadline - now())::float8 from tasks.tasks where id = %s", (created.id,)
            )
            row = await found.fetchone()
        assert row is not None
        assert 0 < row[0] <= 60
    finally:
        await database.close()


async def test_a_vanished_workers_task_is_before_those_that_came_later(tasks_database: Database, make: Make) -> None:
    """Whoever was there first is taken up first again, however many came meanwhile."""
    tasks, queue = Tasks(tasks_database), queue_of(tasks_database, per_account=1)
    first = await tasks.create(make())
    await queue.claim("one", 1)
    for _ in range(3):
        await tasks.create(make())
    await expire(tasks_database)
    assert await queue.sweep() == 1
    assert [task.id for task in await queue.claim("two", 1)] == [first.id]


async def test_a_task_that_kills_its_workers_fails_in_the_end(tasks_database: Database, make: Make) -> None:
    """After its attempts are used up, a task fails instead of going round for ever."""
    tasks, queue = Tasks(tasks_database), queue_of(tasks_database, attempts=2)
    created = await tasks.create(make())
    for _ in range(2):
        await queue.claim("w", 1)
        await expire(tasks_database)
        await queue.sweep()
    found = await tasks.get("acc", created.id)
    assert found.state == FAILED
    assert (await events(tasks, created.id))[-1] == "failed"


async def test_a_deadline_ends_a_waiting_task(tasks_database: Database, make: Make) -> None:
    """A task that nobody took up by its deadline fails and says so."""
    tasks, queue = Tasks(tasks_database), queue_of(tasks_database)
    created = await tasks.create(make(deadline_s=-1))
    assert await queue.sweep() == 1
    found = await tasks.get("acc", created.id)
    assert found.state == FAILED
    assert found.error is not None
    assert b"deadline" in found.error


async def test_an_idempotency_key_gives_the_same_task_or_a_conflict(tasks_database: Database, make: Make) -> None:
    """Twenty creations at once under one key make one task; another request under it is refused."""
    tasks = Tasks(tasks_database)
    made = await asyncio.gather(*(tasks.create(make(idempotency_key="k", fingerprint=b"same")) for _ in range(20)))
    assert len({task.id for task in made}) == 1
    with pytest.raises(IdempotencyKeyReused):
        await tasks.create(make(idempotency_key="k", fingerprint=b"other"))
    other = await tasks.create(make("another", idempotency_key="k", fingerprint=b"other"))
    assert other.id != made[0].id


async def test_cancelling_ends_a_waiting_task_and_tells_a_running_ones_worker(
    tasks_database: Database, make: Make
) -> None:
    """A waiting task ends at once; a running one is marked, and its worker learns of it with its next heartbeat."""
    tasks, queue = Tasks(tasks_database), queue_of(tasks_database)
    waiting = await tasks.create(make())
    assert (await tasks.cancel("acc", waiting.id)).state == CANCELLED
    running = await tasks.create(make())
    [claimed] = await queue.claim("w", 1)
    assert (await tasks.cancel("acc", running.id)).state == SUBMITTED
    [beat] = await queue.beat("w", [claimed])
    assert beat.cancel
    with pytest.raises(NotFound):
        await tasks.cancel("another", running.id)


async def test_the_database_itself_refuses_a_second_end_and_a_changed_log(tasks_database: Database, make: Make) -> None:
    """Whatever code does: a task has one last event, and events are never changed."""
    tasks = Tasks(tasks_database)
    task = await tasks.create(make())
    await tasks.cancel("acc", task.id)
    with pytest.raises(psycopg.errors.UniqueViolation):
        async with tasks_database.transaction() as link:
            await link.execute("insert into tasks.events values (%s, 99, true, '')", (task.id,))
    with pytest.raises(psycopg.errors.RaiseException):
        async with tasks_database.transaction() as link:
            await link.execute("update tasks.events set event = ''")


async def test_too_many_waiting_tasks_are_refused(tasks_database: Database, make: Make) -> None:
    """An account's queue is bounded; nothing is left behind of the refused task."""
    tasks = Tasks(tasks_database, waiting=3)
    for _ in range(3):
        await tasks.create(make())
    with pytest.raises(QueueFull):
        await tasks.create(make())
    found, _ = await tasks.page("acc", size=10)
    assert len(found) == 3


async def test_pages_hold_each_task_once_the_newest_first(tasks_database: Database, make: Make) -> None:
    """Walking the pages gives every task of the account, and none of another's."""
    tasks = Tasks(tasks_database)
    made = [(await tasks.create(make())).id for _ in range(7)]
    await tasks.create(make("another"))
    seen: list[str] = []
    before = None
    while True:
        page, before = await tasks.page("acc", before=before, size=3)
        seen += [task.id for task in page]
        if before is None:
            break
    assert seen == made[::-1]


async def test_a_database_that_is_away_is_unavailable(tasks_url: str) -> None:
    """Callers are told to come again, not what broke."""
    gone = Database(tasks_url.replace("/t_", "/missing_"), size=1, wait_s=0.2)
    await gone.open()
    with pytest.raises(Unavailable):
        await Tasks(gone).get("acc", "ta0")
    await gone.close()


def test_states_are_left_only_along_the_documented_lines(make: Make) -> None:
    """Every transition from every state: allowed where the contract draws a line, refused elsewhere."""
    now = now_utc()
    moves: dict[str, Callable[[Task], None]] = {
        "claim": lambda t: t.claim("w", now, 10),
        "begin": lambda t: t.begin("p", "m", now),
        "put_back": lambda t: t.put_back("lost", now),
        "succeed": lambda t: t.succeed(now),
        "fail": lambda t: t.fail(Unavailable("x"), now),
        "cancel": lambda t: t.cancel(now),
        "advance": lambda t: t.advance(task_pb2.TaskProgress(stage="x"), now),
    }
    allowed: dict[int, set[str]] = {
        PENDING: {"claim", "fail", "cancel"},
        SUBMITTED: {"begin", "put_back", "fail", "cancel", "advance"},
        task_pb2.TASK_STATE_RUNNING: {"begin", "put_back", "succeed", "fail", "cancel", "advance"},
        SUCCEEDED: set(),
        FAILED: set(),
        CANCELLED: set(),
    }
    for state, lines in allowed.items():
        for name, move in moves.items():
            task = make()
            task.state = task_pb2.TaskState.ValueType(state)
            before = task.last_sequence
            if name in lines:
                move(task)
            else:
                with pytest.raises(Conflict):
                    move(task)
                assert task.last_sequence == before
