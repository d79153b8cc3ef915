"""The ledger's single steps, where a random life would seldom come by."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest

from moa.quota.v1 import quota_pb2
from services.auth.adapters.ledger import Borrowed, Ledger
from services.auth.adapters.verified_keys import VerifiedKeys
from services.auth.domain.accounts import Owner, Short, Standing, VerifiedKey
from services.auth.domain.ledger import Booking, Ending, LeaseIds, Return, sized
from services.auth.domain.quota import exhausted
from services.quota_client.amounts import BOUNDLESS, PERIODS, Amount, Period
from tests.auth.asking import PEPPER, audited, reserve, settle, until
from tests.auth.conftest import Admit, Auth


async def test_a_late_settlement_does_not_eat_what_the_block_still_lends(auth: Auth) -> None:
    """What is settled under a lease that was taken back comes from the day: the block's rest may be lent meanwhile."""
    account, key_id, _ = await auth.account(tokens=1000)
    ledger = Ledger(auth.postgres, grace_s=10, alive_s=20)
    (who,) = await VerifiedKeys(auth.postgres).by_ids([key_id])
    amount = Amount(tokens=200)
    borrowed = await ledger.borrow(who, holder="h", least=amount, need=amount, want=amount, ttl_s=60)
    assert not isinstance(borrowed, Short)
    lease_id = LeaseIds(PEPPER).make(borrowed.block_id, 1)
    await ledger.end([Ending(lease_id, borrowed.block_id, Amount(tokens=100))])
    await ledger.end([Ending(lease_id, borrowed.block_id, Amount(tokens=100))])
    assert auth.taken(account) == (100, 0)
    settlement = quota_pb2.Settlement(reservation_id=f"{lease_id}.1.100.0", charged=quota_pb2.Amount(tokens=100))
    booking = Booking(settlement.reservation_id, lease_id, borrowed.block_id, Amount(tokens=100), settlement)
    for _ in range(2):
        assert (await ledger.settle([booking])).booked == [settlement.reservation_id]
    assert auth.query("select kind, tokens from ledger where reference = %s", settlement.reservation_id) == [
        ("late", 100)
    ]
    rows = auth.query("select tokens - settled_tokens - returned_tokens from blocks where id = %s", borrowed.block_id)
    assert rows == [(100,)]
    assert auth.taken(account) == (200, 0)
    await audited(auth.url)


async def test_accounts_of_a_team_keep_its_limits_together(auth: Auth) -> None:
    """A team is one more subject: it is borrowed from, settled, returned and audited like any."""
    ledger, made = Ledger(auth.postgres, grace_s=10, alive_s=20), []
    limits = dict.fromkeys(PERIODS, BOUNDLESS) | {Period.MONTH: BOUNDLESS._replace(tokens=250)}
    team = Standing(owner=Owner.TEAM, subject="team_1", limits=limits, taken={})
    for _ in range(2):
        _, key_id, _ = await auth.account(tokens=1000)
        (who,) = await VerifiedKeys(auth.postgres).by_ids([key_id])
        made.append(replace(who, standings=(*who.standings, team)))

    async def borrow(who: VerifiedKey, tokens: int) -> Borrowed | Short:
        amount = Amount(tokens=tokens)
        return await ledger.borrow(who, holder="h", least=amount, need=amount, want=amount, ttl_s=60)

    first = await borrow(made[0], 200)
    assert not isinstance(first, Short)
    refused = await borrow(made[1], 100)
    assert isinstance(refused, Short)
    assert (refused.owner, refused.period, refused.limit) == (Owner.TEAM, Period.MONTH, 250)
    assert str(exhausted(made[1], refused)).startswith("the team's limit of 250 tokens a month does not cover this")
    lease_id = LeaseIds(PEPPER).make(first.block_id, 0)
    settlement = quota_pb2.Settlement(reservation_id=f"{lease_id}.1.200.0", charged=quota_pb2.Amount(tokens=120))
    booking = Booking(settlement.reservation_id, lease_id, first.block_id, Amount(tokens=200), settlement)
    assert (await ledger.settle([booking])).booked
    await ledger.give_back([Return("back", first.block_id, Amount(tokens=80))])
    assert not isinstance(await borrow(made[1], 100), Short)
    assert auth.query("select kind, tokens from quota_counters where subject = 'team_1' and period = 'month'") == [
        ("team", 220)
    ]
    await audited(auth.url)


