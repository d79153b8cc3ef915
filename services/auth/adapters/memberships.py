"""What the groups of a person give its account, in PostgreSQL: what was given by hand stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from services.auth.adapters.audit import audit
from services.auth.adapters.postgres import Link
from services.auth.domain.oidc import GroupRule
from services.common import logs

_ADMINISTRATORS_LOCK: Final = 0x6D6F6164
_log = logs.get("auth")


class _Standing(NamedTuple):
    role: str
    team_id: str | None
    team_role: str | None
    by_groups: str | None
    admin_by_groups: bool


async def follow_groups(link: Link, account_id: str, rules: Sequence[GroupRule]) -> None:
    """Put an account where the rules of its person's groups say, and take away what groups gave before.

    A team that somebody put the account into stays, and so does the last owner of a team, and the last administrator.
    """
    teams = [rule for rule in rules if rule.team is not None]
    before = await _read(link, account_id)
    # Teams first, in one order, as all who move members do: of two owners who leave at once one stays.
    named = sorted({rule.team for rule in teams if rule.team} | ({before.team_id} if before.team_id else set()))
    cursor = await link.execute(
        "select id from teams where id = any (%s) and deleted_at is null order by id for update", (named,)
    )
    known = {row[0] for row in await cursor.fetchall()}
    standing = await _read(link, account_id, lock=True)
    for rule in teams:
        if rule.team not in known:
            _log.warning("oidc.team_missing", team=rule.team)
    given = next((rule for rule in teams if rule.team in known), None)
    if standing.team_id is None or standing.team_id in known:
        # Else it was moved meanwhile, by somebody: that stays.
        await _follow_team(link, account_id, standing, given)
    await _follow_role(link, account_id, standing, wanted=any(rule.administrator for rule in rules))


async def _follow_team(link: Link, account_id: str, standing: _Standing, given: GroupRule | None) -> None:
    own = None if standing.team_id is None else f"{standing.team_id}:{standing.team_role}"
    new = None if given is None else f"{given.team}:{given.role}"
    if own == new or (own is not None and own != standing.by_groups):
        return
    leaves = standing.team_role == "owner" and (
        given is None or given.team != standing.team_id or given.role != "owner"
    )
    if leaves and not await _owned_by_another(link, standing.team_id, account_id):
        await audit(link, account_id, "team.owner_kept", account_id, f"team={standing.team_id}", "by=groups")
        return
    team, role = (given.team, given.role) if given is not None else (None, None)
    await link.execute(
        "update accounts set team_id = %s, team_role = %s, team_by_groups = %s where id = %s",
        (team, role, new, account_id),
    )
    if standing.team_id is not None and standing.team_id != team:
        await audit(link, account_id, "team.member_removed", account_id, f"team={standing.team_id}", "by=groups")
    if team is not None:
        act = "team.member_changed" if team == standing.team_id else "team.joined"
        await audit(link, account_id, act, account_id, f"team={team}", f"role={role}", "by=groups")


async def _follow_role(link: Link, account_id: str, standing: _Standing, *, wanted: bool) -> None:
    if wanted and standing.role == "user":
        role = "admin"
    elif not wanted and standing.role == "admin" and standing.admin_by_groups:
        role = "user"
        # One by one, so that of two who lose it at once one stays.
        await link.execute("select pg_advisory_xact_lock(%s)", (_ADMINISTRATORS_LOCK,))
        cursor = await link.execute(
            "select 1 from accounts where role = 'admin' and disabled_at is null and id <> %s limit 1", (account_id,)
        )
        if await cursor.fetchone() is None:
            await audit(link, account_id, "account.administrator_kept", account_id, "by=groups")
            return
    else:
        return
    await link.execute(
        "update accounts set role = %s, admin_by_groups = %s where id = %s", (role, role == "admin", account_id)
    )
    await audit(link, account_id, "account.changed", account_id, f"role={role}", "by=groups")


async def _read(link: Link, account_id: str, *, lock: bool = False) -> _Standing:
    cursor = await link.execute(
        "select role, team_id, team_role, team_by_groups, admin_by_groups from accounts where id = %s"
        + (" for update" if lock else ""),
        (account_id,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return _Standing(*row)


async def _owned_by_another(link: Link, team_id: str | None, account_id: str) -> bool:
    cursor = await link.execute(
        "select 1 from accounts where team_id = %s and team_role = 'owner' and id <> %s limit 1", (team_id, account_id)
    )
    return await cursor.fetchone() is not None
