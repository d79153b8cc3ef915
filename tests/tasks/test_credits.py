"""Credits of tasks in the quota ledger: reserved, settled and returned with images, and what was counted before."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import Mock

import psycopg
import pytest

from deploy.local.database import Database as Postgres
from moa.image.v1 import image_service_pb2
from moa.quota.v1 import quota_pb2, quota_service_pb2, quota_service_pb2_grpc
from services.auth.adapters.checker import Checker
from services.auth.adapters.ledger import Ledger
from services.auth.migrations import migrate as migrate_auth
from services.common import migrations
from services.common.errors import MoaError, NoCredit, Unavailable
from services.common.rpc.client import channel
from services.common.rpc.server import Server
from services.quota_client.amounts import Amount
from services.tasks.adapters import records
from services.tasks.adapters.database import Database, Notices
from services.tasks.adapters.queue import Queue
from services.tasks.adapters.quota import Quota, QuotaHold
from services.tasks.adapters.tasks import Tasks
from services.tasks.adapters.worker_lock import WorkerLock
from services.tasks.domain.task import CANCELLED, Task, now_utc
from services.tasks.migrate import SCHEMA, migrate
from services.tasks.operations import Operations, Order
from tests import shipped, waiting
from tests.auth.asking import TOKEN
from tests.auth.conftest import Auth, started
from tests.tasks.conftest import IMAGE, Make

BEFORE = "0004"
PRICE = 100
# As the release before writes them.
_KNOW = (
    "insert into tasks.accounts (account_id, granted_micros) values (%s, 1000) on conflict (account_id) do update"
    " set granted_micros = excluded.granted_micros"
)
_COLUMNS = [name for name in records.ALL if name != "in_ledger"]
_INSERT = (
    f"insert into tasks.tasks ({', '.join(_COLUMNS)}) values ({', '.join(f'%({name})s' for name in _COLUMNS)})"
    " on conflict do nothing"
)
_HOLD = "update tasks.accounts set held_micros = held_micros + %s where account_id = %s returning 1"
_CLOSE = (
    "update tasks.accounts set held_micros = held_micros - %s, spent_micros = spent_micros + %s where account_id = %s"
)
_END = (
    "update tasks.tasks set state = %(state)s, consumed_micros = %(price)s, ended_at = now(), leased_by = null,"
    " leased_until = null where id = %(id)s"
)
_ENTRY = "insert into tasks.credit_entries (account_id, kind, reference, micros) values (%s, %s, %s, %s)"
_CLAIM = "update tasks.tasks set state = 2, fence = fence + 1, leased_by = 'old', leased_until = now() where id = %s"


def created_before(link: psycopg.Connection[Any], task: Task) -> None:
    """Create a task as the release before does."""
    link.execute(_KNOW, (task.account_id,))
    link.execute(_INSERT.encode(), records.values(task))
    link.execute(_HOLD, (task.price_micros, task.account_id))
    link.execute(_ENTRY, (task.account_id, "hold", task.id, task.price_micros))


def ended_before(link: psycopg.Connection[Any], task: Task, *, charged: bool) -> None:
    """End it as the release before does."""
    link.execute(_END, {"state": 4 if charged else 5, "price": task.price_micros if charged else 0, "id": task.id})
    link.execute(_CLOSE, (task.price_micros, task.price_micros if charged else 0, task.account_id))
    link.execute(_ENTRY, (task.account_id, "charge" if charged else "release", task.id, task.price_micros))


@pytest.fixture(scope="module")
def auth_url(database: Postgres) -> str:
    """A database of auth's own: what crosses to it crosses databases."""
    url = database.create("t_auth_of_task_credits")
    migrate_auth(url)
    return url


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
def before(database: Postgres, request: pytest.FixtureRequest) -> str:
    """A database of tasks of the release before."""
    url = database.create("t_" + re.sub(r"\W", "_", request.node.name)[-50:].lower())
    migrations.upgrade(url, SCHEMA, BEFORE)
    return url


