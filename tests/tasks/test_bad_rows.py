"""One task, settlement, object or webhook that cannot be worked on stops no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moa.quota.v1 import quota_pb2
from services.common.errors import StorageFailed
from services.common.rpc.client import channel
from services.common.signing import Secrets
from services.common.store import Links
from services.common.store.folder import FolderStore
from services.tasks.adapters.database import Database, Notices
from services.tasks.adapters.outbox import Outbox
from services.tasks.adapters.queue import Queue
from services.tasks.adapters.quota import Quota
from services.tasks.adapters.tasks import Tasks
from services.tasks.domain.task import FAILED, PENDING, SUBMITTED
from services.tasks.keeper import Keeper
from services.tasks.webhooks.deliverer import Deliverer
from tests import shipped
from tests.books import keeping
from tests.tasks.conftest import Make
from tests.tasks.test_keeping import ended_with_output

TOKEN = "token-between-services"


async def asked(database: Database, statement: str, *given: object) -> list[tuple[Any, ...]]:
    async with database.transaction() as link:
        found = await link.execute(statement.encode(), given)
        return await found.fetchall() if found.description else []


async def test_a_task_that_cannot_be_taken_keeps_no_other_back(tasks_database: Database, make: Make) -> None:
    """Workers get the tasks behind it, and are not offered it again at once."""
    tasks, queue = Tasks(tasks_database), Queue(tasks_database, per_account=10, lease_s=30, attempts=3)
    bad, *good = [await tasks.create(make(f"acc{number}")) for number in range(4)]
    # Its log has an event already that it does not know of.
    await asked(tasks_database, "insert into tasks.events values (%s, %s, false, '')", bad.id, bad.last_sequence + 1)
    assert {task.id for task in await queue.claim("w", 10)} == {task.id for task in good}
    assert await queue.claim("w", 10) == []
    states = dict(await asked(tasks_database, "select id, state from tasks.tasks"))
    assert states == {bad.id: PENDING, **{task.id: SUBMITTED for task in good}}


async def test_a_task_that_cannot_be_ended_keeps_no_other_back(tasks_database: Database, make: Make) -> None:
    """Those whose time is over are ended all the same."""
    tasks, queue = Tasks(tasks_database), Queue(tasks_database, per_account=10, lease_s=30, attempts=3)
    bad, *good = [await tasks.create(make(deadline_s=-1)) for _ in range(4)]
    await asked(
        tasks_database,
        "update tasks.tasks set quota_lease = 'l', reservation_id = 'no reservation' where id = %s",
        bad.id,
    )
    assert await queue.sweep() == len(good)
    assert await queue.sweep() == 0
    states = dict(await asked(tasks_database, "select id, state from tasks.tasks"))
    assert states == {bad.id: PENDING, **{task.id: FAILED for task in good}}


async def test_a_settlement_that_cannot_be_read_keeps_no_other_back(tasks_database: Database) -> None:
    """All others of the outbox are booked; it stays, to be tried again later."""
    good = quota_pb2.Settlement(reservation_id="good").SerializeToString()
    for name, message in (("a", b"\xff\xff"), ("b", good), ("c", good)):
        await asked(
            tasks_database,
            "insert into tasks.quota_outbox (task_id, message, settles) values (%s, %s, true)",
            name,
            message,
        )
    ((before,),) = await asked(tasks_database, "select now()")
    async with keeping(TOKEN) as (books, address):
        link = channel(address)
        assert await Quota(link, tasks_database, catalogue=shipped.watched(), service_token=TOKEN).flush() == 2
        await link.close()
    left = "select task_id, attempts, next_at >= %s + interval '1 s' from tasks.quota_outbox"
    assert await asked(tasks_database, left, before) == [("a", 1, True)]
    assert [settlement.reservation_id for settlement in books.settled] == ["good", "good"]


class _Failing(FolderStore):
    """Refuses to delete one object."""

    bad = ""

    async def delete(self, name: str) -> None:
        if name == self.bad:
            raise StorageFailed("no")
        await super().delete(name)


async def test_an_object_that_cannot_be_removed_keeps_no_other_back(
    tasks_database: Database, make: Make, tmp_path: Path
) -> None:
    """The other tasks and their objects go; its task stays until it can go."""
    store = _Failing(tmp_path)
    nobody: Any = None
    queue = Queue(tasks_database, per_account=10, lease_s=30, attempts=3)
    keeper = Keeper(tasks_database, queue, nobody, store, Notices(), keep_s=60)
    ended = [await ended_with_output(tasks_database, store, make()) for _ in range(3)]
    store.bad = ended[0][1]
    await asked(tasks_database, "update tasks.tasks set ended_at = now() - interval '2 h'")
    assert await keeper.clean() == 2
    assert await asked(tasks_database, "select id from tasks.tasks") == [(ended[0][0].id,)]
    await store.aclose()


async def test_a_webhook_that_cannot_be_made_is_tried_less_and_less_often(tasks_database: Database, make: Make) -> None:
    """It waits for its next pause as one whose receiver failed, and is given up in the end."""
    tasks, outbox = Tasks(tasks_database), Outbox(tasks_database)
    task = await tasks.create(make(webhook_url="https://example.com", webhook_events=["completed"]))
    await asked(
        tasks_database,
        "insert into tasks.deliveries (id, task_id, account_id, event, url) values ('m', %s, 'acc', 'completed', 'u')",
        task.id,
    )
    nobody: Any = None
    deliverer = Deliverer(
        outbox=outbox,
        tasks=tasks,
        views=nobody,
        sender=nobody,
        secrets=Secrets("root"),
        notices=Notices(),
        links=Links("", "secret", ttl_s=60),
        pauses_s=[3600.0],
        timeout_s=1,
    )
    for state in (1, 3):
        (delivery,) = await outbox.due(10, lease_s=60)
        await deliverer.deliver(delivery)
        assert await outbox.due(10, lease_s=60) == []
        assert await asked(tasks_database, "select state from tasks.deliveries") == [(state,)]
        await asked(tasks_database, "update tasks.deliveries set next_at = now()")
