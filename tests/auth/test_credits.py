"""Credits of tasks: a dimension of the ledger, whose limit is what an account was granted in all."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from moa.account.v1 import account_service_pb2 as pb
from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from moa.quota.v1.quota_service_pb2 import CreditEntry, CreditStep
from services.auth.adapters.carried import CarriedBlocks
from services.auth.adapters.ledger import Ledger
from services.auth.domain.carrying import CarriedCredits
from services.auth.domain.ledger import LeaseIds
from services.auth.domain.quota import Quota
from services.common.errors import NoCredit
from services.quota_client.amounts import NOTHING, Amount, ReservationId
from tests.auth.asking import PEPPER, audited
from tests.auth.client import Client
from tests.auth.conftest import Auth


async def granted(auth: Auth, micro_credits: int, *, unlimited: bool = False) -> tuple[str, str, str]:
    """Create an account with credits; give the ids and the key."""
    account, key_id, key = await auth.account(manages=frozenset({"account"}))
    if unlimited:
        await auth.accounts.update(account, actor="console", unlimited=True)
    await auth.accounts.add_credits(account, micro_credits, reference="paid", actor="console")
    return account, key_id, key


async def heard(quota: Quota, key_id: str, micro_credits: int) -> None:
    """Wait until a replica knows of credits that were granted just now, as it does within half a second."""
    while (await quota.known(key_id)).micro_credits != micro_credits:
        await asyncio.sleep(0.02)


async def set_aside(quota: Quota, key_id: str, micro_credits: int) -> str:
    """Reserve a task's image and its price; return the reservation."""
    need = Amount(images=1, micro_credits=micro_credits)
    admitted = await quota.admit(
        await quota.known(key_id),
        holder="tasks",
        operation=quota_pb2.OPERATION_TASK,
        provider="p",
        model="m",
        least=need,
        need=need,
        want=need,
        lasting=True,
    )
    assert admitted.lease is not None
    return str(ReservationId(admitted.lease.lease_id, "1", need))


def settlement(reservation_id: str, charged: Amount) -> quota_pb2.Settlement:
    return quota_pb2.Settlement(
        reservation_id=reservation_id,
        charged=charged.message(),
        usage=usage_pb2.Usage(images=1),
        operation=quota_pb2.OPERATION_IMAGE,
        provider="p",
        model="m",
    )


@pytest.mark.parametrize("unlimited", [False, True])
async def test_no_more_tasks_are_reserved_than_credits_were_granted_for(auth: Auth, unlimited: bool) -> None:
    """Of ten at once with credits for three, three are reserved, though the account has no limit of anything else."""
    account, key_id, _ = await granted(auth, 350, unlimited=unlimited)
    quota = auth.quota
    assert quota is not None
    found = await asyncio.gather(*(set_aside(quota, key_id, 100) for _ in range(10)), return_exceptions=True)
    refused = [one for one in found if isinstance(one, BaseException)]
    assert [(type(one), str(one)) for one in refused] == [(NoCredit, "not enough credits")] * 7
    await auth.accounts.add_credits(account, 50, reference="more", actor="console")
    await heard(quota, key_id, 400)
    await set_aside(quota, key_id, 100)
    await audited(auth.url)


async def test_a_task_that_succeeds_is_charged_once_and_one_that_does_not_gives_its_credits_back(
    auth: Auth, client: Client
) -> None:
    """Whatever is sent twice is booked once; the account is told what is left of its credits."""
    account, key_id, key = await granted(auth, 250)
    quota = auth.quota
    assert quota is not None
    done, failed = [await set_aside(quota, key_id, 100) for _ in range(2)]
    charged = Amount(images=1, micro_credits=100)
    piece = quota_pb2.LeaseReturn(return_id="task", lease_id=failed.partition(".")[0], amount=charged.message())
    for _ in range(2):
        assert (await quota.settle([settlement(done, charged)]))[0] == [done]
        await quota.give_back([piece])
    told = await client.account.GetLimits(pb.GetLimitsRequest(), metadata=client.sent(key))
    assert (told.granted_micro_credits, told.left_micro_credits) == (250, 150)
    assert told.remaining.free.micro_credits == told.remaining.limit.micro_credits == 0
    used = await client.account.GetUsage(pb.GetUsageRequest(), metadata=client.sent(key))
    assert [(row.requests, row.charged_images, row.charged_micro_credits) for row in used.rows] == [(1, 1, 100)]
    await set_aside(quota, key_id, 150)
    with pytest.raises(NoCredit):
        await set_aside(quota, key_id, 1)
    found = await audited(auth.url)
    assert found.totals["micro_credits"]["spent"] >= 100
    assert auth.query(
        "select sum(micro_credits)::bigint from ledger where account_id = %s and kind = 'settle'", account
    ) == [(100,)]


