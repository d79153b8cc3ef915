"""Where no task is open, nothing is looked for: what begins is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from structlog.testing import capture_logs

from services.common.clock import now_utc
from services.common.store import Links
from services.tasks.adapters.database import OWED, QUEUE, REST_S, WEBHOOKS, Database, Listener, Notices
from services.tasks.adapters.outbox import Outbox
from services.tasks.adapters.queue import Queue
from services.tasks.adapters.tasks import Tasks
from services.tasks.keeper import Keeper
from services.tasks.webhooks.deliverer import Deliverer
from services.tasks.worker.worker import Worker
from tests.tasks.conftest import Make

NOBODY: Any = None


class Duties:
    """A queue and a quota that note what is asked of them."""

    lease_s = 0.03

    def __init__(self) -> None:
        self.open: dict[int, int] = {}
        self.counted = asyncio.Event()
        self.done = {name: asyncio.Event() for name in ("sweep", "renew", "flush")}
        self.owed = 0

    async def depth(self) -> dict[int, int]:
        self.counted.set()
        return self.open

    async def sweep(self) -> int:
        self.done["sweep"].set()
        return 0

    async def renew(self) -> int:
        self.done["renew"].set()
        return 0

    async def flush(self) -> int:
        self.done["flush"].set()
        return 0

    async def owes(self) -> bool:
        return bool(self.owed)


@asynccontextmanager
async def kept(notices: Notices) -> AsyncIterator[Duties]:
    """Yield the duties of a keeper that has looked for the first time."""
    duties: Any = Duties()
    keeper = Keeper(NOBODY, duties, duties, NOBODY, notices, keep_s=60)
    running = asyncio.create_task(keeper.run())
    await duties.counted.wait()
    yield duties
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_open_tasks_are_tended_and_no_others() -> None:
    """A ring begins the sweeps and renewals; once no task is open they end, until the next ring."""
    notices = Notices()
    async with kept(notices) as duties:
        # What was begun before the first count may have come in between.
        await asyncio.sleep(2 * duties.lease_s)
        for done in duties.done.values():
            done.clear()
        await asyncio.sleep(5 * duties.lease_s)
        assert not duties.done["sweep"].is_set()
        assert not duties.done["renew"].is_set()
        duties.open = {1: 1}
        notices.notify(QUEUE)
        await duties.done["sweep"].wait()
        await duties.done["renew"].wait()


async def test_what_is_owed_is_booked_at_a_ring() -> None:
    """An ended task's quota is not waited for until the next look."""
    notices = Notices()
    async with kept(notices) as duties:
        await duties.done["flush"].wait()
        duties.done["flush"].clear()
        while not duties.done["flush"].is_set():
            # It listens once its pause between two batches is over.
            notices.notify(OWED)
            await asyncio.sleep(0)


async def test_a_worker_looks_often_only_while_a_task_waits(tasks_database: Database, make: Make) -> None:
    """Nothing tells that a waiting task's time has come; that one was created is told."""
    queue = Queue(tasks_database, per_account=1, lease_s=30, attempts=3)
    worker = Worker(tasks_database, queue, NOBODY, Notices(), room=1, attempts=3, retry_s=1)
    assert await worker.pause_s() == REST_S
    await Tasks(tasks_database).create(make())
    assert await worker.pause_s() == 1.0


async def test_a_deliverer_waits_for_the_next_delivery(tasks_database: Database, make: Make) -> None:
    """As long as there is none it waits for a ring, else until it is due."""
    outbox = Outbox(tasks_database)
    deliverer = Deliverer(
        outbox=outbox,
        tasks=NOBODY,
        views=NOBODY,
        sender=NOBODY,
        secrets=NOBODY,
        notices=Notices(),
        links=Links("", "secret", ttl_s=60),
        pauses_s=(),
        timeout_s=1,
    )
    assert await deliverer.pause_s() == REST_S
    task = await Tasks(tasks_database).create(make(webhook_url="https://example.com", webhook_events=["start"]))
    assert await deliverer.pause_s() == 1.0
    began = time.monotonic()
    async with tasks_database.transaction() as link:
        await link.execute(
            "update tasks.deliveries set next_at = now() + interval '12 s' where task_id = %s", (task.id,)
        )
    pause_s = await deliverer.pause_s()
    # What the machine took is passed of it, to the database's clock.
    assert 11 - (time.monotonic() - began) < pause_s <= 12
    assert now_utc() < task.deadline


async def test_word_of_the_database_rings(tasks_url: str) -> None:
    """A notification rings without anybody looking; a lost connection rings everybody, since it may have lost one."""
    notices = Notices()
    listening = asyncio.create_task(Listener(tasks_url, notices).run())
    with notices.listening(QUEUE) as queue, notices.listening(WEBHOOKS) as webhooks:
        await webhooks.wait()  # it listens
        async with await psycopg.AsyncConnection.connect(tasks_url, autocommit=True) as link:
            for _ in range(3):
                queue.clear()
                await link.execute(f"notify {QUEUE}")
                await queue.wait()
            webhooks.clear()
            await link.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
            await webhooks.wait()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_stores_that_are_apart_are_told(tasks_url: str) -> None:
    """Processes that keep objects elsewhere over one database are told of each other; those that share them are not."""

    async def looked(objects: str) -> asyncio.Task[None]:
        """Have one more process listen; return when it has looked for others, which it does before it hears."""
        notices = Notices()
        listening = asyncio.create_task(Listener(tasks_url, notices, objects=objects).run())
        with notices.listening(QUEUE) as rung:
            await rung.wait()
            rung.clear()
            async with await psycopg.AsyncConnection.connect(tasks_url, autocommit=True) as link:
                await link.execute(f"notify {QUEUE}")
            await rung.wait()
        return listening

    listening = []
    with capture_logs() as lines:
        for objects in ("here", "here", "there"):
            listening.append(await looked(objects))
            told = [line for line in lines if line["event"] == "store.apart"]
            assert len(told) == (objects == "there")
    for each in listening:
        each.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
