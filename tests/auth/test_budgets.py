"""Budgets: limits on a part of what is asked for, by model and tag, over a team, an account, a key or everybody."""

from __future__ import annotations

import contextlib
from typing import Any

import grpc
import psycopg
import pytest

from moa.account.v1 import account_pb2
from moa.account.v1 import account_service_pb2 as account_service
from moa.account.v1 import budget_service_pb2 as pb
from moa.account.v1 import team_service_pb2 as team_service
from moa.quota.v1 import quota_service_pb2, quota_service_pb2_grpc
from services.common.errors import QuotaExhausted, RateLimited
from services.common.rpc.client import channel, metadata
from services.quota_client import Reservation
from services.quota_client.amounts import NOTHING, UNLIMITED, Amount
from tests.auth.asking import TOKEN, audited, reserve, settle, until
from tests.auth.client import Client, code_of
from tests.auth.conftest import Admit, Auth
from tests.auth.made_teams import eventually, put, team


async def spent_of(client: Client, root: str, budget_id: str) -> list[str]:
    """Return what is charged of each limit of a budget."""
    shown = await client.budget.GetBudget(pb.GetBudgetRequest(budget_id=budget_id), metadata=client.sent(root))
    return [one.used for one in shown.standings]


async def budget(client: Client, root: str, **more: Any) -> str:
    """Make a budget; return its id."""
    limits = account_pb2.Limits(**{name: more.pop(name) for name in list(more) if "_" in name})
    request = pb.CreateBudgetRequest(limits=limits, **more)
    return (await client.budget.CreateBudget(request, metadata=client.sent(root))).budget.budget_id


@pytest.fixture
async def everybodys(auth: Auth, client: Client, root: str) -> Any:
    """Budgets of everybody bind other tests' accounts, too: they end with the test."""
    made: list[str] = []

    async def make(**more: Any) -> str:
        made.append(await budget(client, root, **more))
        return made[-1]

    yield make
    for budget_id in made:
        await client.budget.DeleteBudget(pb.DeleteBudgetRequest(budget_id=budget_id), metadata=client.sent(root))


async def test_a_request_counts_on_every_budget_that_it_matches_and_on_no_other(
    auth: Auth, admit: Admit, client: Client, root: str, everybodys: Any
) -> None:
    """By model and tag, over key, account, team and everybody, beside the limits that there are; the books balance."""
    account_id, key_id, key = await auth.account()
    team_id = await team(client, root)
    await put(client, root, team_id, account_id)
    plenty = 50_000
    by_key = await budget(client, root, owner=key_id, tokens_a_day=plenty)
    by_model = await budget(client, root, owner=account_id, model="gpt-*", tokens_a_day=plenty)
    by_tag = await budget(client, root, owner=team_id, tag="eu", tokens_a_month=plenty)
    by_both = await everybodys(provider="openai-*", model="gpt-5", tag="eu", tokens_in_total=plenty)
    asked = [
        ("local-text", "m", (), 1, {by_key}),
        ("openai-text", "gpt-4", ("us",), 10, {by_key, by_model}),
        ("openai-text", "gpt-4", ("eu", "us"), 100, {by_key, by_model, by_tag}),
        ("openai-text", "gpt-5", ("eu",), 1000, {by_key, by_model, by_tag, by_both}),
        ("azure-text", "gpt-5", ("eu",), 10_000, {by_key, by_model, by_tag}),
    ]
    admission = await admit(auth)
    for _ in range(2):  # cold, then warm
        for provider, model, tags, count, _ in asked:
            reservation = await reserve(admission, key, count, provider=provider, model=model, tags=tags)
            settle(reservation, count)
    await admission.stop()
    for budget_id in (by_key, by_model, by_tag, by_both):
        expected = sum(2 * count for *_, count, on in asked if budget_id in on)
        assert await spent_of(client, root, budget_id) == [str(expected)]
    assert auth.spent(account_id)[0] == 22_222
    await audited(auth.url)