@pytest.fixture
def old(before: str, payer: tuple[str, str, str], make: Make) -> dict[str, Task]:
    """Tasks of the release before: two that were charged, one that was released, and two that are open."""
    account, key_id, _ = payer
    made = {name: make(account, price_micros=PRICE) for name in ("one", "two", "failed", "open", "last")}
    with psycopg.connect(before) as link:
        for task in made.values():
            task.key_id = key_id
            created_before(link, task)
        for name in ("one", "two", "failed"):
            ended_before(link, made[name], charged=name != "failed")
    return made


@asynccontextmanager
async def used(url: str, address: str) -> AsyncIterator[tuple[Database, Quota]]:
    """Yield a pool, and the quota over it."""
    pool, link = Database(url), channel(address)
    await pool.open()
    yield pool, Quota(link, pool, catalogue=shipped.catalogue, service_token=TOKEN)
    await pool.close()
    await link.close()


async def held(quota: Quota, key_id: str, task: Task) -> Task:
    """Reserve what a task needs, as its creation does."""
    hold = await quota.hold(
        provider=task.provider,
        model=task.model,
        images=1,
        image=image_service_pb2.GenerateImageRequest(),
        micro_credits=task.reserved_micros,
        request_id=task.id,
        key_id=key_id,
    )
    task.quota_lease, task.reservation_id = hold.lease_id, hold.reservation_id
    return task


def books(auth: Auth, account: str) -> tuple[int, int]:
    """Return the credits that an account was charged, and what is charged or set aside in all."""
    (charged,) = auth.query(
        "select coalesce(sum(micro_credits), 0)::int from ledger where account_id = %s"
        " and kind in ('settle', 'orphan', 'late')",
        account,
    )
    taken = auth.query("select micro_credits from quota_counters where subject = %s and period = 'total'", account)
    return charged[0], taken[0][0] if taken else 0


async def carried(quota: Quota, url: str) -> None:
    """Carry over until nothing is left."""
    with psycopg.connect(url, autocommit=True) as link:
        while link.execute("select 1 from tasks.credits_to_carry").fetchone():
            assert await quota.carry()


async def balanced(auth: Auth) -> None:
    assert not (await Checker(auth.url).check(whole=True)).faults


async def succeeded(pool: Database, task: Task) -> None:
    """Let a worker end a task well, with one output."""
    (claimed,) = await Queue(pool, per_account=9, lease_s=30, attempts=3).claim("w", 1)
    assert claimed.id == task.id
    lock = WorkerLock(pool, claimed)
    async with lock.change() as changed:
        changed.begin("p", "m", now_utc())
    async with pool.transaction() as link:
        await link.execute("insert into tasks.objects values (%s, %s, 'output', 0, '')", (task.id, task.id))
    await lock.succeed()


async def test_a_tasks_price_is_charged_once_when_it_succeeds_and_is_free_again_when_it_does_not(
    auth: Auth, payer: tuple[str, str, str], tasks_database: Database, tasks_url: str, make: Make
) -> None:
    """It is set aside with its images, in one reservation; what the outbox sends twice is booked once."""
    account, key_id, _ = payer
    async with used(tasks_url, auth.address) as (pool, quota):
        tasks = Tasks(pool)
        done = await tasks.create(await held(quota, key_id, make(account, price_micros=4 * PRICE)))
        await succeeded(pool, done)
        ended = await tasks.create(await held(quota, key_id, make(account, price_micros=6 * PRICE)))
        with pytest.raises(NoCredit, match="not enough credits"):
            await held(quota, key_id, make(account, price_micros=1))
        await tasks.cancel(account, ended.id)
        async with pool.transaction() as link:
            rows = await (await link.execute("select * from tasks.quota_outbox")).fetchall()
        assert await quota.flush() == 2
        async with pool.transaction() as link, link.cursor() as cursor:
            await cursor.executemany("insert into tasks.quota_outbox values (%s, %s, %s, %s, %s)", rows)
        assert await quota.flush() == 2
        assert books(auth, account) == (4 * PRICE, 4 * PRICE)
        await held(quota, key_id, make(account, price_micros=6 * PRICE))
    await balanced(auth)


