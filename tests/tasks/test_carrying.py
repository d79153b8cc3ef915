"""Credits that were counted by the task service before, on their way into the quota ledger."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from deploy.local.database import Database as Postgres
from moa.quota.v1 import quota_pb2, quota_service_pb2, quota_service_pb2_grpc
from services.common.errors import MoaError, NoCredit, Unavailable
from services.common.rpc.server import Server
from services.tasks.adapters import records
from services.tasks.adapters.database import Database
from services.tasks.adapters.quota import Quota
from services.tasks.adapters.tasks import Tasks
from services.tasks.domain.task import CANCELLED, Task
from services.tasks.migrate import SCHEMA, migrate
from tests.auth.asking import TOKEN
from tests.auth.conftest import Auth
from tests.databases import copied
from tests.killing import killed_at
from tests.tasks.conftest import Make
from tests.tasks.paying import PRICE, balanced, books, held, succeeded, used

BEFORE = "0004"
# As the release before writes them.
_KNOW = (
    "insert into tasks.accounts (account_id, granted_micros) values (%s, 1000) on conflict (account_id) do update"
    " set granted_micros = excluded.granted_micros"
)
_COLUMNS = [name for name in records.ALL if name not in ("in_ledger", "price_unknown", "tags")]
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


@pytest.fixture
def before(database: Postgres) -> str:
    """A database of tasks of the release before."""
    return copied(database, SCHEMA, BEFORE)


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


async def carried(quota: Quota, url: str) -> None:
    """Carry over until nothing is left."""
    with psycopg.connect(url, autocommit=True) as link:
        while link.execute("select 1 from tasks.credits_to_carry").fetchone():
            assert await quota.carry()


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
    changing = f"from services.tasks.migrate import migrate; migrate({before!r})"
    killed_at(changing, before, "tasks.credit_entries", mode="share row exclusive")
    with psycopg.connect(before) as link:
        assert link.execute("select version_num from tasks.alembic_version").fetchall() == [(BEFORE,)]
        more = make(account, price_micros=PRICE)
        more.key_id = key_id
        created_before(link, more)
    migrate(before)
    code = _CARRY.format(url=before, address=auth.address, token=TOKEN)
    await asyncio.to_thread(killed_at, code, before, "tasks.credits_to_carry", mode="share")
    assert books(auth, account) == (2 * PRICE, 5 * PRICE)
    async with used(before, auth.address) as (_, quota):
        await carried(quota, before)
    assert books(auth, account) == (2 * PRICE, 5 * PRICE)
    await balanced(auth)
