"""Accounts, keys and what administrators do, over the public services and the real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from moa.account.v1 import account_pb2, account_service_pb2_grpc, admin_service_pb2_grpc
from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import admin_service_pb2 as admin_pb
from moa.quota.v1 import quota_pb2
from services.auth import account_servicer
from services.auth.domain import keys
from services.auth.domain.accounts import CEILINGS, EVERYTHING
from services.common.errors import RateLimited, Unauthenticated
from services.common.throttle import Throttle
from tests.auth.asking import PEPPER, tokens
from tests.auth.conftest import Admit, Auth, Start

PASSWORD = "correct horse battery"


@dataclass
class Client:
    """Both public services, as one address reaches them."""

    account: account_service_pb2_grpc.AccountServiceAsyncStub
    admin: admin_service_pb2_grpc.AdminServiceAsyncStub
    address: str = "203.0.113.1"

    def sent(self, token: str = "") -> tuple[tuple[str, str], ...]:
        base = (("x-envoy-external-address", self.address),)
        return (*base, ("authorization", f"Bearer {token}")) if token else base

    async def sign_up(self, email: str, **more: Any) -> pb.SignUpResponse:
        request = pb.SignUpRequest(email=email, password=PASSWORD, **more)
        return await self.account.SignUp(request, metadata=self.sent())


async def connected(auth: Auth) -> tuple[Client, grpc.aio.Channel]:
    link = grpc.aio.insecure_channel(f"127.0.0.1:{auth.public_port}")
    return Client(
        account_service_pb2_grpc.AccountServiceStub(link), admin_service_pb2_grpc.AdminServiceStub(link)
    ), link


@pytest.fixture
async def client(auth: Auth) -> AsyncIterator[Client]:
    made, link = await connected(auth)
    yield made
    await link.close()


@pytest.fixture
async def root(auth: Auth) -> str:
    """An administrator's key."""
    key = keys.make(PEPPER)
    await auth.accounts.create(role="admin", limits=CEILINGS, rules=[EVERYTHING], key=key, actor="console")
    return key.secret


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    code = failure.value.code()
    assert isinstance(code, grpc.StatusCode)
    return code


async def test_sign_up_log_in_and_out(client: Client) -> None:
    """A new account logs in with its email in any case, and its token ends when it logs out."""
    made = await client.sign_up("Kim@Example.com", name="김")
    assert (made.account.email, made.account.name, made.account.role) == (
        "kim@example.com",
        "김",
        account_pb2.ROLE_USER,
    )
    assert (made.account.limits.tokens_a_day, made.account.limits.images_a_day, made.account.limits.keys) == (
        100_000,
        50,
        1,
    )
    again = await client.account.LogIn(
        pb.LogInRequest(email="KIM@example.com", password=PASSWORD), metadata=client.sent()
    )
    me = await client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(again.session_token))
    assert me.account == made.account
    await client.account.LogOut(pb.LogOutRequest(), metadata=client.sent(again.session_token))
    gone = client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(again.session_token))
    assert await code_of(gone) == grpc.StatusCode.UNAUTHENTICATED


