"""Teams: what their accounts keep together, who looks after them, and how they end."""

from __future__ import annotations

from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.message import Message

from moa.account.v1 import account_pb2
from moa.account.v1 import account_service_pb2 as account_service
from moa.account.v1 import admin_service_pb2 as admin_pb
from moa.account.v1 import team_service_pb2 as pb
from moa.quota.v1 import quota_pb2
from services.auth.domain.accounts import Limits
from services.common.errors import PermissionDenied, QuotaExhausted
from tests.auth.asking import audited, reserve, settle, until
from tests.auth.client import PASSWORD, Client, code_of
from tests.auth.conftest import Admit, Auth
from tests.auth.made_teams import MEMBER, OWNER, eventually, put, refusal, team


async def test_accounts_and_keys_of_a_team_use_its_limits_together(
    auth: Auth, admit: Admit, client: Client, root: str
) -> None:
    """Two members and a key of the team's own have 300 tokens a month together; the refusal says whose limit it is."""
    team_id = await team(client, root, limits=account_pb2.Limits(tokens_a_month=300))
    one_id, _, one = await auth.account()
    other_id, _, other = await auth.account()
    for account_id in (one_id, other_id):
        await put(client, root, team_id, account_id)
    made = await client.team.CreateTeamKey(pb.CreateTeamKeyRequest(team_id=team_id), metadata=client.sent(root))
    admission = await admit(auth)
    for key in (one, other, made.api_key):
        settle(await reserve(admission, key, 80), 80)
    booked = "select count(*)::int from ledger where kind = 'settle' and team_id = %s"
    await until(lambda: auth.query(booked, team_id) == [(3,)])
    words = "the team research's limit of 300 tokens a month does not cover this request; it begins anew at 20"
    with pytest.raises(QuotaExhausted, match=words) as refused:
        await reserve(admission, other, 80)
    assert refused.value.retry_after_s is not None
    got = await client.team.GetTeam(pb.GetTeamRequest(team_id=team_id), metadata=client.sent(root))
    assert [(one.limit, one.used, one.most) for one in got.standings] == [("tokens_a_month", "240", "300")]
    limits = await client.account.GetLimits(account_service.GetLimitsRequest(), metadata=client.sent(one))
    assert [(shared.name, shared.used) for shared in limits.standings if shared.owner == team_id] == [
        ("research", "240")
    ]
    await audited(auth.url)


async def test_a_member_that_moves_uses_the_other_teams_limits(
    auth: Auth, admit: Admit, client: Client, root: str
) -> None:
    """Nothing that was lent on one team serves a request after the account is in another with equal limits."""
    first = await team(client, root, limits=account_pb2.Limits(tokens_a_day=100_000))
    second = await team(client, root, limits=account_pb2.Limits(tokens_a_day=100_000))
    account_id, _, key = await auth.account()
    await put(client, root, first, account_id)
    admission = await admit(auth)
    settle(await reserve(admission, key, 10), 10)
    await put(client, root, second, account_id)
    ((now,),) = auth.query("select clock_timestamp()")

    async def moved() -> bool:
        settle(await reserve(admission, key, 10), 10)
        return bool(auth.query("select 1 from blocks where %s = any(counts_as)", second))

    await eventually(moved)
    assert auth.query("select 1 from blocks where %s = any(counts_as) and created_at > %s", first, now) == []
    await admission.stop()
    (taken,) = auth.query("select tokens from quota_counters where subject = %s and period = 'day'", second)[0]
    assert taken > 0
    await audited(auth.url)


async def test_a_process_that_knows_no_team_borrows_nothing_for_its_accounts(
    auth: Auth, client: Client, root: str
) -> None:
    """A block that does not count on its account's team is refused by the database, whoever borrows it."""
    account_id, key_id, _ = await auth.account()
    insert = (
        "insert into blocks (id, account_id, key_id, day, holder, tokens, images, expires_at)"
        " values (gen_random_uuid(), %s, %s, '2026-11-20', 'auth-old', 1, 0, now())"
    )
    with psycopg.connect(auth.url) as link:
        link.execute(insert, (account_id, key_id))
        link.rollback()
        await put(client, root, await team(client, root), account_id)
        with pytest.raises(psycopg.errors.SerializationFailure):
            link.execute(insert, (account_id, key_id))