@pytest.mark.parametrize("statement", ["update ledger set tokens = 0", "delete from ledger", "truncate ledger"])
async def test_the_ledger_is_append_only(auth: Auth, admit: Admit, statement: str) -> None:
    """The database itself refuses to change or delete what is booked."""
    account, _, key = await auth.account()
    settle(await reserve(await admit(auth), key, 1), 1)
    await until(lambda: auth.spent(account) == (1, 0))
    with psycopg.connect(auth.url) as link, pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        link.execute(statement.encode())


async def test_the_audit_finds_what_does_not_balance(auth: Auth) -> None:
    """A counter that differs from the ledger is found."""
    account, key_id, _ = await auth.account(tokens=1000)
    (who,) = await VerifiedKeys(auth.postgres).by_ids([key_id])
    amount = Amount(tokens=200)
    ledger = Ledger(auth.postgres, grace_s=10, alive_s=20)
    block = await ledger.borrow(who, holder="h", least=amount, need=amount, want=amount, ttl_s=60)
    assert not isinstance(block, Short)
    for statement in (
        "update quota_days set tokens = tokens - 1 where subject = %s returning 1",
        "update blocks set settled_tokens = settled_tokens + 5 where account_id = %s returning 1",
    ):
        with psycopg.connect(auth.url) as link:
            link.execute(statement.encode(), (account,))
        with pytest.raises(AssertionError):
            await audited(auth.url)
        with psycopg.connect(auth.url) as link:
            undo = statement.replace("tokens - 1", "tokens + 1").replace("settled_tokens + 5", "settled_tokens - 5")
            link.execute(undo.encode(), (account,))
    await audited(auth.url)


@pytest.mark.parametrize(
    ("least", "need", "want", "free", "given"),
    [
        (100, 100, 400, 10_000, 400),
        (100, 100, 4000, 10_000, 100 + 9900 // 8),
        (100, 100, 400, 100, 100),
        (100, 100, 400, 99, None),
        (10, 100, 400, 99, 99),
        (0, 0, 800, 1600, 200),
        (0, 0, 0, 0, 0),
    ],
)
def test_a_lease_is_sized_by_what_is_free(least: int, need: int, want: int, free: int, given: int | None) -> None:
    """Beyond the need, at most an eighth of what would remain; near the limit, the need alone."""
    amounts = (Amount(tokens=count) for count in (least, need, want, free))
    expected = None if given is None else Amount(tokens=given)
    assert sized(**dict(zip(("least", "need", "want", "free"), amounts, strict=True))) == expected


def test_a_lease_id_cannot_be_made_up() -> None:
    """An id that was changed, or signed with another secret, is none."""
    block = uuid4()
    ids = LeaseIds(b"one secret")
    lease = ids.make(block, 7)
    assert ids.read(lease) == (block, 7)
    assert LeaseIds(b"another").read(lease) is None
    for bad in ("", "x", "A" * 48, ("B" if lease[0] != "B" else "C") + lease[1:], lease[:-4], "é" * 48):
        assert ids.read(bad) is None


async def test_reports_lock_blocks_in_the_order_of_settlements(auth: Auth) -> None:
    """Whoever reports waits for the first block before it holds the second, so that who settles both is never in its
    way: PostgreSQL ended one of the two for a deadlock."""
    _, key_id, _ = await auth.account(tokens=1000)
    ledger, amount = Ledger(auth.postgres, grace_s=10, alive_s=20), Amount(tokens=100)
    (who,) = await VerifiedKeys(auth.postgres).by_ids([key_id])
    blocks = []
    for _ in range(2):
        borrowed = await ledger.borrow(who, holder="h", least=amount, need=amount, want=amount, ttl_s=60)
        assert not isinstance(borrowed, Short)
        blocks.append(borrowed.block_id)
    first, second = sorted(blocks)
    bookings = []
    for block_id in (second, first):
        lease_id = LeaseIds(PEPPER).make(block_id, 1)
        so_far = quota_pb2.Settlement(reservation_id=f"{lease_id}.1.100.0")
        bookings.append(Booking(so_far.reservation_id, lease_id, block_id, amount, so_far))
    waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    with psycopg.connect(auth.url) as settling:
        settling.execute("select 1 from blocks where id = %s for update", (first,))
        report = asyncio.create_task(ledger.report(bookings))
        await until(lambda: auth.query(waiting) == [(1,)])
        settling.execute("select 1 from blocks where id = %s for update nowait", (second,))
    await report
    assert auth.query("select count(*) from open_reservations where block_id = any(%s)", blocks) == [(2,)]