async def test_what_a_new_account_may_use_is_local(client: Client, auth: Auth, admit: Admit) -> None:
    """A key of a new account may use local models, and nothing else until an administrator grants it."""
    session = (await client.sign_up("local@example.com")).session_token
    made = await client.account.CreateKey(pb.CreateKeyRequest(name="one"), metadata=client.sent(session))
    who = await (await admit(auth)).identify(made.api_key)
    assert who.may(quota_pb2.OPERATION_TEXT, "local-text", "moa-tiny-chat")
    assert not who.may(quota_pb2.OPERATION_TEXT, "openai-text", "gpt-4o")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.SignUpRequest(email="nobody", password=PASSWORD), "INVALID_ARGUMENT"),
        (pb.SignUpRequest(email="a b@example.com", password=PASSWORD), "INVALID_ARGUMENT"),
        (pb.SignUpRequest(email="x" * 300 + "@example.com", password=PASSWORD), "INVALID_ARGUMENT"),
        (pb.SignUpRequest(email="short@example.com", password="1234567"), "INVALID_ARGUMENT"),
        (pb.SignUpRequest(email="long@example.com", password="x" * 257), "INVALID_ARGUMENT"),
        (pb.SignUpRequest(email="name@example.com", password=PASSWORD, name="x" * 101), "INVALID_ARGUMENT"),
        (pb.SignUpRequest(email="nul@example.com", password=PASSWORD, name="a\0b"), "INVALID_ARGUMENT"),
        (pb.SignUpRequest(email="TAKEN@example.com", password=PASSWORD), "ABORTED"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.email[:20],
)
async def test_a_bad_sign_up_is_refused(client: Client, auth: Auth, request_: pb.SignUpRequest, code: str) -> None:
    """Bad emails, passwords and names, and emails that are taken, are refused; nothing is created."""
    client.address = request_.email[:40]
    if code == "ABORTED":
        await client.sign_up("taken@example.com")
    before = auth.query("select count(*) from accounts")
    assert (await code_of(client.account.SignUp(request_, metadata=client.sent()))).name == code
    assert auth.query("select count(*) from accounts") == before


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the brakes' clock: on a slow machine, tries would be won back while passwords are compared."""
    monkeypatch.setattr(account_servicer, "Throttle", partial(Throttle, clock=lambda: 0.0))


@pytest.mark.usefixtures("standing")
async def test_a_wrong_login_tells_nothing_and_is_slowed(client: Client) -> None:
    """A wrong password and an unknown email read alike; after some tries the address has to wait."""
    await client.sign_up("guessed@example.com")
    told = set()
    for number in range(8):
        email = "guessed@example.com" if number % 2 else f"absent{number}@example.com"
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await client.account.LogIn(pb.LogInRequest(email=email, password="wrong"), metadata=client.sent())
        assert failure.value.code() == grpc.StatusCode.UNAUTHENTICATED
        told.add(failure.value.details())
    assert len(told) == 1
    for _ in range(2):
        call = client.account.LogIn(pb.LogInRequest(email="e@example.com", password="wrong"), metadata=client.sent())
        code = await code_of(call)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    client.address = "203.0.113.99"
    right = await client.account.LogIn(
        pb.LogInRequest(email="guessed@example.com", password=PASSWORD), metadata=client.sent()
    )
    assert right.session_token


def test_a_throttle_lets_tries_through_again() -> None:
    """So many tries at once, then one in each interval, for each name alone."""
    now = 0.0
    throttle = Throttle(tries=3, every_s=10, clock=lambda: now)
    for _ in range(3):
        throttle.check("a")
    with pytest.raises(RateLimited) as refusal:
        throttle.check("a")
    assert refusal.value.retry_after_s == pytest.approx(10)
    throttle.check("b")
    now = 10.0
    throttle.check("a")
    with pytest.raises(RateLimited):
        throttle.check("a")
    now = 1000.0
    for _ in range(3):
        throttle.check("a")


async def test_a_key_from_birth_to_end(client: Client, auth: Auth, admit: Admit) -> None:
    """A key is shown once, listed by its prefix, renamed, rotated and revoked; the account has one at a time."""
    session = client.sent((await client.sign_up("keys@example.com")).session_token)
    made = await client.account.CreateKey(pb.CreateKeyRequest(name="first", style="sk"), metadata=session)
    assert made.api_key.startswith("sk-")
    assert len(made.api_key) > 40
    assert made.api_key.startswith(made.key.prefix)
    assert len(made.key.prefix) < 12
    second = client.account.CreateKey(pb.CreateKeyRequest(), metadata=session)
    assert await code_of(second) == grpc.StatusCode.ABORTED
    renamed = await client.account.RenameKey(pb.RenameKeyRequest(key_id=made.key.key_id, name="둘"), metadata=session)
    assert renamed.key.name == "둘"
    rotated = await client.account.RotateKey(pb.RotateKeyRequest(key_id=made.key.key_id), metadata=session)
    assert rotated.key.name == "둘"
    assert rotated.api_key.startswith("sk-")
    admission = await admit(auth)
    with pytest.raises(Unauthenticated):
        await admission.identify(made.api_key)
    await admission.identify(rotated.api_key)
    for _ in range(2):
        revoked = await client.account.RevokeKey(pb.RevokeKeyRequest(key_id=rotated.key.key_id), metadata=session)
        assert revoked.key.HasField("revoked_at")
    listed = await client.account.ListKeys(pb.ListKeysRequest(), metadata=session)
    assert [key.key_id for key in listed.keys] == [rotated.key.key_id, made.key.key_id]
    again = client.account.RotateKey(pb.RotateKeyRequest(key_id=rotated.key.key_id), metadata=session)
    assert await code_of(again) == grpc.StatusCode.ABORTED