async def test_rules_of_a_team_are_its_members(auth: Auth, admit: Admit, client: Client, root: str) -> None:
    """A member may use what its team may, beside what it may by itself, and no more once it has left."""
    team_id = await team(client, root, rules=[quota_pb2.Rule(provider="openai-text", model="gpt-*")])
    made = await client.sign_up("ruled@example.com")
    account_id = made.account.account_id
    _, key = await auth.key(account_id)
    admission = await admit(auth)

    async def may() -> bool:
        try:
            (await reserve(admission, key, 1, provider="openai-text", model="gpt-5")).release()
        except PermissionDenied:
            return False
        return True

    assert not await may()
    await put(client, root, team_id, account_id)
    await eventually(may)
    leave = pb.RemoveMemberRequest(team_id=team_id, account_id=account_id)
    await client.team.RemoveMember(leave, metadata=client.sent(made.session_token))
    await eventually(may, False)


async def test_an_owner_looks_after_its_own_team_alone(client: Client, auth: Auth, root: str) -> None:
    """An owner sees to members, keys, invitations and limits beneath the team's; not to its rules or limits."""
    own = await team(client, root, limits=account_pb2.Limits(tokens_a_day=5000, usd_a_month="5"))
    foreign = await team(client, root)
    boss, other = await client.sign_up("owner@example.com"), await client.sign_up("member@example.com")
    owner, member = boss.account.account_id, other.account.account_id
    await put(client, root, own, owner, OWNER)
    await put(client, root, own, member)
    as_owner, as_member = client.sent(boss.session_token), client.sent(other.session_token)
    await _limits_its_members(client, own, member, as_owner)
    key_id = await _looks_after_its_keys(client, own, as_owner, as_member)
    await _keeps_an_owner(client, own, owner, member, as_owner, as_member)
    await _is_refused_the_rest(client, own, foreign, owner, member, key_id, as_owner, as_member)


async def _limits_its_members(client: Client, own: str, member: str, as_owner: Any) -> None:
    call = client.team
    limited = account_pb2.Limits(tokens_a_day=4000, usd_a_month="2.50")
    update = pb.UpdateMemberRequest(team_id=own, account_id=member, limits=limited)
    changed = (await call.UpdateMember(update, metadata=as_owner)).member
    assert (changed.account.limits.tokens_a_day, changed.account.limits.usd_a_month) == (4000, "2.50")
    for beyond in (
        account_pb2.Limits(tokens_a_day=5001),
        account_pb2.Limits(images_a_day=51),
        account_pb2.Limits(keys=2),
    ):
        update = pb.UpdateMemberRequest(team_id=own, account_id=member, limits=beyond)
        assert await code_of(call.UpdateMember(update, metadata=as_owner)) == grpc.StatusCode.PERMISSION_DENIED
    unlimited = pb.UpdateMemberRequest(team_id=own, account_id=member, no_limit=["usd_a_day", "usd_a_month"])
    freed = (await call.UpdateMember(unlimited, metadata=as_owner)).member.account
    assert not freed.limits.HasField("usd_a_month")