class _Overtaken(Quota):
    """Quota of which another request takes the last, just before this one asks."""

    def __init__(self, before: Callable[[], Awaitable[Task]]) -> None:
        self._before = before

    async def hold(self, **asked: Any) -> QuotaHold:
        await self._before()
        raise NoCredit("not enough credits")


class _Enough(Quota):
    """Quota of which there is always enough."""

    def __init__(self) -> None:
        """Ask nobody."""

    async def hold(self, **asked: Any) -> QuotaHold:
        return QuotaHold("acc", "key", "", "", Amount())


async def test_a_request_that_is_sent_twice_at_once_gives_its_task_though_credits_are_for_one(
    tasks_database: Database,
) -> None:
    """Who is refused for want of credits finds the task that took them, and no other request's."""
    nobody: Any = None

    def operations(quota: Quota) -> Operations:
        return Operations(
            tasks=Tasks(tasks_database),
            admission=nobody,
            quota=quota,
            catalogue=shipped.catalogue,
            notices=Notices(),
            views=nobody,
            targets=nobody,
            deadline_s=60,
        )

    who: Any = Mock(account_id="acc", key_id="key")
    order = Order(work=IMAGE, dialect="native", model="moa-tiny-image", idempotency_key="once")
    first = partial(operations(_Enough()).create, "", who, order, request_id="r")
    second = await operations(_Overtaken(first)).create("", who, order, request_id="r")
    assert second.id == (await first()).id
    for other in (replace(order, idempotency_key=""), replace(order, idempotency_key="another")):
        with pytest.raises(NoCredit):
            await operations(_Overtaken(first)).create("", who, other, request_id="r")


async def test_what_is_made_is_charged_though_its_lease_ended_and_what_is_not_is_reserved_anew(
    auth: Auth, payer: tuple[str, str, str], tasks_database: Database, tasks_url: str, make: Make
) -> None:
    """A task service that was away for too long loses what was set aside: no task succeeds without a charge."""
    account, key_id, _ = payer
    async with used(tasks_url, auth.address) as (pool, quota):
        tasks = Tasks(pool)
        made = await tasks.create(await held(quota, key_id, make(account, price_micros=PRICE, made=True)))
        waits = await tasks.create(await held(quota, key_id, make(account, price_micros=PRICE)))
        with psycopg.connect(auth.url) as link:
            gone = "update blocks set expires_at = now() - interval '1 s' where account_id = %s returning id"
            blocks = [block_id for (block_id,) in link.execute(gone, (account,)).fetchall()]
        await Ledger(auth.postgres, grace_s=0, alive_s=20).expire(blocks)
        assert books(auth, account) == (0, 0)
        assert await quota.renew() == 2
        assert (await tasks.get(account, made.id)).reservation_id == made.reservation_id
        assert (await tasks.get(account, waits.id)).reservation_id is None
        await succeeded(pool, made)
        await quota.flush()
        assert books(auth, account) == (PRICE, PRICE)
    rows = auth.query("select kind, images, micro_credits from ledger where request_id = %s", made.id)
    assert rows == [("late", 1, PRICE)]
    await balanced(auth)


