"""Old rows of the ledger go, their sums do not: nothing is charged, counted or audited otherwise than before."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pydantic import SecretStr, ValidationError

from deploy.local.database import Database
from moa.account.v1 import admin_service_pb2 as admin_pb
from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.auth import backlogs
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.checker import AUDIT_LOCK, Checker, Findings
from services.auth.adapters.keys import Keys
from services.auth.adapters.ledger import Ledger
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.retention import Retention
from services.auth.adapters.usage import Usage
from services.auth.adapters.verified_keys import VerifiedKeys
from services.auth.domain import keys
from services.auth.domain.accounts import CEILINGS, EVERYTHING, KeyLimits, Short
from services.auth.domain.ledger import Booking, LeaseIds
from services.auth.settings import AuthSettings
from services.quota_client.amounts import Amount, ReservationId
from tests.auth.asking import PEPPER, until
from tests.auth.client import connected
from tests.auth.conftest import Auth, started
from tests.counters import told
from tests.databases import books

DAYS = 40
_EVER = (date(2000, 1, 1), date(2100, 1, 1))


@pytest.fixture
async def auth(database: Database) -> AsyncIterator[Auth]:
    """Books of their own for each test: how far an audit is concerns all of them."""
    url = books(database)
    postgres = Postgres(url, size=2, wait_s=20)
    await postgres.open()
    yield Auth(url, postgres, Accounts(postgres), Keys(postgres), 0, 0, AsyncExitStack())
    await postgres.close()


def retention(auth: Auth) -> Retention:
    return Retention(auth.postgres, Checker(auth.url), days=DAYS)


def aged(auth: Auth, days: int, *, account: str = "%") -> None:
    """Let the rows of an account, and the end of its blocks, be so many days older."""
    with psycopg.connect(auth.url) as link:
        link.execute("set local session_replication_role = replica")
        for table, column in (("ledger", "at"), ("blocks", "closed_at")):
            link.execute(
                f"update {table} set {column} = {column} - make_interval(days => %s) where account_id like %s",
                (days, account),
            )


async def spent(auth: Auth, *, blocks: int = 3, key: str | None = None) -> tuple[str, list[Booking]]:
    """Borrow blocks of 100 tokens, dollars and credits, settle 30 and 20 of each and let them end; give the account
    and the settlements."""
    key_id = key or (await auth.account())[1]
    (who,) = await VerifiedKeys(auth.postgres).by_ids([key_id])
    await auth.accounts.add_credits(who.account_id, 10_000, reference=str(uuid4()), actor="console")
    (who,) = await VerifiedKeys(auth.postgres).by_ids([key_id])
    ledger, ids, made = Ledger(auth.postgres, grace_s=0, alive_s=20), LeaseIds(PEPPER), []
    for _ in range(blocks):
        amount = Amount(100, 1, nano_usd=1000, micro_credits=500)
        block = await ledger.borrow(who, holder="h", least=amount, need=amount, want=amount, ttl_s=0)
        assert not isinstance(block, Short)
        numbers = count(1)
        made += [booking(ids.make(block.block_id, 1), block.block_id, next(numbers), tokens) for tokens in (30, 20)]
    assert len((await ledger.settle(made)).booked) == 2 * blocks
    await until(
        lambda: auth.query("select count(*) from blocks where closed_at is null and expires_at >= now()") == [(0,)]
    )
    await ledger.expire(await ledger.overdue(limit=1000))
    return who.account_id, made


def booking(lease_id: str, block_id: Any, number: int, tokens: int) -> Booking:
    reserved = Amount(tokens=50, nano_usd=500, micro_credits=250)
    name = str(ReservationId(lease_id, str(number), reserved))
    settlement = quota_pb2.Settlement(
        reservation_id=name,
        charged=quota_pb2.Amount(tokens=tokens, nano_usd=tokens * 3, micro_credits=tokens * 2),
        usage=usage_pb2.Usage(prompt_tokens=tokens),
        provider="p",
        model="m",
    )
    return Booking(name, lease_id, block_id, reserved, settlement)


async def audited(auth: Auth) -> list[Findings]:
    """Return what an audit of what is new finds, and one of everything."""
    return [await Checker(auth.url).check(whole=whole) for whole in (False, True)]


async def removed(auth: Auth, keeper: Retention) -> int:
    """Let old rows be removed until none is left; return how many were."""
    before = auth.query("select count(*) from ledger")[0][0]
    more = await keeper.tidy()
    if keeper.audit is not None:
        await keeper.audit
        more = await keeper.tidy()
    while more:
        more = await keeper.tidy()
    return int(before - auth.query("select count(*) from ledger")[0][0])


async def test_only_old_rows_go_and_no_sum_changes(auth: Auth) -> None:
    """Audits find as many rows and as much as before; usage and counters are the same; what is younger is all there."""
    old, _ = await spent(auth)
    aged(auth, DAYS + 1)
    young, _ = await spent(auth, blocks=2)
    aged(auth, DAYS - 1, account=young)
    usage = Usage(auth.postgres)
    before = await audited(auth)
    used = await usage.grouped(old, *_EVER, limit=10)
    assert await usage.complete_since(old) is None
    assert await removed(auth, retention(auth)) == 3 * 4
    after = await audited(auth)
    assert [(found.rows, found.totals, found.faults) for found in after] == [(20, before[0].totals, {})] * 2
    assert await usage.grouped(old, *_EVER, limit=10) == used
    assert [len(await usage.ledger(who, limit=50, before=None)) for who in (old, young)] == [0, 8]
    since = await usage.complete_since(old)
    assert since is not None
    assert timedelta(0) <= datetime.now(UTC) - timedelta(days=DAYS + 1) - since < timedelta(minutes=5)
    assert await usage.complete_since(young) is None
    assert auth.query("select count(*) from blocks where account_id = %s", old) == [(0,)]
    await spent(auth, blocks=1)
    assert [(found.rows, found.faults) for found in await audited(auth)] == [(24, {})] * 2


async def test_what_is_settled_again_later_is_charged_once(auth: Auth) -> None:
    """A settlement that comes after its rows were removed is refused: it charges nothing, nor does a new one."""
    account, made = await spent(auth, blocks=1)
    ledger = Ledger(auth.postgres, grace_s=0, alive_s=20)
    assert len((await ledger.settle(made)).known) == 2
    aged(auth, DAYS + 1)
    assert await removed(auth, retention(auth)) == 4
    never = booking(made[0].lease_id, made[0].block_id, 9, 40)
    done = await ledger.settle([*made, never])
    assert (done.booked, len(done.refused)) == ([], 3)
    assert auth.taken(account) == (50, 0)
    assert [found.faults for found in await audited(auth)] == [{}] * 2


async def test_a_block_that_was_settled_late_waits(auth: Auth) -> None:
    """Its rows stay together for as long as one of them is young."""
    _, made = await spent(auth, blocks=2)
    aged(auth, DAYS + 1)
    late = booking(made[0].lease_id, made[0].block_id, 9, 40)
    await Ledger(auth.postgres, grace_s=0, alive_s=20).settle([late])
    assert await removed(auth, retention(auth)) == 4
    assert sorted(auth.query("select kind, tokens from ledger")) == [
        *(("borrow", 100), ("expire", 50), ("late", 40), ("settle", 20), ("settle", 30)),
    ]
    assert [found.faults for found in await audited(auth)] == [{}] * 2


@pytest.mark.parametrize(
    "statement",
    [
        "update quota_days set tokens = tokens + {} where subject = %s",
        "update blocks set settled_tokens = settled_tokens + {}, returned_tokens = returned_tokens - {}"
        " where account_id = %s",
    ],
    ids=["day", "block"],
)
async def test_books_that_do_not_balance_are_kept(auth: Auth, statement: str) -> None:
    """What an audit finds a fault in stays as evidence, until it is mended, and operators are told."""
    account, _ = await spent(auth)
    aged(auth, DAYS + 1)
    with psycopg.connect(auth.url) as link:
        link.execute(statement.replace("{}", "5").encode(), (account,))
    assert await removed(auth, retention(auth)) == 0
    assert told("moa_ledger_faults")
    with psycopg.connect(auth.url) as link:
        link.execute(statement.replace("{}", "(-5)").encode(), (account,))
    assert await removed(auth, retention(auth)) == 12
    assert told("moa_ledger_faults") == 0


async def test_nothing_is_removed_during_an_audit(auth: Auth) -> None:
    """An audit of many steps sees the same rows in all of them."""
    await spent(auth)
    aged(auth, DAYS + 1)
    await Checker(auth.url).check()
    ids = [block_id for (block_id,) in auth.query("select id from blocks")]
    with psycopg.connect(auth.url) as auditing:
        auditing.execute("select pg_advisory_lock_shared(%s)", (AUDIT_LOCK,))
        assert await retention(auth).remove(ids) == 0
        # The server ends a closed connection, with its locks, some time after it was closed.
        auditing.execute("select pg_advisory_unlock_shared(%s)", (AUDIT_LOCK,))
        auditing.commit()
        assert await retention(auth).remove(ids) == 12


async def test_an_audit_says_that_it_is_under_way(auth: Auth) -> None:
    """Whoever wants to remove rows finds the lock taken, from the first step to the last."""
    await spent(auth)
    aged(auth, 1)
    found: list[tuple[bool]] = []
    lock = f"select pg_try_advisory_xact_lock({AUDIT_LOCK})"
    await Checker(auth.url, rows_a_step=5).check(told=lambda _, __: found.extend(auth.query(lock)))
    # At the beginning, and after each step of 12 rows.
    assert found == [(False,)] * 4
    assert auth.query(lock) == [(True,)]


@pytest.mark.parametrize(
    ("days", "statement"),
    [
        (34, "delete from ledger"),
        (DAYS, "delete from ledger where kind = 'settle'"),
        (DAYS, "update ledger set tokens = tokens + 1"),
        (DAYS, "truncate ledger"),
    ],
)
async def test_the_database_demands_it(auth: Auth, days: int, statement: str) -> None:
    """Whoever deletes: no young row goes, no part of a block's rows, and none is changed."""
    await spent(auth, blocks=1)
    aged(auth, days)
    with psycopg.connect(auth.url) as link, pytest.raises(psycopg.errors.RaiseException):
        link.execute(statement.encode())
    assert auth.query("select count(*) from ledger") == [(4,)]