async def _looks_after_its_keys(client: Client, own: str, as_owner: Any, as_member: Any) -> str:
    """Return the id of a key that it made."""
    call = client.team
    key = await call.CreateTeamKey(pb.CreateTeamKeyRequest(team_id=own, name="service"), metadata=as_owner)
    whose = pb.ListMembersRequest(team_id=own)
    assert await refusal(client, whose, client.sent(key.api_key)) == grpc.StatusCode.PERMISSION_DENIED
    change = pb.UpdateTeamKeyRequest(team_id=own, key_id=key.key.key_id, limits=account_pb2.Limits(requests_a_day=5))
    assert (await call.UpdateTeamKey(change, metadata=as_owner)).key.limits.requests_a_day == 5
    rotate = pb.RotateTeamKeyRequest(team_id=own, key_id=key.key.key_id)
    rotate.overlap.FromSeconds(3600)
    assert await code_of(call.RotateTeamKey(rotate, metadata=as_member)) == grpc.StatusCode.PERMISSION_DENIED
    rotated = await call.RotateTeamKey(rotate, metadata=as_owner)
    assert (rotated.key.name, rotated.key.limits.requests_a_day) == ("service", 5)
    for secret in (key.api_key, rotated.api_key):
        me = await client.account.GetMe(account_service.GetMeRequest(), metadata=client.sent(secret))
        assert me.account.team_id == own
    revoke = pb.RevokeTeamKeyRequest(team_id=own, key_id=rotated.key.key_id)
    assert (await call.RevokeTeamKey(revoke, metadata=as_owner)).key.HasField("revoked_at")
    rotate.key_id = rotated.key.key_id
    assert await code_of(call.RotateTeamKey(rotate, metadata=as_owner)) == grpc.StatusCode.ABORTED
    rotate.key_id = "key_0"
    assert await code_of(call.RotateTeamKey(rotate, metadata=as_owner)) == grpc.StatusCode.NOT_FOUND
    assert len((await call.ListTeamKeys(pb.ListTeamKeysRequest(team_id=own), metadata=as_owner)).keys) == 2
    assert (await call.UpdateTeam(pb.UpdateTeamRequest(team_id=own, name="new"), metadata=as_owner)).team.name == "new"
    return key.key.key_id


async def _keeps_an_owner(client: Client, own: str, owner: str, member: str, as_owner: Any, as_member: Any) -> None:
    call = client.team
    members = await call.ListMembers(pb.ListMembersRequest(team_id=own, page_size=1), metadata=as_member)
    behind = pb.ListMembersRequest(team_id=own, page_token=members.next_page_token)
    members.MergeFrom(await call.ListMembers(behind, metadata=as_member))
    assert [(one.account.account_id, one.role) for one in members.members] == [
        (owner, OWNER),
        (member, MEMBER),
    ]
    demoted = pb.UpdateMemberRequest(team_id=own, account_id=owner, role=MEMBER)
    assert await code_of(call.UpdateMember(demoted, metadata=as_owner)) == grpc.StatusCode.ABORTED


async def _is_refused_the_rest(
    client: Client, own: str, foreign: str, owner: str, member: str, key_id: str, as_owner: Any, as_member: Any
) -> None:
    of_owner: list[Message] = [
        pb.UpdateTeamRequest(team_id=own, limits=account_pb2.Limits(tokens_a_day=1)),
        pb.UpdateTeamRequest(team_id=own, rules=pb.Rules()),
        pb.CreateTeamKeyRequest(team_id=own, limits=account_pb2.Limits(usd_a_month="5.01")),
        pb.UpdateTeamKeyRequest(team_id=own, key_id=key_id, limits=account_pb2.Limits(tokens_a_day=5001)),
        pb.AddMemberRequest(team_id=own, account_id=member),
        pb.ListTeamsRequest(),
        pb.CreateTeamRequest(),
        pb.DeleteTeamRequest(team_id=own),
        pb.ListInvitationsRequest(),
        pb.RevokeInvitationRequest(),
    ]
    of_member: list[Message] = [
        pb.UpdateMemberRequest(team_id=own, account_id=member, role=OWNER),
        pb.RemoveMemberRequest(team_id=own, account_id=owner),
        pb.CreateTeamKeyRequest(team_id=own),
        pb.ListTeamKeysRequest(team_id=own),
        pb.CreateTeamInvitationRequest(team_id=own),
    ]
    for who, refused in ((as_owner, of_owner), (as_member, of_member)):
        for request in refused:
            assert await refusal(client, request, who) == grpc.StatusCode.PERMISSION_DENIED, request
    of_strangers: list[Message] = [
        pb.UpdateTeamRequest(team_id=foreign, name="mine"),
        pb.CreateTeamKeyRequest(team_id=foreign),
        pb.RotateTeamKeyRequest(team_id=foreign, key_id=key_id),
        pb.GetTeamRequest(team_id=foreign),
        pb.GetTeamRequest(team_id="team_0"),
        pb.ListMembersRequest(team_id=foreign),
    ]
    for request in of_strangers:
        for who in (as_owner, as_member):
            assert await refusal(client, request, who) == grpc.StatusCode.NOT_FOUND, request


