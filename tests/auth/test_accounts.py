"""Accounts over the public services and the real PostgreSQL: signing up, logging in, what was used."""

from __future__ import annotations

import time

import grpc
import pytest
from argon2 import extract_parameters
from google.protobuf.duration_pb2 import Duration

from moa.account.v1 import account_pb2
from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import admin_service_pb2 as admin_pb
from moa.quota.v1 import quota_pb2
from services.auth.domain import keys
from services.auth.domain.accounts import CEILINGS, EVERYTHING
from services.auth.logins import Logins
from services.common.errors import RateLimited
from services.common.throttle import Throttle
from services.quota_client.amounts import Amount
from tests.auth.asking import PEPPER, tokens
from tests.auth.client import PASSWORD, Client, code_of, connected
from tests.auth.conftest import REAL_HASHING, Admit, Auth, Start


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
    for number in range(100):  # one more is let through every six seconds, and a password takes a while to check
        email = f"e{number}@example.com"
        call = client.account.LogIn(pb.LogInRequest(email=email, password="wrong"), metadata=client.sent())
        if await code_of(call) == grpc.StatusCode.RESOURCE_EXHAUSTED:
            break
    else:
        pytest.fail("the address never had to wait")
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


async def test_whether_responses_are_stored_goes_back_to_the_default(start: Start) -> None:
    """It is what the account said, until it says that it goes by the operator's default; both are on record."""
    auth = await start(fresh_s=0.01)
    client, link = await connected(auth.public_port)
    async with link:
        made = await client.sign_up("stores.by.default@example.com")
        me = client.sent(made.session_token)
        stored = await client.account.UpdateMe(pb.UpdateMeRequest(stores_responses=False), metadata=me)
        assert (stored.account.HasField("stores_responses"), stored.account.stores_responses) == (True, False)
        request = pb.UpdateMeRequest(by_default=["stores_responses"])
        assert not (await client.account.UpdateMe(request, metadata=me)).account.HasField("stores_responses")
        both = pb.UpdateMeRequest(by_default=["stores_responses"], stores_responses=True)
        for wrong in (both, pb.UpdateMeRequest(by_default=["name"])):
            assert await code_of(client.account.UpdateMe(wrong, metadata=me)) == grpc.StatusCode.INVALID_ARGUMENT
        act = "select details from audit where account_id = %s and act = 'account.changed' order by id"
        said = [details for (details,) in auth.query(act, made.account.account_id)]
        assert said == [["stores_responses=false"], ["stores_responses=default"]]


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
            need=Amount(200),
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
    assert not limits.remaining.limit.HasField("nano_usd"), "an account without a limit in dollars is told of none"
    assert not limits.remaining.free.HasField("nano_usd")
    assert [rule.provider for rule in limits.rules] == ["local-*"]
    for bad in (pb.GetUsageRequest(from_day="yesterday"), pb.GetUsageRequest(from_day="2020-01-01")):
        assert await code_of(client.account.GetUsage(bad, metadata=session)) == grpc.StatusCode.INVALID_ARGUMENT


async def test_limits_of_a_key_are_told_to_it(client: Client) -> None:
    """A key with limits of its own reads them beside its account's."""
    session = client.sent((await client.sign_up("limited@example.com")).session_token)
    whole = await client.account.GetLimits(pb.GetLimitsRequest(), metadata=session)
    assert not whole.HasField("key")
    made = await client.account.CreateKey(
        pb.CreateKeyRequest(name="small", tokens_a_day=300, requests_per_minute=7), metadata=session
    )
    told = await client.account.GetLimits(pb.GetLimitsRequest(), metadata=client.sent(made.api_key))
    assert told.limits == whole.limits
    assert (told.key.key_id, told.key.tokens_a_day, told.key.requests_per_minute) == (made.key.key_id, 300, 7)


async def test_sign_up_by_invitation_and_closed(start: Start) -> None:
    """An invitation is good once; a closed gateway takes nobody."""
    auth = await start(signup="invite")
    client, link = await connected(auth.public_port)
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
    closed, link = await connected((await start(signup="closed")).public_port)
    assert await code_of(closed.sign_up("late@example.com")) == grpc.StatusCode.PERMISSION_DENIED
    await link.close()


async def test_passwords_are_kept_as_argon2_and_sessions_are_short(client: Client, auth: Auth) -> None:
    """What is stored of a password is an argon2id hash, and a session ends within twelve hours."""
    made = await client.sign_up("hashed@example.com")
    ((stored,),) = auth.query("select password_hash from accounts where id = %s", made.account.account_id)
    assert stored.startswith("$argon2id$")
    assert PASSWORD not in stored
    assert 0 < made.expires_at.seconds - time.time() <= 12 * 3600


