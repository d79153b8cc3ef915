"""moa.account.v1.TeamService: teams, for administrators and for those who own one."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from google.protobuf.duration_pb2 import Duration

from moa.account.v1 import account_pb2, team_service_pb2_grpc
from moa.account.v1 import team_service_pb2 as pb
from services.auth import render, team_messages
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.keys import Keys
from services.auth.adapters.offered import Offered
from services.auth.adapters.paces import PacesKept
from services.auth.adapters.teams import KEYS, MEMBER, Teams
from services.auth.callers import INVITATION_PREFIX, Caller, Callers
from services.auth.domain import keys
from services.auth.domain.powers import ACCOUNT, ADMIN
from services.auth.domain.records import AccountRecord, TeamRecord
from services.auth.domain.teams import check_beneath, check_part
from services.auth.lifetimes import read_overlap
from services.auth.managers import Manager, manager_of
from services.auth.minute_standings import Subject, minute_standings
from services.common import page_tokens
from services.common.errors import InvalidField, NotFound, PermissionDenied
from services.common.signing import Secrets

_WEEK_S = 7 * 86_400.0
_YEAR_S = 366 * 86_400.0
_TEN_YEARS_S = 10 * 366 * 86_400


class TeamServicer(team_service_pb2_grpc.TeamServiceServicer):
    """Answers administrators, and owners and members about their own team."""

    def __init__(
        self,
        *,
        teams: Teams,
        accounts: Accounts,
        keys_kept: Keys,
        callers: Callers,
        pepper: bytes,
        check_url: Callable[..., object],
        secrets: Secrets,
        seals: bool,
        paces: PacesKept,
        offered: Offered,
    ) -> None:
        self._offered = offered
        self._paces = paces
        self._seals = seals
        self._check_url = check_url
        self._secrets = secrets
        self._teams = teams
        self._accounts = accounts
        self._keys = keys_kept
        self._callers = callers
        self._pepper = pepper

    async def ListTeams(self, request: pb.ListTeamsRequest, context: Any) -> pb.ListTeamsResponse:
        """List teams."""
        await self._administrator(context, gives=False)
        size = render.page_size(request.page_size, default=50, most=500)
        found = await self._teams.page(limit=size + 1, after=page_tokens.time_and_id(request.page_token))
        more = len(found) > size
        return pb.ListTeamsResponse(
            teams=[team_messages.team(record) for record in found[:size]],
            next_page_token=page_tokens.written([found[size - 1].created_at, found[size - 1].id]) if more else "",
        )

    async def CreateTeam(self, request: pb.CreateTeamRequest, context: Any) -> pb.CreateTeamResponse:
        """Make a team."""
        actor = await self._administrator(context, gives=True)
        columns = render.read_team_changes(request.limits)
        if request.HasField("warnings"):
            columns |= team_messages.read_warnings(request.warnings, self._check_url)
        record = await self._teams.create(
            name=team_messages.read_team_name(request.name),
            key_count=columns.pop("key_count", KEYS),
            columns=columns,
            rules=render.read_rules(request.rules, "rules"),
            actor=actor,
        )
        return pb.CreateTeamResponse(team=await self._team(record))

    async def GetTeam(self, request: pb.GetTeamRequest, context: Any) -> pb.GetTeamResponse:
        """Describe a team."""
        manages = await self._reader(context, request.team_id)
        record = await self._teams.get(request.team_id)
        spent = await self._teams.spent(record)
        minutes = await minute_standings(self._paces, [Subject(record.id, record)])
        return pb.GetTeamResponse(
            team=await self._team(record),
            standings=[*render.standings(record, "", spent), *minutes],
            webhook_secret=self._secrets.secret(record.id, 1) if manages else "",
        )

    async def UpdateTeam(self, request: pb.UpdateTeamRequest, context: Any) -> pb.UpdateTeamResponse:
        """Change a team."""
        manager = await self._manager(context, request.team_id, gives=True)
        changes = render.read_team_changes(request.limits, request.no_limit)
        if request.HasField("rules"):
            changes["rules"] = render.read_rules(request.rules.rules, "rules")
        if changes and not manager.is_admin:
            raise PermissionDenied("the limits and rules of a team are set by administrators; ask one")
        if request.HasField("name"):
            changes["name"] = team_messages.read_team_name(request.name)
        if request.HasField("warnings"):
            changes |= team_messages.read_warnings(request.warnings, self._check_url)
        if request.HasField("request_log"):
            changes |= team_messages.read_request_log(request.request_log, seals=self._seals)
        record = await self._teams.update(request.team_id, actor=manager.account_id, **changes)
        return pb.UpdateTeamResponse(team=await self._team(record))

    async def DeleteTeam(self, request: pb.DeleteTeamRequest, context: Any) -> pb.DeleteTeamResponse:
        """End a team."""
        actor = await self._administrator(context, gives=False)
        await self._teams.delete(request.team_id, actor=actor)
        return pb.DeleteTeamResponse()

    async def ListMembers(self, request: pb.ListMembersRequest, context: Any) -> pb.ListMembersResponse:
        """List a team's members, with their addresses: for no key that does not manage its account."""
        caller = await self._callers.of(context)
        if ADMIN not in caller.manages:
            caller.check_manages(ACCOUNT)
        await self._reader_of(caller, request.team_id)
        size = render.page_size(request.page_size, default=50, most=500)
        found = await self._teams.members(request.team_id, limit=size + 1, after=_role_and_id(request.page_token))
        more = len(found) > size
        return pb.ListMembersResponse(
            members=[_member(record) for record in found[:size]],
            next_page_token=page_tokens.written([found[size - 1].team_role, found[size - 1].id]) if more else "",
        )

    async def AddMember(self, request: pb.AddMemberRequest, context: Any) -> pb.AddMemberResponse:
        """Put an account into a team."""
        actor = await self._administrator(context, gives=True)
        role = _read_role(request.role) or MEMBER
        return pb.AddMemberResponse(
            member=_member(await self._teams.put(request.team_id, request.account_id, role, actor=actor))
        )

    async def UpdateMember(self, request: pb.UpdateMemberRequest, context: Any) -> pb.UpdateMemberResponse:
        """Change a member."""
        manager = await self._manager(context, request.team_id, gives=True)
        record = await self._accounts.get(request.account_id)
        limits = render.read_limit_changes(request.limits, request.no_limit, role=record.role)
        if not manager.is_admin:
            if record.team_id != request.team_id:
                raise NotFound("no such member of the team")
            check_beneath(limits, record, await self._teams.get(request.team_id))
        changed = await self._teams.change(
            request.team_id,
            request.account_id,
            role=_read_role(request.role),
            limits=limits,
            actor=manager.account_id,
            keeps_owner=not manager.is_admin,
        )
        return pb.UpdateMemberResponse(member=_member(changed))

    async def RemoveMember(self, request: pb.RemoveMemberRequest, context: Any) -> pb.RemoveMemberResponse:
        """Take an account out of a team."""
        caller = await self._callers.of(context)
        if caller.account_id == request.account_id:
            await self._check_account(caller)
            manager = Manager(caller.account_id, is_admin=False)
        else:
            manager = await self._manager_of(caller, request.team_id, gives=False)
        await self._teams.remove(
            request.team_id, request.account_id, actor=manager.account_id, keeps_owner=not manager.is_admin
        )
        return pb.RemoveMemberResponse()

    async def ListTeamKeys(self, request: pb.ListTeamKeysRequest, context: Any) -> pb.ListTeamKeysResponse:
        """List a team's keys."""
        await self._manager(context, request.team_id, gives=False)
        team = await self._teams.get(request.team_id)
        return pb.ListTeamKeysResponse(keys=[render.key(one) for one in await self._keys.list(team.account_id)])

    async def CreateTeamKey(self, request: pb.CreateTeamKeyRequest, context: Any) -> pb.CreateTeamKeyResponse:
        """Make a team's key."""
        manager = await self._manager(context, request.team_id, gives=True)
        team = await self._teams.get(request.team_id)
        limits = render.read_key_changes(request.limits)
        if not manager.is_admin:
            check_part(limits, team)
        key = keys.make(self._pepper)
        record = await self._keys.create(
            team.account_id,
            key,
            name=render.read_name(request.name),
            expires_in_s=_lifetime_s(request.expires_in, _TEN_YEARS_S) if request.HasField("expires_in") else None,
            scopes=render.read_rules(request.scopes, "scopes"),
            limits=render.key_limits(limits),
            actor=manager.account_id,
        )
        return pb.CreateTeamKeyResponse(key=render.key(record), api_key=key.secret)

    async def UpdateTeamKey(self, request: pb.UpdateTeamKeyRequest, context: Any) -> pb.UpdateTeamKeyResponse:
        """Change a team's key."""
        manager = await self._manager(context, request.team_id, gives=True)
        team = await self._teams.get(request.team_id)
        changes = render.read_key_changes(request.limits, request.no_limit)
        if not manager.is_admin:
            check_part(changes, team)
        if request.HasField("name"):
            changes["name"] = render.read_name(request.name)
        record = await self._keys.update(team.account_id, request.key_id, actor=manager.account_id, **changes)
        return pb.UpdateTeamKeyResponse(key=render.key(record))

    async def RevokeTeamKey(self, request: pb.RevokeTeamKeyRequest, context: Any) -> pb.RevokeTeamKeyResponse:
        """Revoke a team's key."""
        manager = await self._manager(context, request.team_id, gives=False)
        team = await self._teams.get(request.team_id)
        record = await self._keys.revoke(team.account_id, request.key_id, actor=manager.account_id)
        return pb.RevokeTeamKeyResponse(key=render.key(record))

    async def RotateTeamKey(self, request: pb.RotateTeamKeyRequest, context: Any) -> pb.RotateTeamKeyResponse:
        """Replace a team's key."""
        manager = await self._manager(context, request.team_id, gives=True)
        team = await self._teams.get(request.team_id)
        old = await self._keys.get(team.account_id, request.key_id)
        key = keys.make(self._pepper, old.prefix.partition("-")[0] or "moa")
        overlap_s = read_overlap(request.overlap) if request.HasField("overlap") else None
        record = await self._keys.rotate(team.account_id, old.id, key, actor=manager.account_id, overlap_s=overlap_s)
        return pb.RotateTeamKeyResponse(key=render.key(record), api_key=key.secret)

    async def CreateTeamInvitation(
        self, request: pb.CreateTeamInvitationRequest, context: Any
    ) -> pb.CreateTeamInvitationResponse:
        """Invite somebody into a team."""
        manager = await self._manager(context, request.team_id, gives=True)
        lasts_s = _lifetime_s(request.expires_in, _YEAR_S) if request.HasField("expires_in") else _WEEK_S
        token = INVITATION_PREFIX + secrets.token_urlsafe(24)
        made = await self._teams.invite(
            keys.digest(self._pepper, token),
            team_id=request.team_id,
            role=_read_role(request.role) or MEMBER,
            expires_in_s=lasts_s,
            actor=manager.account_id,
        )
        return pb.CreateTeamInvitationResponse(invitation=token, made=team_messages.invitation(made))

    async def ListInvitations(self, request: pb.ListInvitationsRequest, context: Any) -> pb.ListInvitationsResponse:
        """List invitations."""
        await self._manager(context, request.team_id, gives=False)
        size = render.page_size(request.page_size, default=50, most=500)
        after = page_tokens.time_and_id(request.page_token)
        found = await self._teams.invitations(request.team_id, limit=size + 1, after=after)
        more = len(found) > size
        return pb.ListInvitationsResponse(
            invitations=[team_messages.invitation(record) for record in found[:size]],
            next_page_token=page_tokens.written([found[size - 1].created_at, found[size - 1].id]) if more else "",
        )

    async def RevokeInvitation(self, request: pb.RevokeInvitationRequest, context: Any) -> pb.RevokeInvitationResponse:
        """Take an invitation back."""
        manager = await self._manager(context, request.team_id, gives=False)
        record = await self._teams.revoke_invitation(
            request.invitation_id, request.team_id or None, actor=manager.account_id
        )
        return pb.RevokeInvitationResponse(invitation=team_messages.invitation(record))

    async def JoinTeam(self, request: pb.JoinTeamRequest, context: Any) -> pb.JoinTeamResponse:
        """Join a team."""
        caller = await self._callers.of(context)
        await self._check_account(caller)
        record = await self._teams.join(caller.account_id, keys.digest(self._pepper, request.invitation))
        return pb.JoinTeamResponse(account=render.account(record))

    async def _team(self, record: TeamRecord) -> pb.Team:
        rules = team_messages.rules(record)
        return team_messages.team(record, await self._offered.numbered(rules))

    async def _administrator(self, context: Any, *, gives: bool) -> str:
        caller = await self._callers.of(context)
        manager = await self._manager_of(caller, "", gives=gives)
        return manager.account_id

    async def _manager(self, context: Any, team_id: str, *, gives: bool) -> Manager:
        return await self._manager_of(await self._callers.of(context), team_id, gives=gives)

    async def _manager_of(self, caller: Caller, team_id: str, *, gives: bool) -> Manager:
        """As `manager_of`."""
        return await manager_of(self._accounts, self._keys, caller, team_id, gives=gives)

    async def _check_account(self, caller: Caller) -> None:
        """Raise PermissionDenied for a key that does not manage its account, or is limited: no key takes a limit away
        that binds it."""
        caller.check_manages(ACCOUNT)
        if caller.key_id is not None:
            await self._keys.check_gives(caller.account_id, caller.key_id, ACCOUNT)

    async def _reader(self, context: Any, team_id: str) -> bool:
        """Return whether who reads manages the team. Raises NotFound for whoever may not even read of it."""
        return await self._reader_of(await self._callers.of(context), team_id)

    async def _reader_of(self, caller: Caller, team_id: str) -> bool:
        record: AccountRecord = await self._accounts.get(caller.account_id)
        if not team_id or record.team_id != team_id:
            await self._manager_of(caller, team_id, gives=False)
            return True
        return record.team_role == "owner" and (caller.key_id is None or ACCOUNT in caller.manages)


def _member(record: AccountRecord) -> pb.Member:
    account = render.account(record)
    return pb.Member(account=account, role=account.team_role)


def _read_role(given: account_pb2.TeamRole.ValueType) -> str | None:
    if given == account_pb2.TEAM_ROLE_UNSPECIFIED:
        return None
    if given not in render.TEAM_ROLE_NAMES:
        raise InvalidField("no such role in a team", param="role")
    return render.TEAM_ROLE_NAMES[given]


def _lifetime_s(given: Duration, most_s: float) -> float:
    lasts_s = given.ToMilliseconds() / 1000
    if not 0 < lasts_s <= most_s:
        words = "ten years" if most_s > _YEAR_S else "a year"
        raise InvalidField(f"a lifetime must be longer than 0 and at most {words}", param="expires_in")
    return lasts_s


def _role_and_id(token: str) -> tuple[str, str] | None:
    place = page_tokens.read(token)
    if place is None:
        return None
    try:
        role, found = place
    except (TypeError, ValueError):
        raise page_tokens.unknown() from None
    return str(role), str(found)