async def test_a_kill_amid_a_removal_loses_and_doubles_nothing(auth: Auth) -> None:
    """Rows that a killed replica had deleted are all there again, none is carried, and the next one removes them."""
    await spent(auth)
    aged(auth, DAYS + 1)
    before = (await audited(auth))[0]
    waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    others = "select count(*) from pg_stat_activity where datname = current_database() and query like 'delete from %%'"
    with psycopg.connect(auth.url) as holding:
        # It waits for this lock after its rows are deleted and carried, before its blocks are.
        holding.execute("lock table ended_leases in share mode")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.auth.remover", auth.url, str(DAYS), env=environment
        )
        await until(lambda: auth.query(waiting) == [(1,)])
        process.kill()
        assert await process.wait() == -signal.SIGKILL
    await until(lambda: auth.query(others) == [(0,)])
    assert auth.query("select count(*) from ledger_carried") == [(0,)]
    assert await removed(auth, retention(auth)) == 12
    assert [(found.rows, found.totals, found.faults) for found in await audited(auth)] == [(12, before.totals, {})] * 2


async def test_a_key_of_a_key_is_carried_on_every_day_that_it_counted_on(auth: Auth) -> None:
    """The account's, that of the key that it goes on with, and that of the key which made it."""
    account, _, _ = await auth.account()
    maker, _ = await auth.key(account, limits=KeyLimits(tokens_a_day=5000), manages=frozenset({"account"}))
    first, _ = await auth.key(account, limits=KeyLimits(tokens_a_day=4000), maker=maker)
    rotated = await auth.keys.rotate(account, first, keys.make(PEPPER))
    await spent(auth, key=rotated.id)
    aged(auth, DAYS + 1)
    assert await removed(auth, retention(auth)) == 12
    assert sorted(auth.query("select subject, settled_tokens from ledger_carried")) == sorted(
        (subject, 150) for subject in (account, first, maker)
    )
    assert [found.faults for found in await audited(auth)] == [{}] * 2