async def test_the_budget_that_is_used_up_first_refuses_by_its_name(
    auth: Auth, admit: Admit, client: Client, root: str
) -> None:
    """What it does not count is served on; two routers and a second replica spend no more of it together."""
    account_id, _, key = await auth.account()
    await budget(client, root, name="research", owner=account_id, model="gpt-*", tokens_a_day=1000)
    one, other = await admit(auth), await admit(auth)
    spent = 0
    refused: list[str] = []
    for at in range(20):
        try:
            settle(await reserve((one, other)[at % 2], key, 90, model="gpt-5"), 90)
        except QuotaExhausted as error:
            refused.append(error.message)
        else:
            spent += 90
    assert spent == 990
    words = "the budget research of this account's limit of 1,000 tokens a day does not cover this request"
    assert refused
    assert all(message.startswith(words) for message in refused)
    settle(await reserve(one, key, 90), 90)
    await until(lambda: auth.spent(account_id)[0] == spent + 90)
    await audited(auth.url)


async def test_dollars_of_a_budget_are_charged_to_the_nano_dollar(
    auth: Auth, admit: Admit, client: Client, root: str
) -> None:
    """Reserved from an upper bound and settled by what was reported, on a tag alone."""
    account_id, _, key = await auth.account()
    budget_id = await budget(client, root, owner=account_id, tag="x", usd_a_month="0.000001")
    admission = await admit(auth)
    need = Amount(tokens=100, nano_usd=600)
    settle(await reserve(admission, key, 100, tags=("x",), need=need, least=need, cost=lambda *_: 123), 10)
    with pytest.raises(QuotaExhausted, match=r"limit of \$0\.000001 a month"):
        await reserve(admission, key, 100, tags=("x",), need=need._replace(nano_usd=900), least=Amount(nano_usd=900))
    await admission.stop()
    taken = "select nano_usd from quota_counters where subject = %s and period = 'month'"
    assert auth.query(taken, budget_id)[0][0] <= 1000
    assert await spent_of(client, root, budget_id) == ["0.000000123"]


async def test_what_lies_idle_for_other_budgets_of_a_key_is_there_for_one(
    auth: Auth, admit: Admit, client: Client, root: str
) -> None:
    """Leases of a key are parted by budgets: what one part holds of the account's limit does not refuse another."""
    account_id, _, key = await auth.account(tokens=1000)
    for tag in ("a", "b", "c"):
        await budget(client, root, owner=account_id, tag=tag, tokens_a_day=1000)
    admission = await admit(auth)
    for tag in ("a", "b", "c"):
        settle(await reserve(admission, key, 200, tags=(tag,)), 200)
    settle(await reserve(admission, key, 390, tags=("c",)), 390)
    await audited(auth.url)


async def test_a_budget_binds_keys_that_are_in_use_within_moments(
    auth: Auth, admit: Admit, client: Client, root: str
) -> None:
    """What was lent before the budget was made, or after it is gone, serves no request that should count on it."""
    account_id, _, key = await auth.account()
    admission = await admit(auth)
    settle(await reserve(admission, key, 10), 10)
    budget_id = await budget(client, root, owner=account_id, tokens_a_day=100)

    async def refused() -> bool:
        try:
            (await reserve(admission, key, 101)).release()
        except QuotaExhausted:
            return True
        return False

    await eventually(refused)
    gone = pb.DeleteBudgetRequest(budget_id=budget_id)
    for _ in range(2):
        await client.budget.DeleteBudget(gone, metadata=client.sent(root))
    await eventually(refused, False)
    charged = "select count(*)::int from ledger l join blocks b on b.id = l.block_id where %s = any(b.counts_as)"
    assert auth.query(charged + " and l.kind = 'settle'", budget_id) == [(0,)]


