"""How accounts come into a team: by an invitation, at sign-up or later."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from moa.account.v1 import account_service_pb2 as account_service
from moa.account.v1 import admin_service_pb2 as admin_pb
from moa.account.v1 import team_service_pb2 as pb
from tests.auth.client import PASSWORD, Client, code_of, connected
from tests.auth.made_teams import MEMBER, OWNER, put, refusal, team


async def accounts_with(client: Client, root: str, query: str) -> list[str]:
    """Return the addresses of the accounts that a search finds."""
    request = admin_pb.ListAccountsRequest(query=query)
    found = await client.admin.ListAccounts(request, metadata=client.sent(root))
    return [account.email for account in found.accounts]


async def test_invitations_into_a_team_are_used_once_listed_and_taken_back(client: Client, root: str) -> None:
    """Who signs up by one, or joins by one, has its role; a used, revoked or ended one is good for nobody."""
    team_id = await team(client, root)
    admin = client.sent(root)

    async def invite(**more: Any) -> pb.CreateTeamInvitationResponse:
        return await client.team.CreateTeamInvitation(
            pb.CreateTeamInvitationRequest(team_id=team_id, **more), metadata=admin
        )

    by_owner = await invite(role=OWNER, expires_in=Duration(seconds=600))
    boss = await client.sign_up("invited@example.com", invitation=by_owner.invitation)
    assert (boss.account.team_id, boss.account.team_role) == (team_id, OWNER)
    late, taken_back = await invite(expires_in=Duration(nanos=1_000_000)), await invite()
    revoke = pb.RevokeInvitationRequest(invitation_id=taken_back.made.invitation_id, team_id=team_id)
    as_owner = client.sent(boss.session_token)
    assert (await client.team.RevokeInvitation(revoke, metadata=as_owner)).invitation.revoked
    other = client.sent((await client.sign_up("uninvited@example.com")).session_token)
    for one in (by_owner, late, taken_back):
        join = pb.JoinTeamRequest(invitation=one.invitation)
        assert await code_of(client.team.JoinTeam(join, metadata=other)) == grpc.StatusCode.ABORTED
        with pytest.raises(grpc.aio.AioRpcError, match="this invitation is unknown, was used or taken back") as refused:
            await client.sign_up("by.a.spent.one@example.com", invitation=one.invitation)
        assert refused.value.code() == grpc.StatusCode.ABORTED
    assert not await accounts_with(client, root, "by.a.spent.one@example.com")
    listed = await client.team.ListInvitations(pb.ListInvitationsRequest(team_id=team_id), metadata=as_owner)
    assert [(one.used_by, one.revoked) for one in listed.invitations] == [
        ("", True),
        ("", False),
        (boss.account.account_id, False),
    ]


async def test_an_invitation_at_an_open_sign_up_makes_one_of_three_a_member(client: Client, root: str) -> None:
    """Of three at once one has an account, in the team; a taken address leaves an invitation good for joining."""
    team_id, admin = await team(client, root), client.sent(root)
    invite = pb.CreateTeamInvitationRequest(team_id=team_id)
    one, other = [(await client.team.CreateTeamInvitation(invite, metadata=admin)).invitation for _ in range(2)]
    racing = [client.sign_up(f"racer.{place}@example.com", invitation=one) for place in range(3)]
    ended = await asyncio.gather(*racing, return_exceptions=True)
    entered = [each.account.team_id for each in ended if isinstance(each, account_service.SignUpResponse)]
    refused = [each.code() for each in ended if isinstance(each, grpc.aio.AioRpcError)]
    assert (entered, refused) == ([team_id], [grpc.StatusCode.ABORTED] * 2)
    assert len(await accounts_with(client, root, "racer.")) == 1
    mine = await client.sign_up("has.an.account@example.com")
    taken = client.sign_up("has.an.account@example.com", invitation=other)
    assert await code_of(taken) == grpc.StatusCode.ABORTED
    join = pb.JoinTeamRequest(invitation=other)
    joined = await client.team.JoinTeam(join, metadata=client.sent(mine.session_token))
    assert joined.account.team_id == team_id


async def test_the_last_owner_joins_no_other_team(client: Client, root: str) -> None:
    """Its own would have none; the invitation stays good, and is used once there is another owner."""
    admin = client.sent(root)
    own, other = await team(client, root), await team(client, root, name="other")
    boss, second = [await client.sign_up(f"{name}.leaves@example.com") for name in ("boss", "second")]
    await put(client, root, own, boss.account.account_id, OWNER)
    invite = pb.CreateTeamInvitationRequest(team_id=other)
    made = await client.team.CreateTeamInvitation(invite, metadata=admin)
    join = pb.JoinTeamRequest(invitation=made.invitation)
    as_boss = client.sent(boss.session_token)
    assert await code_of(client.team.JoinTeam(join, metadata=as_boss)) == grpc.StatusCode.ABORTED
    await put(client, root, own, second.account.account_id, OWNER)
    assert (await client.team.JoinTeam(join, metadata=as_boss)).account.team_id == other


async def test_a_deleted_account_is_put_into_no_team(client: Client, root: str) -> None:
    """It is gone, as everywhere else."""
    team_id, made = await team(client, root), await client.sign_up("deleted.member@example.com")
    gone = admin_pb.DeleteAccountRequest(account_id=made.account.account_id)
    await client.admin.DeleteAccount(gone, metadata=client.sent(root))
    request = pb.AddMemberRequest(team_id=team_id, account_id=made.account.account_id)
    assert await refusal(client, request, client.sent(root)) == grpc.StatusCode.NOT_FOUND


async def test_sign_up_by_an_invitation_into_a_team(start: Any, client: Client, root: str) -> None:
    """Where sign-up needs an invitation, one into a team makes the account a member."""
    team_id = await team(client, root)
    made = await client.team.CreateTeamInvitation(
        pb.CreateTeamInvitationRequest(team_id=team_id), metadata=client.sent(root)
    )
    closed, link = await connected((await start(signup="invite")).public_port)
    async with link:
        account = (await closed.sign_up("by.invitation@example.com", invitation=made.invitation)).account
        assert (account.team_id, account.team_role) == (team_id, MEMBER)
        again = account_service.SignUpRequest(email="x@example.com", password=PASSWORD, invitation=made.invitation)
        assert await code_of(closed.account.SignUp(again, metadata=closed.sent())) == grpc.StatusCode.ABORTED