async def test_another_accounts_key_is_not_there(client: Client) -> None:
    """Another account's key cannot be renamed, rotated or revoked, and looks like none at all."""
    one = client.sent((await client.sign_up("one@example.com")).session_token)
    other = client.sent((await client.sign_up("other@example.com")).session_token)
    key_id = (await client.account.CreateKey(pb.CreateKeyRequest(), metadata=one)).key.key_id
    for target in (key_id, "key_none", ""):
        for call in (
            client.account.RenameKey(pb.RenameKeyRequest(key_id=target, name="x"), metadata=other),
            client.account.RotateKey(pb.RotateKeyRequest(key_id=target), metadata=other),
            client.account.RevokeKey(pb.RevokeKeyRequest(key_id=target), metadata=other),
        ):
            assert await code_of(call) == grpc.StatusCode.NOT_FOUND


async def test_a_scoped_key_reads_and_changes_nothing(client: Client) -> None:
    """A key with scopes may read the account's affairs, and not widen itself."""
    session = client.sent((await client.sign_up("scoped@example.com")).session_token)
    made = await client.account.CreateKey(
        pb.CreateKeyRequest(scopes=[quota_pb2.Rule(provider="local-text")]), metadata=session
    )
    narrow = client.sent(made.api_key)
    assert (await client.account.ListKeys(pb.ListKeysRequest(), metadata=narrow)).keys[0].scopes[0].model == "*"
    for call in (
        client.account.CreateKey(pb.CreateKeyRequest(), metadata=narrow),
        client.account.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.key_id), metadata=narrow),
        client.account.UpdateMe(pb.UpdateMeRequest(name="x"), metadata=narrow),
    ):
        assert await code_of(call) == grpc.StatusCode.PERMISSION_DENIED


async def test_a_new_password_ends_other_sessions(client: Client) -> None:
    """After a change of password only the session that made it lives on, and only the new password works."""
    first = client.sent((await client.sign_up("change@example.com")).session_token)
    second = client.sent(
        (
            await client.account.LogIn(
                pb.LogInRequest(email="change@example.com", password=PASSWORD), metadata=client.sent()
            )
        ).session_token
    )
    wrong = pb.UpdateMeRequest(password="a new password", old_password="wrong")
    assert await code_of(client.account.UpdateMe(wrong, metadata=first)) == grpc.StatusCode.INVALID_ARGUMENT
    right = pb.UpdateMeRequest(password="a new password", old_password=PASSWORD)
    await client.account.UpdateMe(right, metadata=first)
    await client.account.GetMe(pb.GetMeRequest(), metadata=first)
    assert await code_of(client.account.GetMe(pb.GetMeRequest(), metadata=second)) == grpc.StatusCode.UNAUTHENTICATED
    old = client.account.LogIn(pb.LogInRequest(email="change@example.com", password=PASSWORD), metadata=client.sent())
    assert await code_of(old) == grpc.StatusCode.UNAUTHENTICATED