def test_an_id_without_credits_is_one_that_the_release_before_reads() -> None:
    """Credits are told in a reservation's id only where there are any, and are read again."""
    for amount, numbers in (
        (Amount(1, 2, 3), "1.2.3"),
        (Amount(1, 2, 3, 4), "1.2.3.4"),
        (NOTHING, "0.0.0"),
    ):
        written = str(ReservationId("lease", "1f", amount))
        assert written == f"lease.1f.{numbers}"
        assert ReservationId.parse(written) == ReservationId("lease", "1f", amount)


def entry(number: int, task: str, account: str, step: str, micro_credits: int = 100) -> CreditEntry:
    """Return an entry of a task service of the release before."""
    at = datetime(2026, 3, 31, 22, number % 60, tzinfo=UTC)
    made = CreditEntry(
        entry_id=number,
        task_id=f"{task} {account}",
        account_id=account,
        step=CreditStep.Value(step),
        micro_credits=micro_credits,
    )
    made.at.FromDatetime(at)
    return made


HOLD, CHARGE, RELEASE = (f"CREDIT_STEP_{name}" for name in ("HOLD", "CHARGE", "RELEASE"))


@pytest.fixture
def carried(auth: Auth) -> CarriedCredits:
    ledger = Ledger(auth.postgres, grace_s=10, alive_s=20)
    return CarriedCredits(CarriedBlocks(auth.postgres), ledger, LeaseIds(PEPPER))


async def left(auth: Auth, client: Client, account: str, key: str) -> tuple[int, int]:
    """Return what was not charged of an account's credits, and what is free of them."""
    told = await client.account.GetLimits(pb.GetLimitsRequest(), metadata=client.sent(key))
    taken = auth.query("select micro_credits from quota_counters where subject = %s and period = 'total'", account) or [
        (0,)
    ]
    return told.left_micro_credits, told.granted_micro_credits - taken[0][0]


async def test_what_a_task_service_had_counted_is_booked_once_however_it_is_told(
    auth: Auth, client: Client, carried: CarriedCredits
) -> None:
    """Charges, open holds and what was released stand in the ledger as they did before, told twice or in parts."""
    account, _, key = await granted(auth, 1000)
    told = [
        entry(1, "old", account, HOLD),
        entry(2, "old", account, CHARGE),
        entry(3, "failed", account, HOLD),
        entry(4, "open", account, HOLD, 200),
        entry(5, "failed", account, RELEASE),
    ]
    assert await carried.carry(told[:1]) == [1]
    assert await left(auth, client, account, key) == (1000, 900)
    for some in (told, told[1:], told[::-1]):
        assert set(await carried.carry(some)) == {one.entry_id for one in some}
        assert await left(auth, client, account, key) == (900, 700)
    for _ in range(2):
        await carried.carry([entry(6, "open", account, RELEASE, 200)])
        assert await left(auth, client, account, key) == (900, 900)
    rows = auth.query("select kind, day::text, micro_credits from ledger where account_id = %s order by id", account)
    assert rows == [
        ("borrow", "2026-03-31", 100),
        ("borrow", "2026-03-31", 200),
        ("settle", "2026-03-31", 100),
        ("return", "2026-03-31", 200),
    ]
    used = await client.account.GetUsage(
        pb.GetUsageRequest(from_day="2026-03-01", to_day="2026-04-01"), metadata=client.sent(key)
    )
    assert [(row.requests, row.charged_micro_credits) for row in used.rows] == [(0, 100)]
    await audited(auth.url)


async def test_what_was_spent_before_binds_what_is_reserved_now(auth: Auth, carried: CarriedCredits) -> None:
    """An account has for new tasks what its old ones left of its credits, and no more."""
    account, key_id, _ = await granted(auth, 300)
    quota = auth.quota
    assert quota is not None
    await carried.carry([entry(1, "spent", account, CHARGE), entry(2, "open", account, HOLD)])
    await set_aside(quota, key_id, 100)
    with pytest.raises(NoCredit):
        await set_aside(quota, key_id, 1)
    await carried.carry([entry(3, "open", account, CHARGE)])
    with pytest.raises(NoCredit):
        await set_aside(quota, key_id, 1)
    await audited(auth.url)
