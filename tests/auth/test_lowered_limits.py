"""A limit that an administrator lowers binds what routers and replicas hold ahead, too."""

from __future__ import annotations

import asyncio
import time

import pytest

from moa.account.v1 import account_pb2
from moa.account.v1 import admin_service_pb2 as admin_pb
from services.common.errors import QuotaExhausted
from services.quota_client import Admission, Reservation
from tests.auth.asking import audited, reserve, settle
from tests.auth.client import Client
from tests.auth.conftest import Admit, Auth

WITHIN_S = 30.0
"""A busy machine takes its time; without a recall a lease serves until its day ends."""


async def held(admission: Admission, key: str) -> Reservation:
    """Use a key until a router holds much ahead for it; return a request that runs."""
    for _ in range(100):
        running = await reserve(admission, key, 10_000)
        if running.lease.free.tokens >= 20_000:
            return running
        settle(running, 10)
    pytest.fail("no more was ever held than was needed")


async def refused(admission: Admission, key: str, count: int) -> str:
    """Ask until it is refused, and return why."""
    end = time.monotonic() + WITHIN_S
    while time.monotonic() < end:
        try:
            (await reserve(admission, key, count)).release()
        except QuotaExhausted as error:
            return error.message
        await asyncio.sleep(0.02)
    pytest.fail("what was held ahead was lent all the time")


@pytest.mark.parametrize("whose", ["account", "key"])
async def test_what_is_held_ahead_goes_back(client: Client, root: str, auth: Auth, admit: Admit, whose: str) -> None:
    """Nothing more is reserved of it; what runs is settled as it was granted, and what it leaves is lent by the new
    limit."""
    account, key_id, key = await auth.account(tokens=1_000_000)
    admission = await admit(auth)
    running = await held(admission, key)
    limits = account_pb2.Limits(tokens_a_day=14_000)
    admin = client.sent(root)
    if whose == "account":
        await client.admin.UpdateAccount(
            admin_pb.UpdateAccountRequest(account_id=account, limits=limits), metadata=admin
        )
    else:
        await client.admin.UpdateAccountKey(
            admin_pb.UpdateAccountKeyRequest(account_id=account, key_id=key_id, limits=limits), metadata=admin
        )
    assert f"the {whose}'s limit of 14,000 tokens a day" in await refused(admission, key, 5_000)
    settle(running, 1_000)
    end = time.monotonic() + WITHIN_S
    while True:
        try:
            last = await reserve(admission, key, 10_000)
            break
        except QuotaExhausted:
            assert time.monotonic() < end, "what the running request left never came back"
            await asyncio.sleep(0.02)
    settle(last, 10_000)
    await admission.stop()
    assert auth.spent(account)[0] <= 14_000
    await audited(auth.url)


async def test_credits_that_are_granted_recall_nothing(auth: Auth, admit: Admit) -> None:
    """No router holds any: what it holds of tokens stays."""
    account, _, key = await auth.account(tokens=1_000_000)
    admission = await admit(auth)
    lease = (await held(admission, key)).lease
    await auth.accounts.add_credits(account, 5, reference="paid", actor="console")
    while (await admission.identify(key)).grant.granted_micro_credits != 5:
        await asyncio.sleep(0.02)
    assert not lease.recalled
    assert lease.free.tokens >= 20_000