async def test_a_holder_that_knows_no_budgets_counts_on_all_of_the_key(auth: Auth, client: Client, root: str) -> None:
    """It would serve any request from what it is lent; and a replica that knows none borrows nothing."""
    account_id, key_id, key = await auth.account()
    made = sorted([await budget(client, root, owner=account_id, tag=tag, tokens_a_day=100) for tag in "ab"])
    amount = Amount(tokens=10).message()
    async with channel(f"ipv4:{auth.address}") as link:
        stub: quota_service_pb2_grpc.QuotaServiceAsyncStub = quota_service_pb2_grpc.QuotaServiceStub(link)
        request = quota_service_pb2.AdmitRequest(api_key=key, holder="old", need=amount, want=amount, model="m")
        answer = await stub.Admit(request, metadata=metadata(TOKEN, "r"))
        task = quota_service_pb2.AdmitRequest(
            api_key=key, holder="t", need=amount, want=amount, model="m", lasting=True, budgets_known=True, tags=["b"]
        )
        lasting = await stub.Admit(task, metadata=metadata(TOKEN, "r"))
    assert list(answer.grant.lease.budgets) == made
    assert len(lasting.grant.lease.budgets) == 1
    assert auth.query("select counts_as from blocks where holder = 't'") == [([key_id, *lasting.grant.lease.budgets],)]
    with psycopg.connect(auth.url) as link_, pytest.raises(psycopg.errors.SerializationFailure):
        link_.execute(
            "insert into blocks (id, account_id, key_id, day, holder, tokens, images, expires_at)"
            " values (gen_random_uuid(), %s, %s, '2026-11-20', 'auth-old', 1, 0, now())",
            (account_id, key_id),
        )


async def test_keys_that_a_key_with_a_budget_makes_or_is_replaced_by_keep_it(
    auth: Auth, admit: Admit, client: Client, root: str
) -> None:
    """A budget on a key is no less a limit than its own: neither a second key nor a new secret is a way around it."""
    me = await client.sign_up("budgeted@example.com")
    session = client.sent(me.session_token)
    make = account_service.CreateKeyRequest(manages=[account_pb2.SCOPE_ACCOUNT])
    auth.query("update accounts set key_count = 9 where id = %s returning 1", me.account.account_id)
    made = await client.account.CreateKey(make, metadata=session)
    budget_id = await budget(client, root, owner=made.key.key_id, tokens_a_day=100)
    second = await client.account.CreateKey(make, metadata=client.sent(made.api_key))
    assert second.key.bound_by == made.key.key_id
    rotate = account_service.RotateKeyRequest(key_id=made.key.key_id)
    third = await client.account.RotateKey(rotate, metadata=session)
    admission = await admit(auth)
    for key in (second.api_key, third.api_key):
        settle(await reserve(admission, key, 40), 40)
    with pytest.raises(QuotaExhausted, match="the budget"):
        await reserve(admission, third.api_key, 40)
    await admission.stop()
    assert await spent_of(client, root, budget_id) == ["80"]


async def test_a_budget_has_a_pace(auth: Auth, admit: Admit, client: Client, root: str) -> None:
    """Requests and tokens a minute of what it counts, and of nothing else; a refusal tells what its minute has left."""
    account_id, _, key = await auth.account()
    await budget(client, root, name="nightly", owner=account_id, tag="slow", requests_per_minute=2)
    await budget(client, root, name="small", owner=account_id, tag="short", tokens_per_minute=600)
    admission = await admit(auth)
    for _ in range(2):
        settle(await reserve(admission, key, 1, tags=("slow",)), 1)
    with pytest.raises(RateLimited, match="at most 2 requests a minute for the budget nightly of this account"):
        await reserve(admission, key, 1, tags=("slow",))
    settle(await reserve(admission, key, 1), 1)
    settle(await reserve(admission, key, 600, tags=("short",)), 600)
    with pytest.raises(RateLimited, match="at most 600 tokens a minute for the budget small") as refused:
        await reserve(admission, key, 600, tags=("short",))
    told = dict(refused.value.headers)
    assert told["x-ratelimit-limit-tokens"] == "600"
    assert int(told["x-ratelimit-remaining-tokens"]) < 600


