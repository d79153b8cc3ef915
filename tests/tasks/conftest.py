"""What the tests of tasks share: a migrated database, and tasks in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta

import pytest

from deploy.local.database import Database as Postgres
from moa.image.v1 import image_service_pb2
from moa.task.v1 import task_pb2
from services.common.clock import now_utc
from services.tasks.adapters.database import Database
from services.tasks.domain.task import Task, new_id
from services.tasks.migrate import SCHEMA
from tests.auth.conftest import Auth, started
from tests.databases import books, copied
from tests.emulators.receiver import Receiver
from tests.tasks.paying import PRICE, pool_of
from tests.tasks.system import System

Make = Callable[..., Task]

IMAGE = task_pb2.TaskWork(image=image_service_pb2.GenerateImageRequest(prompt="a red circle"))


@pytest.fixture(scope="module")
def tasks_url(database: Postgres) -> str:
    """Return the URL of a database with the schema of tasks that this test module alone uses."""
    return copied(database, SCHEMA)


@pytest.fixture
async def tasks_database(tasks_url: str) -> AsyncIterator[Database]:
    """Return a pool on an empty, migrated database."""
    pool = pool_of(tasks_url)
    await pool.open()
    async with pool.transaction() as link:
        await link.execute(
            "truncate tasks.tasks, tasks.events, tasks.objects, tasks.spool, tasks.accounts, tasks.quota_outbox, "
            "tasks.deliveries, tasks.webhook_keys, tasks.message_batches cascade"
        )
        await link.execute("truncate tasks.credit_entries, tasks.credits_to_carry")
    yield pool
    await pool.close()


@pytest.fixture(scope="module")
def auth_url(database: Postgres) -> str:
    """A database of auth's own: what crosses to it crosses databases."""
    return books(database)


@pytest.fixture
async def auth(auth_url: str) -> AsyncIterator[Auth]:
    running = await started(auth_url)
    yield running
    await running.stack.aclose()


@pytest.fixture
async def payer(auth: Auth) -> tuple[str, str, str]:
    """An account with ten prices in credits; its id, its key's id and the key."""
    account, key_id, key = await auth.account()
    await auth.accounts.add_credits(account, 10 * PRICE, reference="paid", actor="console")
    return account, key_id, key


@pytest.fixture
def make() -> Make:
    """Return a maker of new tasks."""

    def made(account: str = "acc", *, price_micros: int = 0, deadline_s: float = 60, **known: object) -> Task:
        now = now_utc()
        task = Task(
            id=new_id(),
            account_id=account,
            key_id=f"key-{account}",
            dialect="native",
            provider="local-image",
            model="moa-tiny-image",
            work=IMAGE.SerializeToString(),
            created_at=now,
            not_before=now,
            deadline=now + timedelta(seconds=deadline_s),
            price_micros=price_micros,
            **known,  # type: ignore[arg-type]
        )
        task.create()
        return task

    return made


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """Return a webhook receiver that the system may call."""
    with Receiver() as running:
        yield running


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[System]:
    """Return the whole task path as processes."""
    environment = {
        "MOA_EGRESS_ALLOW": f"127.0.0.1:{receiver.port}",
        "MOA_WEBHOOK_PAUSES_S": "[0.2, 0.2, 0.2]",
        "MOA_TASK_WORKERS": "8",
        "MOA_TASK_PER_ACCOUNT": "8",
        # A process that was killed is back when the machine lets it: each try meanwhile counts.
        "MOA_TASK_ATTEMPTS": "12",
    }
    with System(tmp_path_factory.mktemp("system"), environment=environment) as running:
        yield running