async def test_usage_and_limits_tell_the_truth(client: Client, auth: Auth, admit: Admit) -> None:
    """What was charged shows by day, key and model, and is gone from what is left of today."""
    session = client.sent((await client.sign_up("usage@example.com")).session_token)
    made = await client.account.CreateKey(pb.CreateKeyRequest(), metadata=session)
    admission = await admit(auth)
    for model, count in (("a", 100), ("a", 50), ("b", 7)):
        reservation = await admission.reserve(
            made.api_key,
            operation=quota_pb2.OPERATION_TEXT,
            provider="local-text",
            model=model,
            tokens=200,
            request_id="r",
        )
        reservation.settle(usage=tokens(count), provider="local-text", model=model)
    await admission.stop()
    usage = await client.account.GetUsage(pb.GetUsageRequest(), metadata=session)
    assert [(row.key_id, row.model, row.requests, row.charged_tokens) for row in usage.rows] == [
        (made.key.key_id, "a", 2, 150),
        (made.key.key_id, "b", 1, 7),
    ]
    limits = await client.account.GetLimits(pb.GetLimitsRequest(), metadata=session)
    assert limits.remaining.free.tokens == 100_000 - 157
    assert limits.remaining.limit.images == 50
    assert [rule.provider for rule in limits.rules] == ["local-*"]
    for bad in (pb.GetUsageRequest(from_day="yesterday"), pb.GetUsageRequest(from_day="2020-01-01")):
        assert await code_of(client.account.GetUsage(bad, metadata=session)) == grpc.StatusCode.INVALID_ARGUMENT


async def test_users_cannot_administer(client: Client, auth: Auth) -> None:
    """Every admin method refuses users, and callers without credentials."""
    session = (await client.sign_up("plain@example.com")).session_token
    service = admin_pb.DESCRIPTOR.services_by_name["AdminService"]
    for method in service.methods:
        request = getattr(admin_pb, method.input_type.name)()
        call = getattr(client.admin, method.name)
        assert await code_of(call(request, metadata=client.sent(session))) == grpc.StatusCode.PERMISSION_DENIED
        assert await code_of(call(request, metadata=client.sent())) == grpc.StatusCode.UNAUTHENTICATED


async def test_administrators_look_after_accounts(client: Client, root: str, auth: Auth) -> None:
    """Search, limits within the ceilings, rules, credits and disabling work, and each is in the audit log."""
    admin = client.sent(root)
    made = await client.sign_up("looked.after@example.com")
    account_id = made.account.account_id
    found = await client.admin.ListAccounts(admin_pb.ListAccountsRequest(query="LOOKED.after"), metadata=admin)
    assert [account.account_id for account in found.accounts] == [account_id]
    limits = account_pb2.Limits(tokens_a_day=1_000_000, images_a_day=500, keys=10)
    changed = await client.admin.UpdateAccount(
        admin_pb.UpdateAccountRequest(account_id=account_id, limits=limits), metadata=admin
    )
    assert changed.account.limits == limits
    for over in ({"tokens_a_day": 1_000_001}, {"images_a_day": 501}, {"keys": 11}):
        too_much = admin_pb.UpdateAccountRequest(account_id=account_id, limits=account_pb2.Limits(**over))
        assert await code_of(client.admin.UpdateAccount(too_much, metadata=admin)) == grpc.StatusCode.INVALID_ARGUMENT
    rule = quota_pb2.Rule(provider="openai-text", model="gpt-4*")
    granted = await client.admin.GrantRule(admin_pb.GrantRuleRequest(account_id=account_id, rule=rule), metadata=admin)
    listed = await client.admin.ListRules(admin_pb.ListRulesRequest(account_id=account_id), metadata=admin)
    assert [one.rule.provider for one in listed.rules] == ["local-*", "openai-text"]
    revoke = admin_pb.RevokeRuleRequest(account_id=account_id, rule_id=granted.rule.rule_id)
    await client.admin.RevokeRule(revoke, metadata=admin)
    assert await code_of(client.admin.RevokeRule(revoke, metadata=admin)) == grpc.StatusCode.NOT_FOUND
    for _ in range(2):
        credited = await client.admin.AddCredits(
            admin_pb.AddCreditsRequest(account_id=account_id, micro_credits=5_000_000, reference="paid 1"),
            metadata=admin,
        )
    assert credited.account.granted_micro_credits == 5_000_000
    overdraw = admin_pb.AddCreditsRequest(account_id=account_id, micro_credits=-5_000_001)
    assert await code_of(client.admin.AddCredits(overdraw, metadata=admin)) == grpc.StatusCode.FAILED_PRECONDITION
    await client.admin.UpdateAccount(
        admin_pb.UpdateAccountRequest(account_id=account_id, disabled=True), metadata=admin
    )
    ended = client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(made.session_token))
    assert await code_of(ended) == grpc.StatusCode.UNAUTHENTICATED
    audit = await client.admin.ListAudit(admin_pb.ListAuditRequest(account_id=account_id), metadata=admin)
    assert [entry.act for entry in audit.entries] == [
        "account.disabled",
        "credits.added",
        "rule.revoked",
        "rule.granted",
        "account.changed",
    ]
    assert auth.query("select sum(micro_credits) from credits where account_id = %s", account_id) == [(5_000_000,)]