async def test_who_makes_budgets(client: Client, auth: Auth, root: str) -> None:
    """Administrators; an owner of a team reads its budgets, and changes none; what nobody has cannot own one."""
    admin = client.sent(root)
    team_id = await team(client, root)
    made = await budget(client, root, owner=team_id, name="b", tag="t", usd_a_day="1.50")
    boss = await client.sign_up("budget.owner@example.com")
    await put(client, root, team_id, boss.account.account_id, account_pb2.TEAM_ROLE_OWNER)
    as_owner = client.sent(boss.session_token)
    listed = await client.budget.ListBudgets(pb.ListBudgetsRequest(owner=team_id), metadata=as_owner)
    assert [(one.budget_id, one.provider, one.model, one.tag) for one in listed.budgets] == [(made, "*", "*", "t")]
    assert await code_of(client.budget.ListBudgets(pb.ListBudgetsRequest(), metadata=as_owner)) == (
        grpc.StatusCode.PERMISSION_DENIED
    )
    requests = {
        "UpdateBudget": pb.UpdateBudgetRequest(budget_id=made, name="x"),
        "DeleteBudget": pb.DeleteBudgetRequest(budget_id=made),
    }
    read = await client.budget.GetBudget(pb.GetBudgetRequest(budget_id=made), metadata=as_owner)
    assert (read.budget.budget_id, read.webhook_secret) == (made, "")
    for method, request in requests.items():
        call = getattr(client.budget, method)
        assert await code_of(call(request, metadata=as_owner)) == grpc.StatusCode.PERMISSION_DENIED
        assert await code_of(call(request, metadata=client.sent())) == grpc.StatusCode.UNAUTHENTICATED
    changed = await client.budget.UpdateBudget(
        pb.UpdateBudgetRequest(budget_id=made, limits=account_pb2.Limits(tokens_a_day=5), no_limit=["usd_a_day"]),
        metadata=admin,
    )
    assert changed.budget.limits == account_pb2.Limits(tokens_a_day=5)
    limited = account_pb2.Limits(tokens_a_day=1)
    for tag, is_taken in (("a" * 65, False), ("user:" + "a" * 65, False), ("user:" + "a" * 64, True), ("a" * 64, True)):
        request = pb.CreateBudgetRequest(owner=boss.account.account_id, limits=limited, tag=tag)
        if is_taken:
            assert (await client.budget.CreateBudget(request, metadata=admin)).budget.tag == tag
        else:
            refused = await code_of(client.budget.CreateBudget(request, metadata=admin))
            assert refused == grpc.StatusCode.INVALID_ARGUMENT, tag
    for owner in ("team_none", "key_none", "acc_none"):
        request = pb.CreateBudgetRequest(owner=owner, limits=limited)
        assert await code_of(client.budget.CreateBudget(request, metadata=admin)) == grpc.StatusCode.NOT_FOUND
    request = pb.CreateBudgetRequest(owner=team_id, limits=limited)
    auth.query(
        "insert into budgets (id, owner, tokens_a_day) select 'budget_' || md5(n || %s), %s, 1"
        " from generate_series(1, 18) n returning 1",
        team_id,
        team_id,
    )
    await client.budget.CreateBudget(request, metadata=admin)
    assert await code_of(client.budget.CreateBudget(request, metadata=admin)) == grpc.StatusCode.ABORTED
    acts = auth.query("select distinct act from audit where act like 'budget.%%' and %s = any(details)", f"id={made}")
    assert acts == [("budget.created",)]