async def test_what_was_counted_before_is_carried_over_before_anything_is_reserved(
    auth: Auth, payer: tuple[str, str, str], before: str, old: dict[str, Task], make: Make
) -> None:
    """Nobody's credits are reserved meanwhile; then as much is left as was, and open tasks are charged or released."""
    account, key_id, _ = payer
    migrate(before)
    async with used(before, auth.address) as (pool, quota):
        with pytest.raises(Unavailable):
            await held(quota, key_id, make(account, price_micros=PRICE))
        await held(quota, key_id, make(account))
        await carried(quota, before)
        assert books(auth, account) == (2 * PRICE, 4 * PRICE)
        tasks = Tasks(pool)
        new = await tasks.create(await held(quota, key_id, make(account, price_micros=6 * PRICE)))
        with pytest.raises(NoCredit):
            await held(quota, key_id, make(account, price_micros=1))
        assert (await tasks.cancel(account, old["last"].id)).state == CANCELLED
        await succeeded(pool, old["open"])
        assert (await tasks.get(account, old["open"].id)).consumed_micros == PRICE
        await carried(quota, before)
        assert books(auth, account) == (3 * PRICE, 9 * PRICE)
        await tasks.cancel(account, new.id)
        await quota.flush()
    assert books(auth, account) == (3 * PRICE, 3 * PRICE)
    used_by = "select distinct key_id from ledger where account_id = %s and kind = 'settle'"
    assert auth.query(used_by, account) == [(key_id,)]
    await balanced(auth)


async def test_the_release_before_goes_on_beside_it(
    auth: Auth, payer: tuple[str, str, str], before: str, old: dict[str, Task], make: Make
) -> None:
    """It ends what it created, creates only what is free, told to try again, and claims nothing of the new release."""
    account, key_id, _ = payer
    migrate(before)
    async with used(before, auth.address) as (pool, quota):
        await carried(quota, before)
        new = await Tasks(pool).create(await held(quota, key_id, make(account, price_micros=PRICE)))
        with psycopg.connect(before) as link:
            created_before(link, make("another"))
            link.execute("delete from tasks.credits_to_carry")
            link.execute(_CLAIM, (old["open"].id,))
            ended_before(link, old["open"], charged=True)
            ended_before(link, old["last"], charged=False)
        with psycopg.connect(before) as link, pytest.raises(psycopg.errors.CannotConnectNow):
            created_before(link, make(account, price_micros=PRICE))
        with psycopg.connect(before) as link, pytest.raises(psycopg.errors.CheckViolation):
            link.execute(_CLAIM, (new.id,))
        await carried(quota, before)
    assert books(auth, account) == (3 * PRICE, 4 * PRICE)
    await balanced(auth)


async def test_an_entry_that_cannot_be_booked_keeps_no_other_back(
    auth: Auth, payer: tuple[str, str, str], before: str, old: dict[str, Task]
) -> None:
    """All others are carried over; nothing is reserved while it is not, for it may hold what is left."""
    account, key_id, _ = payer
    with psycopg.connect(before) as link:
        link.execute(_ENTRY, ("acc", "hold", "bad", 2**62))
        link.execute(_ENTRY, ("acc", "charge", "bad", 2**62))
    with psycopg.connect(auth.url) as link:
        link.execute("create function refuse() returns trigger language plpgsql as 'begin raise exception ''no''; end'")
        link.execute(
            "create trigger refuse before insert on blocks for each row when (new.micro_credits > 1e18)"
            " execute function refuse()"
        )
    migrate(before)
    async with used(before, auth.address) as (pool, quota):
        for _ in range(2):
            await quota.carry()
        assert books(auth, account) == (2 * PRICE, 4 * PRICE)
        async with pool.transaction() as link_:
            left = await (await link_.execute("select count(*) from tasks.credits_to_carry")).fetchone()
        assert left == (2,)
        with pytest.raises(Unavailable):
            await held(quota, key_id, old["one"])
    with psycopg.connect(auth.url) as link:
        link.execute("drop function refuse cascade")