async def test_lists_are_paged_without_gaps(client: Client, root: str, auth: Auth) -> None:
    """Walking the pages of accounts gives every one once."""
    admin = client.sent(root)
    for _ in range(7):
        await auth.account()
    seen: list[str] = []
    token = ""
    while True:
        page = await client.admin.ListAccounts(
            admin_pb.ListAccountsRequest(page_size=3, page_token=token), metadata=admin
        )
        seen.extend(account.account_id for account in page.accounts)
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == len(set(seen)) == auth.query("select count(*) from accounts")[0][0]
    bad = admin_pb.ListAccountsRequest(page_token="?")
    assert await code_of(client.admin.ListAccounts(bad, metadata=admin)) == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_new_time_zone_counts_from_the_next_day(client: Client, root: str, auth: Auth) -> None:
    """A change of zone leaves today as it is."""
    admin = client.sent(root)
    account_id, _, _ = await auth.account()
    before = await auth.quota_day(account_id)
    await client.admin.UpdateAccount(
        admin_pb.UpdateAccountRequest(account_id=account_id, zone="Asia/Seoul"), metadata=admin
    )
    assert await auth.quota_day(account_id) == before
    auth.query("update accounts set next_zone_day = next_zone_day - 1 where id = %s returning 1", account_id)
    (_, resets_at) = await auth.quota_day(account_id)
    assert resets_at.hour == 15  # midnight in Seoul
    unknown = admin_pb.UpdateAccountRequest(account_id=account_id, zone="Mars/Base")
    assert await code_of(client.admin.UpdateAccount(unknown, metadata=admin)) == grpc.StatusCode.INVALID_ARGUMENT


async def test_sign_up_by_invitation_and_closed(start: Start) -> None:
    """An invitation is good once; a closed gateway takes nobody."""
    auth = await start(signup="invite")
    client, link = await connected(auth)
    key = keys.make(PEPPER)
    await auth.accounts.create(role="admin", limits=CEILINGS, rules=[EVERYTHING], key=key)
    assert await code_of(client.sign_up("uninvited@example.com")) == grpc.StatusCode.PERMISSION_DENIED
    invitation = (
        await client.admin.CreateInvitation(
            admin_pb.CreateInvitationRequest(expires_in=Duration(seconds=60)), metadata=client.sent(key.secret)
        )
    ).invitation
    await client.sign_up("invited@example.com", invitation=invitation)
    assert await code_of(client.sign_up("second@example.com", invitation=invitation)) == grpc.StatusCode.ABORTED
    await link.close()
    closed, link = await connected(await start(signup="closed"))
    assert await code_of(closed.sign_up("late@example.com")) == grpc.StatusCode.PERMISSION_DENIED
    await link.close()


async def test_secrets_are_in_no_table_and_no_log(
    client: Client, auth: Auth, root: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Keys, session tokens and passwords that were sent are found in no row of any table and in no log line."""
    canary = "canary-password-42"
    made = await client.account.SignUp(
        pb.SignUpRequest(email="canary@example.com", password=canary), metadata=client.sent()
    )
    key = await client.account.CreateKey(pb.CreateKeyRequest(), metadata=client.sent(made.session_token))
    await client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(key.api_key))
    await code_of(client.account.GetMe(pb.GetMeRequest(), metadata=client.sent("moa-canary-of-a-wrong-key")))
    secrets = (canary, made.session_token, key.api_key, "moa-canary-of-a-wrong-key", root)
    tables = [name for (name,) in auth.query("select tablename from pg_tables where schemaname = 'public'")]
    assert "keys" in tables
    everything = "\n".join(str(auth.query(f"select t::text from {table} t")) for table in tables)
    told = capfd.readouterr()
    for secret in secrets:
        assert secret not in everything
        assert secret not in told.out + told.err
