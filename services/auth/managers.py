"""Who looks after a team."""

from __future__ import annotations

from typing import NamedTuple

from services.auth.adapters.accounts import Accounts
from services.auth.adapters.keys import Keys
from services.auth.callers import Caller
from services.auth.domain.powers import ACCOUNT, ADMIN
from services.common.errors import NotFound, PermissionDenied


class Manager(NamedTuple):
    """Who looks after a team."""

    account_id: str
    is_admin: bool


async def manager_of(accounts: Accounts, keys: Keys, caller: Caller, team_id: str, *, gives: bool) -> Manager:
    """Return an administrator, or an owner of the team; without a team administrators alone.

    Raises NotFound for whoever is in another team, PermissionDenied for everyone else, and for a limited key where the
    call gives.
    """
    record = await accounts.get(caller.account_id)
    owns = bool(team_id) and record.team_id == team_id and record.team_role == "owner"
    is_admin = record.role == "admin" and (caller.key_id is None or ADMIN in caller.manages or not owns)
    if not is_admin and team_id and record.team_id != team_id:
        raise NotFound("no such team")
    if not is_admin and not owns:
        raise PermissionDenied("owners of the team and administrators only" if team_id else "administrators only")
    scope = ADMIN if is_admin else ACCOUNT
    caller.check_manages(scope)
    if gives and caller.key_id is not None:
        await keys.check_gives(record.id, caller.key_id, scope)
    return Manager(record.id, is_admin)
