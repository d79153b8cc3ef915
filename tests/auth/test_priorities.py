"""Priorities: an administrator gives one to an account, a key may lower it, and routers hear of both."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from moa.account.v1 import account_pb2
from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import admin_service_pb2 as admin_pb
from moa.quota.v1 import quota_pb2
from services.quota_client import Admission, grants, priorities
from services.quota_client.amounts import Amount
from services.quota_client.grants import ActingFor
from tests.auth.asking import TOKEN, reserve
from tests.auth.client import Client, code_of
from tests.auth.conftest import Admit, Auth

NONE, LOW, NORMAL, HIGH = (
    quota_pb2.PRIORITY_UNSPECIFIED,
    quota_pb2.PRIORITY_LOW,
    quota_pb2.PRIORITY_NORMAL,
    quota_pb2.PRIORITY_HIGH,
)


async def given(client: Client, root: str, account_id: str, priority: int) -> account_pb2.Account:
    """Return an account a priority, as its administrator."""
    request = admin_pb.UpdateAccountRequest(account_id=account_id, priority=priority)  # type: ignore[arg-type]
    return (await client.admin.UpdateAccount(request, metadata=client.sent(root))).account


async def heard(admission: Admission, key: str, priority: str) -> None:
    """Wait until a warm router knows of a key's priority; the next reservation has it."""
    async with asyncio.timeout(40):
        while (await admission.identify(key)).priority != priority:
            await asyncio.sleep(0.02)
    assert (await reserve(admission, key)).priority == priority


async def test_an_administrator_gives_an_account_its_priority(client: Client, root: str) -> None:
    """It is normal until an administrator changes it, is shown to both, and the change is in the audit log."""
    made = await client.sign_up("given@example.com")
    account_id, session = made.account.account_id, client.sent(made.session_token)
    assert made.account.priority == NORMAL
    assert (await given(client, root, account_id, HIGH)).priority == HIGH
    assert (await given(client, root, account_id, NONE)).priority == HIGH  # unchanged
    assert (await client.account.GetMe(pb.GetMeRequest(), metadata=session)).account.priority == HIGH
    assert (await client.account.GetLimits(pb.GetLimitsRequest(), metadata=session)).priority == HIGH
    audit = await client.admin.ListAudit(admin_pb.ListAuditRequest(account_id=account_id), metadata=client.sent(root))
    assert [(entry.act, list(entry.details)) for entry in audit.entries] == [("account.changed", ["priority=high"])]
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await given(client, root, account_id, 9)
    assert unknown.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_an_account_is_made_with_a_priority(client: Client, root: str) -> None:
    """An administrator who makes an account gives it its priority at once; without one it is normal."""
    for asked, has in ((NONE, NORMAL), (LOW, LOW), (HIGH, HIGH)):
        request = admin_pb.CreateAccountRequest(name="made", priority=asked)
        assert (await client.admin.CreateAccount(request, metadata=client.sent(root))).account.priority == has


async def test_a_key_can_only_lower_its_accounts_priority(client: Client, root: str, auth: Auth, admit: Admit) -> None:
    """A key takes its account's priority or a lower one, at its making and later, and its successor has the same."""
    made = await client.sign_up("keys@example.com")
    account_id, session = made.account.account_id, client.sent(made.session_token)
    auth.query("update accounts set key_count = 10 where id = %s returning 1", account_id)
    for refused in (HIGH, 9):
        request = pb.CreateKeyRequest(priority=refused)  # type: ignore[arg-type]
        call = client.account.CreateKey(request, metadata=session)
        assert await code_of(call) == grpc.StatusCode.INVALID_ARGUMENT
    first = await client.account.CreateKey(pb.CreateKeyRequest(name="batch", priority=LOW), metadata=session)
    assert first.key.priority == LOW
    admission = await admit(auth)
    await heard(admission, first.api_key, "low")
    rotated = await client.account.RotateKey(pb.RotateKeyRequest(key_id=first.key.key_id), metadata=session)
    assert (rotated.key.priority, rotated.key.name) == (LOW, "batch")
    key_id = rotated.key.key_id
    too_high = client.account.UpdateKey(pb.UpdateKeyRequest(key_id=key_id, priority=HIGH), metadata=session)
    assert await code_of(too_high) == grpc.StatusCode.INVALID_ARGUMENT
    renamed = await client.account.UpdateKey(pb.UpdateKeyRequest(key_id=key_id, name="둘"), metadata=session)
    assert (renamed.key.priority, renamed.key.name) == (LOW, "둘")
    freed = await client.account.UpdateKey(pb.UpdateKeyRequest(key_id=key_id, priority=NONE), metadata=session)
    assert (freed.key.priority, freed.key.name) == (NONE, "둘")
    await given(client, root, account_id, HIGH)
    raised = await client.account.UpdateKey(pb.UpdateKeyRequest(key_id=key_id, priority=HIGH), metadata=session)
    assert raised.key.priority == HIGH
    await given(client, root, account_id, LOW)
    assert (await (await admit(auth, journal=None)).identify(rotated.api_key)).priority == "low"


async def test_a_warm_router_hears_of_a_change(client: Client, root: str, auth: Auth, admit: Admit) -> None:
    """Changes of the account's and of the key's priority reach a router that holds the key, without being asked for."""
    account_id, key_id, key = await auth.account()
    admission = await admit(auth)
    await heard(admission, key, "normal")
    await given(client, root, account_id, HIGH)
    await heard(admission, key, "high")
    await auth.keys.update(account_id, key_id, priority="low")
    await heard(admission, key, "low")
    await auth.keys.update(account_id, key_id, priority=None)
    await heard(admission, key, "high")
    await given(client, root, account_id, LOW)
    await heard(admission, key, "low")


@pytest.mark.parametrize(
    ("account", "key", "acting", "task"),
    [
        ("high", None, "high", "normal"),
        ("normal", None, "normal", "normal"),
        ("high", "low", "low", "low"),
        ("low", "high", "low", "low"),
    ],
)
async def test_a_grant_has_its_keys_priority(
    auth: Auth, admit: Admit, account: str, key: str | None, acting: str, task: str
) -> None:
    """Who acts for a key has its priority; what a task's reservation pays for has at most a normal one."""
    account_id, key_id, _ = await auth.account()
    auth.query("update accounts set priority = %s where id = %s returning 1", account, account_id)
    auth.query("update keys set priority = %s where id = %s returning 1", key, key_id)
    admission = await admit(auth)
    who = ActingFor(account_id=account_id, key_id=key_id)
    paying = ActingFor(account_id=account_id, key_id=key_id, reservation_id="lease.1.0.1", images=1)
    found = []
    for each in (who, paying):
        booking = await admission.reserve(
            grants.mint(TOKEN, each),
            operation=quota_pb2.OPERATION_IMAGE,
            provider="p",
            model="m",
            need=Amount(images=1),
            request_id="r",
        )
        found.append(booking.priority)
    assert found == [acting, task]


@pytest.mark.parametrize(
    ("one", "other", "lower"),
    [("high", None, "high"), ("high", "low", "low"), ("low", "high", "low"), ("normal", "high", "normal")],
)
def test_the_lower_of_two_is_told_by_order_not_by_spelling(one: str, other: str | None, lower: str) -> None:
    """`high` sorts before `low` as a word, and is above it."""
    assert priorities.lower(one, other) == lower