async def test_an_owner_takes_back_what_owners_set_of_a_members_limits(client: Client, root: str) -> None:
    """Then there is what an administrator gave, which no owner takes away, nor after an administrator set it anew."""
    team_id = await team(client, root, limits=account_pb2.Limits(usd_a_month="9"))
    boss, other = await client.sign_up("takes.back@example.com"), await client.sign_up("is.bound@example.com")
    member = other.account.account_id
    await put(client, root, team_id, boss.account.account_id, OWNER)
    await put(client, root, team_id, member)
    as_admin, as_owner = client.sent(root), client.sent(boss.session_token)

    async def limited(who: Any, usd: str) -> str:
        given = {"limits": account_pb2.Limits(usd_a_month=usd)} if usd else {"no_limit": ["usd_a_month"]}
        request = pb.UpdateMemberRequest(team_id=team_id, account_id=member, **given)
        return (await client.team.UpdateMember(request, metadata=who)).member.account.limits.usd_a_month

    async def is_kept() -> bool:
        try:
            await limited(as_owner, "")
        except grpc.aio.AioRpcError as refused:
            return refused.code() == grpc.StatusCode.PERMISSION_DENIED
        return False

    assert [await limited(as_owner, usd) for usd in ("", "3", "4", "")] == ["", "3.00", "4.00", ""]
    assert await limited(as_admin, "5") == "5.00"
    assert await is_kept()
    assert [await limited(as_owner, usd) for usd in ("3", "2", "")] == ["3.00", "2.00", "5.00"]
    assert await is_kept()
    assert await limited(as_owner, "3") == "3.00"
    account = admin_pb.UpdateAccountRequest(account_id=member, limits=account_pb2.Limits(usd_a_month="1"))
    await client.admin.UpdateAccount(account, metadata=as_admin)
    assert await is_kept()


async def test_a_limited_key_of_an_owner_gives_nothing(client: Client, root: str) -> None:
    """A key with SCOPE_ACCOUNT and one limit is refused whatever gives, or would free it of the team's limits."""
    team_id = await team(client, root)
    boss = await client.sign_up("limited.owner@example.com")
    await put(client, root, team_id, boss.account.account_id, OWNER)
    made = await client.account.CreateKey(
        account_service.CreateKeyRequest(manages=[account_pb2.SCOPE_ACCOUNT], tokens_a_day=5),
        metadata=client.sent(boss.session_token),
    )
    gives: list[Message] = [
        pb.CreateTeamKeyRequest(team_id=team_id),
        pb.CreateTeamInvitationRequest(team_id=team_id),
        pb.RemoveMemberRequest(team_id=team_id, account_id=boss.account.account_id),
        pb.JoinTeamRequest(invitation="inv-x"),
    ]
    for request in gives:
        assert await refusal(client, request, client.sent(made.api_key)) == grpc.StatusCode.PERMISSION_DENIED


