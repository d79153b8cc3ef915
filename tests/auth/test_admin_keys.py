"""What an administrator's key may, by whether it has limits."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from moa.account.v1 import account_pb2
from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import admin_service_pb2 as admin_pb
from moa.quota.v1 import quota_pb2
from tests.auth.client import PASSWORD, Client
from tests.auth.conftest import Auth

_ONE_LIMIT: dict[str, dict[str, Any]] = {
    "scopes": {"scopes": [quota_pb2.Rule(provider="local-text", operations=[quota_pb2.OPERATION_TEXT])]},
    "tokens_a_day": {"tokens_a_day": 10},
    "images_a_day": {"images_a_day": 0},
    "requests_per_minute": {"requests_per_minute": 1000},
    "tokens_per_minute": {"tokens_per_minute": 1000},
    "concurrent_requests": {"concurrent_requests": 100},
    "priority": {"priority": quota_pb2.PRIORITY_LOW},
    "expires_in": {"expires_in": Duration(seconds=600)},
}
_GIVES: dict[str, list[dict[str, Any]]] = {
    "CreateAccount": [
        {},
        {"role": account_pb2.ROLE_ADMIN},
        {"with_key": True},
        {"email": "given@example.com", "password": PASSWORD},
    ],
    "UpdateAccount": [
        {"role": account_pb2.ROLE_ADMIN},
        {"role": account_pb2.ROLE_SERVICE, "unlimited": True},
        {"limits": account_pb2.Limits(tokens_a_day=1_000_000, images_a_day=500, keys=10)},
        {"no_limit": ["usd_a_month"]},
        {"priority": quota_pb2.PRIORITY_HIGH},
        {"zone": "Asia/Seoul"},
        {"disabled": False},
        {"disabled": True, "priority": quota_pb2.PRIORITY_HIGH},
        {"email": "taken.over@example.com"},
        {"name": "somebody"},
        {"password": PASSWORD},
        {"second_factor": False},
    ],
    "CreateAccountKey": [{}],
    "RotateAccountKey": [{}],
    "UpdateAccountKey": [{"limits": account_pb2.Limits(usd_a_month="5")}],
    "AddCredits": [{"micro_credits": 5}, {"micro_credits": -1}],
    "GrantRule": [{"rule": quota_pb2.Rule()}],
    "CreateInvitation": [{}],
    "DeleteAccount": [{}],
}
_TAKES = {"RevokeRule", "RevokeAccountKey", "UnlinkAccountIdentity"}
_READS = {"ListAccounts", "GetAccount", "ListRules", "ListAccountKeys", "GetAccountUsage", "ListLedger", "ListAudit"}
_READS |= {"ReportSpend", "DownloadSpendReport", "ListAccountIdentities"}


def gifts(account_id: str) -> list[tuple[str, Any]]:
    """Every call that gives something, to that account where it is given to one that exists."""
    made = []
    for method, bodies in _GIVES.items():
        for body in bodies:
            request = getattr(admin_pb, f"{method}Request")(**body)
            if "account_id" in request.DESCRIPTOR.fields_by_name:
                request.account_id = account_id
            made.append((method, request))
    return made


def test_every_administrators_method_reads_takes_or_gives() -> None:
    """A new method, or a new field of an account that can be changed, is refused to limited keys or classified here."""
    methods = {method.name for method in admin_pb.DESCRIPTOR.services_by_name["AdminService"].methods}
    assert methods == _GIVES.keys() | _TAKES | _READS
    changes = set(admin_pb.UpdateAccountRequest.DESCRIPTOR.fields_by_name) - {"account_id"}
    assert changes == {field for body in _GIVES["UpdateAccount"] for field in body}


async def test_an_administrators_limited_key_gives_nobody_anything(client: Client, auth: Auth, root: str) -> None:
    """Limited in one dimension, a key with SCOPE_ADMIN is refused whatever gives, to whomever, and nothing changes."""
    eve = (await client.sign_up("eve@example.com")).account.account_id
    own = (await client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(root))).account.account_id

    def state() -> list[Any]:
        tables = ("accounts", "rules", "credits", "invitations", "audit")
        return [auth.query(f"select t::text from {table} t order by 1") for table in tables] + [
            auth.query("select id, revoked_at from keys order by id")
        ]

    for field, limit in _ONE_LIMIT.items():
        request = pb.CreateKeyRequest(manages=[account_pb2.SCOPE_ACCOUNT, account_pb2.SCOPE_ADMIN], **limit)
        made = await client.account.CreateKey(request, metadata=client.sent(root))
        key = client.sent(made.api_key)
        before = state()
        for method, gift in [*gifts(eve), *gifts(own)]:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await getattr(client.admin, method)(gift, metadata=key)
            assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED, (field, method, gift)
            assert f"`{field}`" in (refused.value.details() or "")
            assert "an administrator's key without limits, or do this logged in" in (refused.value.details() or "")
        assert state() == before, field


async def test_an_administrators_limited_key_reads_disables_and_revokes(client: Client, auth: Auth, root: str) -> None:
    """What only takes away is no way to more: a key of one token a day does it to accounts that have more."""
    request = pb.CreateKeyRequest(tokens_a_day=1, manages=[account_pb2.SCOPE_ADMIN])
    key = client.sent((await client.account.CreateKey(request, metadata=client.sent(root))).api_key)
    account_id, key_id, _ = await auth.account()
    assert (await client.admin.ListAccounts(admin_pb.ListAccountsRequest(), metadata=key)).accounts
    (rule,) = (await client.admin.ListRules(admin_pb.ListRulesRequest(account_id=account_id), metadata=key)).rules
    await client.admin.RevokeRule(admin_pb.RevokeRuleRequest(account_id=account_id, rule_id=rule.rule_id), metadata=key)
    revoke = admin_pb.RevokeAccountKeyRequest(account_id=account_id, key_id=key_id)
    assert (await client.admin.RevokeAccountKey(revoke, metadata=key)).key.HasField("revoked_at")
    disable = admin_pb.UpdateAccountRequest(account_id=account_id, disabled=True)
    assert (await client.admin.UpdateAccount(disable, metadata=key)).account.disabled


async def test_an_administrator_without_limits_gives(client: Client, auth: Auth, root: str) -> None:
    """The first key and somebody who is logged in give all that limited keys are refused."""
    asked = admin_pb.CreateAccountRequest(email="boss@example.com", password=PASSWORD, role=account_pb2.ROLE_ADMIN)
    await client.admin.CreateAccount(asked, metadata=client.sent(root))
    session = (
        await client.account.LogIn(pb.LogInRequest(email=asked.email, password=PASSWORD), metadata=client.sent())
    ).session_token
    for at, token in enumerate((root, session)):
        account_id, key_id, _ = await auth.account()
        for method, gift in gifts(account_id):
            if method in ("UpdateAccountKey", "RotateAccountKey"):
                gift.key_id = key_id
            if method in ("CreateAccount", "UpdateAccount") and gift.email:
                gift.email = f"{method}{at}@example.com"
            await getattr(client.admin, method)(gift, metadata=client.sent(token))
    first = await client.admin.CreateAccount(admin_pb.CreateAccountRequest(with_key=True), metadata=client.sent(root))
    (listed,) = (await client.account.ListKeys(pb.ListKeysRequest(), metadata=client.sent(first.api_key))).keys
    assert list(listed.manages) == [account_pb2.SCOPE_ACCOUNT]