class _Before(quota_service_pb2_grpc.QuotaServiceServicer):
    """Auth of the release before, as far as tasks ask it: it knows of no credits."""

    def __init__(self) -> None:
        self.returned: list[quota_pb2.LeaseReturn] = []

    async def Admit(self, request: quota_service_pb2.AdmitRequest, context: Any) -> quota_service_pb2.AdmitResponse:
        lease = quota_pb2.Lease(lease_id="lease", amount=quota_pb2.Amount(images=request.need.images))
        return quota_service_pb2.AdmitResponse(grant=quota_pb2.Grant(account_id="acc", key_id="key", lease=lease))

    async def ReturnLeases(
        self, request: quota_service_pb2.ReturnLeasesRequest, context: Any
    ) -> quota_service_pb2.ReturnLeasesResponse:
        self.returned += request.returns
        return quota_service_pb2.ReturnLeasesResponse()


async def test_an_auth_of_the_release_before_gives_no_credits_away(
    tasks_database: Database, tasks_url: str, make: Make
) -> None:
    """What costs credits is refused for the moment, and its images are free again; what costs none is created."""
    servicer = _Before()  # type: ignore[abstract]
    server = Server(service_token=TOKEN)
    quota_service_pb2_grpc.add_QuotaServiceServicer_to_server(servicer, server.grpc)
    port = await server.start("127.0.0.1:0")
    async with used(tasks_url, f"127.0.0.1:{port}") as (_, quota):
        await held(quota, "key", make())
        with pytest.raises(Unavailable):
            await held(quota, "key", make(price_micros=PRICE))
    with psycopg.connect(tasks_url) as link:
        link.execute(_ENTRY, ("acc", "hold", "task", PRICE))
    async with used(tasks_url, f"127.0.0.1:{port}") as (_, quota):
        with pytest.raises(MoaError):
            await quota.carry()
        with pytest.raises(Unavailable):
            await held(quota, "key", make(price_micros=PRICE))
    await server.stop(0)
    assert [piece.amount.images for piece in servicer.returned] == [1]


def _killed(code: str, url: str, locked: str, mode: str) -> None:
    """Run code in a process, and kill it while it waits for a table that this holds."""
    with psycopg.connect(url) as holder:
        holder.execute(f"lock table {locked} in {mode} mode".encode())
        running = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": ":".join(sys.path)})
        waits = f"select count(*) from pg_locks where not granted and relation = '{locked}'::regclass".encode()
        pauses, until = waiting.pauses(), time.monotonic() + 60
        while holder.execute(waits).fetchone() == (0,):
            assert running.poll() is None
            assert time.monotonic() < until
            time.sleep(next(pauses))
        running.send_signal(signal.SIGKILL)
        running.wait()


_CARRY = """
import asyncio
from services.common.rpc.client import channel
from services.common.rpc.server import Server
from services.tasks.adapters.database import Database, Notices
from services.tasks.adapters.quota import Quota, QuotaHold
async def carry():
    pool = Database({url!r})
    await pool.open()
    await Quota(channel({address!r}), pool, catalogue=None, service_token={token!r}).carry()
asyncio.run(carry())
"""


async def test_kills_amid_the_change_and_amid_the_carrying_lose_and_double_nothing(
    auth: Auth, payer: tuple[str, str, str], before: str, old: dict[str, Task], make: Make
) -> None:
    """The change is made whole by whoever starts next; what auth had booked when its teller died is booked once."""
    account, key_id, _ = payer
    _killed(
        f"from services.tasks.migrate import migrate; migrate({before!r})",
        before,
        "tasks.credit_entries",
        "share row exclusive",
    )
    with psycopg.connect(before) as link:
        assert link.execute("select version_num from tasks.alembic_version").fetchall() == [(BEFORE,)]
        more = make(account, price_micros=PRICE)
        more.key_id = key_id
        created_before(link, more)
    migrate(before)
    code = _CARRY.format(url=before, address=auth.address, token=TOKEN)
    await asyncio.to_thread(_killed, code, before, "tasks.credits_to_carry", "share")
    assert books(auth, account) == (2 * PRICE, 5 * PRICE)
    async with used(before, auth.address) as (_, quota):
        await carried(quota, before)
    assert books(auth, account) == (2 * PRICE, 5 * PRICE)
    await balanced(auth)