def test_a_missing_account_costs_what_a_password_costs() -> None:
    """What is verified where there is no account has the cost of a new password, and that is no small one."""
    hasher, decoy = REAL_HASHING
    assert not hasher.check_needs_rehash(decoy)
    cost = extract_parameters(decoy)
    assert (cost.memory_cost, cost.time_cost) >= (64 * 1024, 3)


async def test_a_sign_up_does_not_tell_whether_an_address_is_taken(start: Start) -> None:
    """A taken address, a used and an unknown invitation read alike, and an invitation asks after one address only."""
    auth = await start(signup="invite")
    client, link = await connected(auth.public_port)
    key = keys.make(PEPPER)
    await auth.accounts.create(role="admin", limits=CEILINGS, rules=[EVERYTHING], key=key)
    root = client.sent(key.secret)
    one, other = [
        (await client.admin.CreateInvitation(admin_pb.CreateInvitationRequest(), metadata=root)).invitation
        for _ in range(2)
    ]
    await client.sign_up("somebody@example.com", invitation=one)
    told = set()
    for email, invitation in (
        ("somebody@example.com", other),
        ("nobody@example.com", other),
        ("nobody@example.com", one),
        ("nobody@example.com", "inv-unknown"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.sign_up(email, invitation=invitation)
        trailers = {name: value for name, value in refused.value.trailing_metadata() or () if name == "x-moa-param"}
        told.add((refused.value.code(), refused.value.details(), str(trailers)))
    assert len(told) == 1
    await link.close()


async def test_an_open_sign_up_is_not_asked_who_has_an_account(client: Client) -> None:
    """Where everybody may sign up, the fourth taken address from one place is no answer any more, nor a free one."""
    await client.sign_up("present@example.com")
    told = set()
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.sign_up("present@example.com")
        assert refused.value.code() == grpc.StatusCode.ABORTED
        told.add(refused.value.details())
    for email in ("present@example.com", "absent@example.com"):
        assert await code_of(client.sign_up(email)) == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert told == {"no account can be made with this email and password; if you have an account already, log in"}
    client.address = "198.18.7.7"
    await client.sign_up("absent@example.com")


async def test_an_attack_on_an_account_does_not_keep_its_owner_out(client: Client) -> None:
    """Whoever guesses from one address waits; the owner logs in from another meanwhile."""
    await client.sign_up("owner@example.com")
    login = pb.LogInRequest(email="owner@example.com", password="wrong")
    told = [await code_of(client.account.LogIn(login, metadata=client.sent())) for _ in range(5)]
    assert told == [grpc.StatusCode.UNAUTHENTICATED] * 5
    # A busy machine takes so long for these that another try has come back.
    while told[-1] == grpc.StatusCode.UNAUTHENTICATED and len(told) < 40:
        told.append(await code_of(client.account.LogIn(login, metadata=client.sent())))
    assert told[-1] == grpc.StatusCode.RESOURCE_EXHAUSTED
    client.address = "203.0.113.42"
    right = pb.LogInRequest(email="owner@example.com", password=PASSWORD)
    assert (await client.account.LogIn(right, metadata=client.sent())).session_token


async def test_many_addresses_have_fewer_tries_each(auth: Auth) -> None:
    """Once many wrong passwords came for an account, an address has two tries in place of five; elsewhere five."""
    logins = Logins(auth.postgres, pepper=PEPPER, at_once=10, recovers_s=3600)

    async def tries(account: str, address: str) -> int:
        """How often an address may try before it has to wait."""
        for count in range(20):
            try:
                await logins.check(account, address)
            except RateLimited:
                return count
            await logins.wrong(account)
        raise AssertionError("it never has to wait")

    assert [await tries("attacked", f"192.0.2.{at}") for at in range(4)] == [5, 5, 2, 2]
    await logins.right("attacked", "192.0.2.2")
    assert await tries("attacked", "192.0.2.2") == 2
    assert await tries("another", "192.0.2.1") == 5


async def test_a_credential_is_found_by_the_rule_of_all_services(client: Client, auth: Auth) -> None:
    """In any of the headers; two different ones are refused, whichever stands first, as where answers are paid."""
    session = (await client.sign_up("two.places@example.com")).session_token
    ask = pb.GetMeRequest()
    plain = client.sent()
    for header in (("x-api-key", session), ("x-goog-api-key", session), ("authorization", f"Bearer {session}")):
        found = await client.account.GetMe(ask, metadata=(*plain, header, ("x-api-key", session)))
        assert found.account.email == "two.places@example.com"
    for both in ((("x-api-key", session), ("x-goog-api-key", "moa-other")), (("x-api-key", f"{session},moa-other"),)):
        call = client.account.GetMe(ask, metadata=(*plain, *both))
        assert await code_of(call) == grpc.StatusCode.UNAUTHENTICATED
