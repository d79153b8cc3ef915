"""One row of the books that cannot be worked on stops nothing else, and books that were broken once are healed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import date
from uuid import UUID, uuid4

import psycopg
import pytest
from prometheus_client import REGISTRY
from psycopg import sql

from deploy.local.database import Database
from moa.quota.v1 import quota_pb2
from services.auth.__main__ import make_byok
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.keys import Keys
from services.auth.adapters.ledger import Borrowed, Ledger
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.verified_keys import VerifiedKeys
from services.auth.domain.accounts import Short
from services.auth.domain.ledger import Booking, LeaseIds, Return
from services.auth.domain.pools import Pools
from services.auth.domain.quota import Quota
from services.auth.migrations import SCHEMA, migrate
from services.auth.sweeper import Sweeper
from services.common import byok, migrations
from services.common.isolate import OneFailed
from services.quota_client.amounts import Amount
from tests.auth.asking import PEPPER, audited
from tests.auth.conftest import Auth

_IDS = LeaseIds(PEPPER)


@pytest.fixture
async def auth(migrated: str) -> AsyncIterator[Auth]:
    """The books, which no replica sweeps but those of the test."""
    postgres = Postgres(migrated, size=2, wait_s=20)
    await postgres.open()
    yield Auth(migrated, postgres, Accounts(postgres), Keys(postgres), 0, 0, AsyncExitStack())
    await postgres.close()


async def borrowed(postgres: Postgres, key_id: str, tokens: int = 200, ttl_s: float = 60) -> Borrowed:
    """Borrow a block for a key; with a time below zero it is over at once."""
    (who,) = await VerifiedKeys(postgres).by_ids([key_id])
    amount = Amount(tokens=tokens)
    ledger = Ledger(postgres, grace_s=0, alive_s=20)
    block = await ledger.borrow(who, holder="h", least=amount, need=amount, want=amount, ttl_s=ttl_s)
    assert not isinstance(block, Short)
    return block


def sweeper(postgres: Postgres, now: list[float]) -> Sweeper:
    """A sweeper that is asked for each round, on a clock that the test turns."""
    ledger = Ledger(postgres, grace_s=0, alive_s=20)
    pools = Pools(ledger, _IDS, owner="one", lease_s=20, block_s=60)
    return Sweeper(ledger, pools, {}, every_s=1, rest_s=1, patience_s=0, clock=lambda: now[0])


def settlement(block: UUID, tokens: int) -> quota_pb2.Settlement:
    """A settlement of a reservation that was made within a block."""
    reservation = f"{_IDS.make(block, 1)}.1.{tokens}.0"
    return quota_pb2.Settlement(reservation_id=reservation, charged=quota_pb2.Amount(tokens=tokens))


def failures() -> float:
    """How often a block could not be ended."""
    return REGISTRY.get_sample_value("moa_rows_failed_total", {"duty": "expire"}) or 0


def closed(auth: Auth, account_id: str) -> list[bool]:
    rows = auth.query("select closed_at is not null from blocks where account_id = %s", account_id)
    return [done for (done,) in rows]


async def test_a_sweep_goes_past_a_block_that_cannot_be_ended(auth: Auth) -> None:
    """Everybody else's blocks are ended; the bad one is counted, left alone for a while, and ended once it can be."""
    good, good_key, _ = await auth.account()
    bad, bad_key, _ = await auth.account()
    await borrowed(auth.postgres, bad_key, ttl_s=-2)
    for _ in range(3):
        await borrowed(auth.postgres, good_key, ttl_s=-1)
    with psycopg.connect(auth.url) as link:
        link.execute("update quota_days set tokens = tokens - 100 where subject = %s", (bad,))
    now = [0.0]
    sweeps = sweeper(auth.postgres, now)
    before = failures()
    await sweeps.round()
    assert closed(auth, good) == [True] * 3
    assert auth.taken(good) == (0, 0)
    assert closed(auth, bad) == [False]
    assert failures() == before + 1
    await sweeps.round()
    assert failures() == before + 1
    with psycopg.connect(auth.url) as link:
        link.execute("update quota_days set tokens = tokens + 100 where subject = %s", (bad,))
    now[0] = 6.0
    await sweeps.round()
    assert closed(auth, bad) == [True]
    await audited(auth.url)


async def test_a_locked_row_is_no_database_that_is_away(auth: Auth) -> None:
    """A row that somebody keeps locked fails by itself: what comes next to the database is served."""
    account, _, _ = await auth.account()
    with psycopg.connect(auth.url) as link:
        link.execute("select 1 from accounts where id = %s for update", (account,))

        async def locked() -> None:
            async with auth.postgres.transaction() as ours:
                await ours.execute("set local lock_timeout = 10")
                await ours.execute("select 1 from accounts where id = %s for update", (account,))

        with pytest.raises(OneFailed):
            await locked()
        async with auth.postgres.transaction() as ours:
            await ours.execute("select 1")


async def test_a_bad_settlement_keeps_no_other_back(auth: Auth) -> None:
    """Settlements that come in one call with one that fails are booked; it is neither booked nor refused."""
    ledger = Ledger(auth.postgres, grace_s=0, alive_s=20)
    quota = Quota(VerifiedKeys(auth.postgres), ledger, pepper=PEPPER, lease_s=20, block_s=60)  # type: ignore[arg-type]
    _, good_key, _ = await auth.account()
    bad, bad_key, _ = await auth.account()
    ours, theirs = await borrowed(auth.postgres, good_key), await borrowed(auth.postgres, bad_key)
    fine, broken = settlement(ours.block_id, 100), settlement(theirs.block_id, 100)
    bug = sql.SQL("alter table blocks add constraint a_bug check (settled_tokens = 0 or account_id <> {})")
    with psycopg.connect(auth.url) as link:
        link.execute(bug.format(sql.Literal(bad)))
    try:
        booked, refused, _ = await quota.settle([broken, fine])
    finally:
        with psycopg.connect(auth.url) as link:
            link.execute("alter table blocks drop constraint a_bug")
    assert (booked, refused) == ([fine.reservation_id], [])
    assert (await quota.settle([broken, fine]))[0] == [broken.reservation_id, fine.reservation_id]
    await audited(auth.url)