@pytest.mark.parametrize("days", ["0", "34", "-1", "x"])
def test_a_span_that_is_too_short_stops_the_start(days: str) -> None:
    """What can still be settled is never removed, whatever the operator says."""
    with pytest.raises(ValidationError, match="ledger_retention_days"):
        AuthSettings(
            database_url=SecretStr("postgresql://"),
            key_pepper=SecretStr(PEPPER.decode()),
            service_token=SecretStr("t" * 16),
            ledger_retention_days=days,  # type: ignore[arg-type]  # as the environment has it
        )


async def test_a_replica_removes_by_itself_and_its_pages_say_so(auth: Auth, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the setting alone; an administrator who reads the ledger is told from when on it is whole."""
    account, _ = await spent(auth)
    aged(auth, DAYS + 1)
    monkeypatch.setattr(backlogs, "EVERY_S", 0.1)
    key = keys.make(PEPPER)
    await auth.accounts.create(role="admin", limits=CEILINGS, rules=[EVERYTHING], key=key, actor="console")
    replica = await started(auth.url, lease_s=1.0, block_s=2.0, ledger_retention_days=DAYS)
    try:
        await until(lambda: auth.query("select count(*) from ledger") == [(0,)])
        client, link = await connected(replica.public_port)
        page = await client.admin.ListLedger(
            admin_pb.ListLedgerRequest(account_id=account), metadata=client.sent(key.secret)
        )
        await link.close()
    finally:
        await replica.stack.aclose()
    assert (len(page.rows), page.HasField("complete_since")) == (0, True)