async def test_an_owner_makes_budgets_within_the_team(auth: Auth, admit: Admit, client: Client, root: str) -> None:
    """Of the team, its members and their keys, with no limit above the team's; they bind while their member is in it.
    Of others and of everybody an owner makes, changes and reads none."""
    denied = grpc.StatusCode.PERMISSION_DENIED
    team_id = await team(client, root, limits=account_pb2.Limits(tokens_a_day=1000))
    boss = await client.sign_up("owns.budgets@example.com")
    as_owner = client.sent(boss.session_token)
    await put(client, root, team_id, boss.account.account_id, account_pb2.TEAM_ROLE_OWNER)
    member_id, key_id, key = await auth.account()
    stranger_id, _, _ = await auth.account()
    await put(client, root, team_id, member_id)
    for owner in ("", stranger_id, "team_none"):
        request = pb.CreateBudgetRequest(owner=owner, limits=account_pb2.Limits(tokens_a_day=1))
        assert await code_of(client.budget.CreateBudget(request, metadata=as_owner)) == denied
    above = pb.CreateBudgetRequest(owner=member_id, limits=account_pb2.Limits(tokens_a_day=1001))
    assert await code_of(client.budget.CreateBudget(above, metadata=as_owner)) == denied
    limits = account_pb2.Limits(tokens_a_day=100)
    for owner in (team_id, key_id, member_id):
        request = pb.CreateBudgetRequest(owner=owner, name="part", limits=limits)
        made = (await client.budget.CreateBudget(request, metadata=as_owner)).budget.budget_id
    read = await client.budget.GetBudget(pb.GetBudgetRequest(budget_id=made), metadata=as_owner)
    assert read.webhook_secret
    raised = pb.UpdateBudgetRequest(budget_id=made, limits=account_pb2.Limits(tokens_a_day=1001))
    assert await code_of(client.budget.UpdateBudget(raised, metadata=as_owner)) == denied
    lowered = pb.UpdateBudgetRequest(budget_id=made, limits=account_pb2.Limits(tokens_a_day=50))
    await client.budget.UpdateBudget(lowered, metadata=as_owner)
    admission = await admit(auth)
    with pytest.raises(QuotaExhausted, match="the budget part of this account's limit of 50 tokens a day"):
        await reserve(admission, key, 60)
    others = await budget(client, root, owner=stranger_id, tokens_a_day=5)
    for call in (
        client.budget.GetBudget(pb.GetBudgetRequest(budget_id=others), metadata=as_owner),
        client.budget.UpdateBudget(pb.UpdateBudgetRequest(budget_id=others, name="x"), metadata=as_owner),
        client.budget.DeleteBudget(pb.DeleteBudgetRequest(budget_id=others), metadata=as_owner),
    ):
        assert await code_of(call) == grpc.StatusCode.NOT_FOUND
    gone = team_service.RemoveMemberRequest(team_id=team_id, account_id=member_id)
    await client.team.RemoveMember(gone, metadata=as_owner)
    # One that has not seen the key need not wait until it looks again.
    another = await admit(auth)

    async def is_free() -> bool:
        try:
            (await reserve(another, key, 60)).release()
        except QuotaExhausted:
            return False
        return True

    await eventually(is_free)
    for _ in range(2):
        await client.budget.DeleteBudget(pb.DeleteBudgetRequest(budget_id=made), metadata=as_owner)