async def test_callers_with_their_own_key_leave_the_books_balanced(auth: Auth) -> None:
    """What they borrow, spend, return and settle late is counted once for their account and once for its key."""
    await make_byok(auth.url)
    ledger = Ledger(auth.postgres, grace_s=0, alive_s=20)
    first = await borrowed(auth.postgres, byok.KEY_ID)
    late = await borrowed(auth.postgres, byok.KEY_ID, ttl_s=-1)
    booking = [
        Booking(s.reservation_id, s.reservation_id.split(".")[0], block, Amount(tokens=100), s)
        for block in (first.block_id, late.block_id)
        for s in [settlement(block, 100)]
    ]
    await ledger.settle(booking[:1])
    await ledger.give_back([Return(uuid4().hex, first.block_id, Amount(tokens=100))])
    await sweeper(auth.postgres, [0.0]).round()
    assert (await ledger.settle(booking[1:])).booked == [booking[1].reservation_id]
    assert auth.taken(byok.ACCOUNT_ID) == auth.taken(byok.KEY_ID) == (200, 0)
    await audited(auth.url)


@pytest.mark.parametrize(
    "statement",
    [
        "insert into keys (id, account_id, prefix, digest) values (%(account)s, %(account)s, '', '')",
        "update keys set id = account_id where account_id = %(account)s",
        "update accounts set id = 'key_x' where id = %(account)s",
    ],
)
async def test_no_id_has_two_roles(auth: Auth, statement: str) -> None:
    """The database refuses a key that is called as an account is, and an account that is called as a key is."""
    account, _, _ = await auth.account()
    with psycopg.connect(auth.url) as link, pytest.raises(psycopg.errors.CheckViolation):
        link.execute(statement.encode(), {"account": account})


async def test_broken_books_are_healed(database: Database) -> None:
    """A database that counted one id twice, as versions before did, balances once migrated, and sweeps again."""
    url = database.create("t_broken_books")
    migrations.upgrade(url, SCHEMA, "0007")
    innocent, day = _as_it_was(url)
    migrate(url)
    postgres = Postgres(url, size=2, wait_s=20)
    await postgres.open()
    try:
        await sweeper(postgres, [0.0]).round()
    finally:
        await postgres.close()
    found = await audited(url)
    with psycopg.connect(url) as link:
        assert link.execute("select count(*) from blocks where closed_at is null").fetchone() == (0,)
        taken: dict[str, int] = dict(
            link.execute("select subject, tokens from quota_days where day = %s", (day,)).fetchall()
        )
        assert link.execute("select id from keys where account_id = 'byok'").fetchall() == [(byok.KEY_ID,)]
    assert taken == {innocent: 0, "key_innocent": 0, "byok": 30}
    assert found.totals["tokens"]["spent"] == 30


def _as_it_was(url: str) -> tuple[str, date]:
    """Write what 0007's code wrote for callers with their own key, beside an account that has nothing to do with it."""
    with psycopg.connect(url) as link:
        for account, key in (("byok", "byok"), ("acc_innocent", "key_innocent")):
            link.execute(
                "insert into accounts (id, role, tokens_a_day, images_a_day, key_count)"
                " values (%s, 'service', 0, 0, 1)",
                (account,),
            )
            link.execute(
                "insert into keys (id, account_id, prefix, digest) values (%s, %s, '', %s)",
                (key, account, key.encode()),
            )
        day = link.execute("select (now() at time zone 'UTC')::date").fetchone()
        assert day is not None
        _block(link, "byok", "byok", day[0], borrows=100, returns=70)
        _block(link, "byok", "byok", day[0], borrows=50)
        _block(link, "acc_innocent", "key_innocent", day[0], borrows=400)
    return "acc_innocent", day[0]


def _block(link: psycopg.Connection, account: str, key: str, day: date, *, borrows: int, returns: int = 0) -> None:
    """Borrow, settle what does not come back if anything does, and return: a subject that is named twice twice."""
    block = uuid4()
    spent = borrows - returns if returns else 0
    link.execute(
        "insert into blocks (id, account_id, key_id, day, holder, tokens, images, settled_tokens, returned_tokens,"
        " expires_at) values (%s, %s, %s, %s, 'gone', %s, 0, %s, %s, now() - interval '1 hour')",
        (block, account, key, day, borrows, spent, returns),
    )
    for kind, tokens in (("borrow", borrows), ("settle", spent), ("return", returns)):
        if tokens:
            link.execute(
                "insert into ledger (kind, account_id, key_id, day, block_id, reference, tokens, images)"
                " values (%s, %s, %s, %s, %s, %s, %s, 0)",
                (kind, account, key, day, block, f"lease-{block}.1.{borrows}.0", tokens),
            )
    for subject in {account, key}:
        link.execute(
            "insert into quota_days (subject, day, tokens) values (%s, %s, %s)"
            " on conflict (subject, day) do update set tokens = quota_days.tokens + excluded.tokens",
            (subject, day, borrows),
        )
    for subject in (account, key):
        # A later one may take from what this one left; where nothing is left, 0007's sweep failed for good.
        link.execute(
            "update quota_days set tokens = greatest(0, tokens - %s) where subject = %s and day = %s",
            (returns, subject, day),
        )