async def test_a_team_that_ends_lets_its_members_go(auth: Auth, client: Client, root: str) -> None:
    """Its keys are refused, its members are in no team, its invitations are good for nobody; each act is on record."""
    team_id = await team(client, root)
    member = await client.sign_up("let.go@example.com")
    await put(client, root, team_id, member.account.account_id)
    admin = client.sent(root)
    key = await client.team.CreateTeamKey(pb.CreateTeamKeyRequest(team_id=team_id), metadata=admin)
    invitation = await client.team.CreateTeamInvitation(pb.CreateTeamInvitationRequest(team_id=team_id), metadata=admin)
    ((account_id,),) = auth.query("select account_id from teams where id = %s", team_id)
    delete = admin_pb.DeleteAccountRequest(account_id=account_id)
    assert await code_of(client.admin.DeleteAccount(delete, metadata=admin)) == grpc.StatusCode.ABORTED
    for _ in range(2):
        await client.team.DeleteTeam(pb.DeleteTeamRequest(team_id=team_id), metadata=admin)
    me = client.sent(member.session_token)
    assert not (await client.account.GetMe(account_service.GetMeRequest(), metadata=me)).account.team_id
    join = pb.JoinTeamRequest(invitation=invitation.invitation)
    assert await code_of(client.team.JoinTeam(join, metadata=me)) == grpc.StatusCode.ABORTED
    assert auth.query("select revoked_at is not null from keys where id = %s", key.key.key_id) == [(True,)]
    assert await code_of(client.team.GetTeam(pb.GetTeamRequest(team_id=team_id), metadata=admin)) == (
        grpc.StatusCode.NOT_FOUND
    )
    assert auth.query("select disabled_at is not null from accounts where id = %s", account_id) == [(True,)]
    acts = auth.query("select act from audit where %s = any(details) order by id", f"team={team_id}")
    assert [act for (act,) in acts] == ["team.created", "team.member_added", "invitation.made", "team.deleted"]


async def test_nobody_becomes_the_account_of_a_teams_keys(client: Client, auth: Auth, root: str) -> None:
    """It takes no role, no email and no password, for the team's owners make its keys; its name and limits it takes."""
    admin = client.sent(root)
    team_id = await team(client, root)
    shown = (await client.team.GetTeam(pb.GetTeamRequest(team_id=team_id), metadata=admin)).team
    given: list[dict[str, Any]] = [
        {"role": account_pb2.ROLE_ADMIN},
        {"role": account_pb2.ROLE_USER},
        {"email": "team@example.com"},
        {"password": PASSWORD},
    ]
    for one in given:
        request = admin_pb.UpdateAccountRequest(account_id=shown.account_id, **one)
        with pytest.raises(grpc.aio.AioRpcError, match="make another account") as refused:
            await client.admin.UpdateAccount(request, metadata=admin)
        assert refused.value.code() == grpc.StatusCode.ABORTED
    stored = "select role, email, password_hash from accounts where id = %s"
    assert auth.query(stored, shown.account_id) == [("service", None, None)]
    renamed = admin_pb.UpdateAccountRequest(account_id=shown.account_id, name="ours", role=account_pb2.ROLE_SERVICE)
    assert (await client.admin.UpdateAccount(renamed, metadata=admin)).account.name == "ours"


async def test_a_team_has_a_name(client: Client, root: str) -> None:
    """A team is neither made without a name nor loses it."""
    admin = client.sent(root)
    team_id = await team(client, root)
    for blank in ("", "  "):
        for call in (
            client.team.CreateTeam(pb.CreateTeamRequest(name=blank), metadata=admin),
            client.team.UpdateTeam(pb.UpdateTeamRequest(team_id=team_id, name=blank), metadata=admin),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match="name is required") as refused:
                await call
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_an_owner_limits_no_administrator(client: Client, auth: Auth, root: str) -> None:
    """An administrator who is a member keeps their limits; another administrator sets them."""
    team_id = await team(client, root)
    boss = await client.sign_up("limits.owner@example.com")
    await put(client, root, team_id, boss.account.account_id, OWNER)
    member = await auth.accounts.create(role="admin", limits=Limits(key_count=1), rules=())
    await put(client, root, team_id, member)
    update = pb.UpdateMemberRequest(team_id=team_id, account_id=member, limits=account_pb2.Limits(requests_a_day=0))
    assert await refusal(client, update, client.sent(boss.session_token)) == grpc.StatusCode.PERMISSION_DENIED
    changed = await client.team.UpdateMember(update, metadata=client.sent(root))
    assert changed.member.account.limits.requests_a_day == 0