async def test_a_budget_without_any_limit_is_refused(client: Client, auth: Auth, root: str) -> None:
    """A budget that limits nothing is not made, and keeps the last of its limits: deleting it is said to be the way."""
    admin = client.sent(root)
    account_id, _, _ = await auth.account()
    none = client.budget.CreateBudget(pb.CreateBudgetRequest(owner=account_id), metadata=admin)
    with pytest.raises(grpc.aio.AioRpcError, match="at least one limit") as refused:
        await none
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    made = await budget(client, root, owner=account_id, tokens_a_day=5)
    taken = pb.UpdateBudgetRequest(budget_id=made, no_limit=["tokens_a_day"])
    with pytest.raises(grpc.aio.AioRpcError, match="delete the budget") as refused:
        await client.budget.UpdateBudget(taken, metadata=admin)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    shown = await client.budget.GetBudget(pb.GetBudgetRequest(budget_id=made), metadata=admin)
    assert shown.budget.limits == account_pb2.Limits(tokens_a_day=5)
    renamed = await client.budget.UpdateBudget(pb.UpdateBudgetRequest(budget_id=made, name="x"), metadata=admin)
    assert renamed.budget.name == "x"


async def test_a_refusal_says_whose_budget_it_is(
    auth: Auth, admit: Admit, client: Client, root: str, everybodys: Any
) -> None:
    """Of a team by its name, of this account, of this key, or of everybody."""
    account_id, key_id, key = await auth.account()
    team_id = await team(client, root, name="ml")
    await put(client, root, team_id, account_id)
    for tag, owner in (("team", team_id), ("account", account_id), ("key", key_id)):
        await budget(client, root, name="nightly", owner=owner, tag=tag, requests_a_day=0)
    await everybodys(name="nightly", tag="everybody", requests_a_day=0)
    admission = await admit(auth)
    whose = {"team": "team ml", "account": "this account", "key": "this key", "everybody": "everybody"}
    for tag, words in whose.items():
        with pytest.raises(QuotaExhausted, match=f"^the budget nightly of {words}'s limit of 0 requests a day"):
            await reserve(admission, key, 1, tags=(tag,))


async def test_images_and_dollars_of_a_minute_are_counted_over_routers(
    auth: Auth, admit: Admit, client: Client, root: str
) -> None:
    """Two routers have one minute of a budget together, also after the database forgot what it does not log; an answer
    grows as far as that goes, and less of what no minute has is granted."""
    account_id, _, key = await auth.account(images=1000)
    await budget(client, root, owner=account_id, name="art", model="dall-*", images_per_minute=5)
    await budget(client, root, owner=account_id, name="talk", model="gpt-*", usd_per_minute="0.000001")
    one, other = await admit(auth), await admit(auth)
    all_of_it = Amount(images=5)
    drawn = await reserve(one, key, need=all_of_it, least=all_of_it, model="dall-e-3")
    auth.query("delete from paces returning 1")
    with pytest.raises(RateLimited, match="at most 5 images a minute for the budget art of this account") as refused:
        await reserve(other, key, need=all_of_it, least=all_of_it, model="dall-e-3")
    assert 0 < (refused.value.retry_after_s or 0) <= 60.1
    with pytest.raises(QuotaExhausted, match="this request may come to 10 images; ask for less"):
        await reserve(other, key, need=all_of_it * 2, least=all_of_it * 2, model="dall-e-3")
    drawn.release()

    need = Amount(tokens=10, nano_usd=600)
    talk = await reserve(one, key, need=need, least=need, model="gpt-5", cost=lambda *_: 700)
    with pytest.raises(QuotaExhausted, match=r"at most \$0\.000001 a minute for the budget talk"):
        await talk.extend(need._replace(nano_usd=1000), least=need)
    assert await talk.extend(need._replace(nano_usd=300), least=NOTHING) == need._replace(nano_usd=300)
    talk.release()
    long: Reservation | None = None
    while long is None:  # until auth has all of it back; the test's own time limit ends this
        with contextlib.suppress(RateLimited):
            long = await reserve(one, key, need=need._replace(nano_usd=5000), least=need, model="gpt-5")
    assert long.amount == need._replace(nano_usd=1000, requests=1)
    who = await one.identify(key)
    assert who.asking("local-text", "gpt-5", ()).free(NOTHING).nano_usd < UNLIMITED == who.free(NOTHING).nano_usd
    long.release()
    await one.stop()
    await audited(auth.url)
