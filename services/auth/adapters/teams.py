"""Teams, their members and invitations in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, LiteralString

from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from moa.quota.v1 import quota_pb2
from services.auth.adapters.accounts import account_of, enter_team, update_account
from services.auth.adapters.audit import audit
from services.auth.adapters.columns import zone_of
from services.auth.adapters.postgres import Link, Postgres
from services.auth.adapters.request_log_erasing import erase
from services.auth.adapters.spent import spent_of
from services.auth.adapters.team_accounts import is_of_a_team
from services.auth.domain import keys
from services.auth.domain.accounts import PACES
from services.auth.domain.records import AccountRecord, InvitationRecord, TeamRecord
from services.common.errors import Conflict, NotFound
from services.quota_client.amounts import LIMITS, Amount, Period

OWNER: Final = "owner"
MEMBER: Final = "member"
KEYS: Final = 100
"""How many keys of its own a new team may have."""
_TEAMS: LiteralString = (
    # The account of its keys has limits of the same names.
    "select t.id, t.name, t.account_id, t.rules, t.created_at, t.warn_url, t.warn_emails,"
    " t.log_requests, t.log_content, t.log_days, "
    + ", ".join([f"t.{name}" for name in (*LIMITS, *PACES)])
    + ", a.key_count from teams t join accounts a on a.id = t.account_id where t.deleted_at is null"
)
_INVITATIONS: LiteralString = (
    "select coalesce(id, 'inv_' || left(encode(sha256(digest), 'hex'), 24)) as id, team_id, team_role, made_by,"
    " created_at, expires_at, used_by, revoked_at from invitations"
)


class Teams:
    """Keeps teams. What is done to them is in the audit log, in the same transaction."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def create(
        self, *, name: str, columns: dict[str, Any], rules: Sequence[quota_pb2.Rule], key_count: int, actor: str
    ) -> TeamRecord:
        """Make a team, with limits and warnings by column, and the account by which its keys act."""
        team_id, account_id = keys.new_id("team"), keys.new_id("acc")
        async with self._postgres.transaction() as link:
            await link.execute(
                "insert into accounts (id, name, role, key_count) values (%s, %s, 'service', %s)",
                (account_id, name, key_count),
            )
            kept = {"id": team_id, "name": name, "account_id": account_id, "rules": Jsonb(_stored(rules)), **columns}
            await link.execute(
                sql.SQL("insert into teams ({}) values ({})").format(
                    sql.SQL(", ").join(map(sql.Identifier, kept)), sql.SQL(", ").join([sql.Placeholder()] * len(kept))
                ),
                tuple(kept.values()),
            )
            await _enter(link, team_id, account_id, MEMBER)
            await audit(link, actor, "team.created", account_id, f"team={team_id}", f"name={name}")
            return await _team(link, team_id)

    async def page(self, *, limit: int, after: tuple[datetime, str] | None) -> list[TeamRecord]:
        """List teams, the newest first, after a place in that order."""
        at, team_id = after or (None, None)
        async with self._postgres.transaction() as link, link.cursor(row_factory=class_row(TeamRecord)) as cursor:
            await cursor.execute(
                _TEAMS + " and (%(at)s::timestamptz is null or (t.created_at, t.id) < (%(at)s, %(id)s))"
                " order by t.created_at desc, t.id desc limit %(limit)s",
                {"at": at, "id": team_id, "limit": limit},
            )
            return await cursor.fetchall()

    async def get(self, team_id: str) -> TeamRecord:
        """Return a team. Raises NotFound."""
        async with self._postgres.transaction() as link:
            return await _team(link, team_id)

    async def update(self, team_id: str, *, actor: str, **changes: Any) -> TeamRecord:
        """Set a team's `name`, `rules`, `key_count` or limits. Raises NotFound."""
        key_count = changes.pop("key_count", None)
        async with self._postgres.transaction() as link:
            team = await _team(link, team_id, lock=True)
            if key_count is not None:
                await update_account(link, team.account_id, actor=actor, key_count=key_count)
            if changes:
                stored = {name: Jsonb(_stored(value)) if name == "rules" else value for name, value in changes.items()}
                columns = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in stored)
                await link.execute(
                    sql.SQL("update teams set {} where id = %s").format(columns), (*stored.values(), team_id)
                )
                shown = (f"{name}={_stored(value) if name == 'rules' else value}" for name, value in changes.items())
                await audit(link, actor, "team.changed", team.account_id, f"team={team_id}", *shown)
            return await _team(link, team_id)

    async def delete(self, team_id: str, *, actor: str) -> None:
        """End a team. Does nothing where it has ended. Raises NotFound for one that never was."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute("select account_id, deleted_at from teams where id = %s for update", (team_id,))
            row = await cursor.fetchone()
            if row is None:
                raise NotFound("no such team")
            account_id, deleted_at = row
            if deleted_at is not None:
                return
            await link.execute(
                "update keys set revoked_at = now() where account_id = %s and revoked_at is null", (account_id,)
            )
            await link.execute("update accounts set disabled_at = coalesce(disabled_at, now()) where id = %s", row[:1])
            await link.execute("update accounts set team_id = null, team_role = null where team_id = %s", (team_id,))
            await link.execute("update teams set deleted_at = now() where id = %s", (team_id,))
            await link.execute(
                "update invitations set revoked_at = now(), expires_at = least(expires_at, now())"
                " where team_id = %s and used_by is null and revoked_at is null",
                (team_id,),
            )
            await erase(link, team_id=team_id)
            await audit(link, actor, "team.deleted", account_id, f"team={team_id}")

    async def members(self, team_id: str, *, limit: int, after: tuple[str, str] | None) -> list[AccountRecord]:
        """List a team's members, owners first, after a role and an account's id."""
        role, account_id = after or ("", "")
        async with self._postgres.transaction() as link:
            await _team(link, team_id)
            # `owner` comes behind `member` by its letters.
            cursor = await link.execute(
                "select a.id from accounts a join teams t on t.id = a.team_id where a.team_id = %(team)s"
                " and a.id <> t.account_id and (%(role)s = '' or a.team_role < %(role)s"
                " or (a.team_role = %(role)s and a.id > %(id)s))"
                " order by a.team_role desc, a.id limit %(limit)s",
                {"team": team_id, "role": role, "id": account_id, "limit": limit},
            )
            return [await account_of(link, found) for (found,) in await cursor.fetchall()]

    async def put(self, team_id: str, account_id: str, role: str, *, actor: str) -> AccountRecord:
        """Put an account into a team. Raises NotFound, or Conflict for the account of a team's keys."""
        async with self._postgres.transaction() as link:
            await _team(link, team_id, lock=True)
            if await is_of_a_team(link, account_id):
                raise Conflict("this is the account of a team's own keys, which stays in its team")
            await _enter(link, team_id, account_id, role)
            await audit(link, actor, "team.member_added", account_id, f"team={team_id}", f"role={role}")
            return await account_of(link, account_id)

    async def change(
        self, team_id: str, account_id: str, *, role: str | None, limits: dict[str, Any], actor: str, keeps_owner: bool
    ) -> AccountRecord:
        """Set a member's role and limits of its account; by an owner (`keeps_owner`) those that can be taken back.

        Raises NotFound, or Conflict where `keeps_owner` and no owner would be left.
        """
        async with self._postgres.transaction() as link:
            before = await _member(link, team_id, account_id)
            if limits and keeps_owner:
                await _limit(link, account_id, limits, actor=actor)
            elif limits:
                await update_account(link, account_id, actor=actor, **limits)
            if role is not None and role != before.team_role:
                await link.execute("update accounts set team_role = %s where id = %s", (role, account_id))
                await audit(link, actor, "team.member_changed", account_id, f"team={team_id}", f"role={role}")
            if keeps_owner and before.team_role == OWNER:
                await _check_owned(link, team_id)
            return await account_of(link, account_id)

    async def remove(self, team_id: str, account_id: str, *, actor: str, keeps_owner: bool) -> None:
        """Take an account out of a team. Raises NotFound, or Conflict where `keeps_owner` and none is left."""
        async with self._postgres.transaction() as link:
            before = await _member(link, team_id, account_id)
            await link.execute("update accounts set team_id = null, team_role = null where id = %s", (account_id,))
            if keeps_owner and before.team_role == OWNER:
                await _check_owned(link, team_id)
            await audit(link, actor, "team.member_removed", account_id, f"team={team_id}")

    async def spent(self, team: TeamRecord) -> dict[Period, tuple[Amount, datetime | None]]:
        """Return what a team's accounts have spent of each period of today, and when that ends."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(f"select {zone_of()} from accounts where id = %s", (team.account_id,))
            row = await cursor.fetchone()
            return await spent_of(link, team.id, row[0] if row else "UTC")

    async def invite(
        self, digest: bytes, *, team_id: str, role: str, expires_in_s: float, actor: str
    ) -> InvitationRecord:
        """Make an invitation into a team. Raises NotFound."""
        async with self._postgres.transaction() as link:
            team = await _team(link, team_id)
            invitation_id = keys.new_id("inv")
            await link.execute(
                "insert into invitations (digest, id, made_by, expires_at, team_id, team_role)"
                " values (%s, %s, %s, now() + make_interval(secs => %s), %s, %s)",
                (digest, invitation_id, actor, expires_in_s, team_id, role),
            )
            details = f"team={team_id}", f"role={role}", f"expires_in_s={expires_in_s:g}"
            await audit(link, actor, "invitation.made", team.account_id, *details)
            return await _invitation(link, invitation_id, None)

    async def invitations(
        self, team_id: str, *, limit: int, after: tuple[datetime, str] | None
    ) -> list[InvitationRecord]:
        """List invitations, into a team or all, the newest first."""
        at, invitation_id = after or (None, None)
        async with self._postgres.transaction() as link, link.cursor(row_factory=class_row(InvitationRecord)) as cursor:
            await cursor.execute(
                f"select * from ({_INVITATIONS}) i where (%(team)s = '' or team_id = %(team)s)"
                " and (%(at)s::timestamptz is null or (created_at, id) < (%(at)s, %(id)s))"
                " order by created_at desc, id desc limit %(limit)s",
                {"team": team_id, "at": at, "id": invitation_id, "limit": limit},
            )
            return await cursor.fetchall()

    async def revoke_invitation(self, invitation_id: str, team_id: str | None, *, actor: str) -> InvitationRecord:
        """Take an invitation back; `team_id` is the team that it must be into, None: any. Raises NotFound."""
        async with self._postgres.transaction() as link:
            before = await _invitation(link, invitation_id, team_id)
            if before.used_by is None and before.revoked_at is None:
                # Processes of the release before look at its end alone.
                await link.execute(
                    "update invitations set revoked_at = now(), expires_at = least(expires_at, now())"
                    " where coalesce(id, 'inv_' || left(encode(sha256(digest), 'hex'), 24)) = %s and used_by is null",
                    (invitation_id,),
                )
                await audit(link, actor, "invitation.revoked", "", f"invitation={invitation_id}")
            return await _invitation(link, invitation_id, team_id)

    async def join(self, account_id: str, digest: bytes) -> AccountRecord:
        """Put an account into the team of an invitation, which is used up.

        Raises Conflict where it is not good, or the account is the last owner of the team that it is in.
        """
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "update invitations set used_by = %s where digest = %s and used_by is null and revoked_at is null"
                " and expires_at > now() and team_id is not null returning team_id, team_role",
                (account_id, digest),
            )
            row = await cursor.fetchone()
            if row is None:
                raise Conflict("this invitation is into no team, was used or taken back, or has ended; ask for another")
            left = await _owned_by(link, account_id)
            await enter_team(link, account_id, *row)
            if left is not None:
                await _check_owned(link, left)
            return await account_of(link, account_id)


async def _enter(link: Link, team_id: str, account_id: str, role: str) -> None:
    cursor = await link.execute(
        "update accounts set team_id = %s, team_role = %s, team_by_groups = null where id = %s and deleted_at is null",
        (team_id, role, account_id),
    )
    if cursor.rowcount == 0:
        raise NotFound("no such account")


async def _team(link: Link, team_id: str, *, lock: bool = False) -> TeamRecord:
    async with link.cursor(row_factory=class_row(TeamRecord)) as cursor:
        await cursor.execute(_TEAMS + " and t.id = %s" + (" for update of t" if lock else ""), (team_id,))
        found = await cursor.fetchone()
    if found is None:
        raise NotFound("no such team")
    return found


async def _member(link: Link, team_id: str, account_id: str) -> AccountRecord:
    """Return a member, whose team is locked. Raises NotFound."""
    team = await _team(link, team_id, lock=True)
    found = await account_of(link, account_id)
    if found.team_id != team_id or found.id == team.account_id:
        raise NotFound("no such member of the team")
    return found


async def _limit(link: Link, account_id: str, limits: Mapping[str, int | None], *, actor: str) -> None:
    """Set limits of an account as an owner does: none stands for what there was before owners set one."""
    await link.execute("select 1 from accounts where id = %s for update", (account_id,))
    account = await account_of(link, account_id)
    before, changes = dict(account.limits_before), dict(limits)
    for name, limit in limits.items():
        was = getattr(account, name)
        if limit is None:
            changes[name] = before.pop(name, was)
        else:
            before.setdefault(name, was)
    await update_account(link, account_id, actor=actor, **changes)
    await link.execute("update accounts set limits_before = %s where id = %s", (Jsonb(before), account_id))


async def _owned_by(link: Link, account_id: str) -> str | None:
    """Return the team that an account owns, locked, so that of two owners who leave at once one stays."""
    cursor = await link.execute(
        "select t.id from accounts a join teams t on t.id = a.team_id where a.id = %s and a.team_role = 'owner'"
        " for update of t",
        (account_id,),
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def _check_owned(link: Link, team_id: str) -> None:
    cursor = await link.execute("select 1 from accounts where team_id = %s and team_role = 'owner' limit 1", (team_id,))
    if await cursor.fetchone() is None:
        raise Conflict("the team would have no owner; make somebody else one first")


async def _invitation(link: Link, invitation_id: str, team_id: str | None) -> InvitationRecord:
    async with link.cursor(row_factory=class_row(InvitationRecord)) as cursor:
        await cursor.execute(f"select * from ({_INVITATIONS}) i where id = %s", (invitation_id,))
        found = await cursor.fetchone()
    if found is None or (team_id is not None and found.team_id != team_id):
        raise NotFound("no such invitation")
    return found


def _stored(rules: Sequence[quota_pb2.Rule]) -> list[dict[str, Any]]:
    return [
        {"provider": rule.provider, "model": rule.model, "operations": [int(o) for o in rule.operations]}
        for rule in rules
    ]
