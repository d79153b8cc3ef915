"""What owners of a team may set of its members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from services.auth.domain.records import AccountRecord, TeamRecord
from services.common.errors import PermissionDenied
from services.quota_client.amounts import field_of

_UNBOUND: Final = "an administrator can"


def check_part(limits: Mapping[str, Any], team: TeamRecord) -> None:
    """Raise PermissionDenied where an owner would give a part of a team more than the team has."""
    for name, limit in limits.items():
        most = getattr(team, name)
        if most is not None and limit is not None and limit > most:
            field = field_of(name)
            raise PermissionDenied(f"an owner gives no more `{field}` than the team has; {_UNBOUND}", param=field)


def check_beneath(limits: Mapping[str, Any], member: AccountRecord, team: TeamRecord) -> None:
    """Raise PermissionDenied where an owner would give a member more than the team has, or limit an administrator.

    What the team has no limit of binds the member by its own limit alone: an owner may lower that, and not raise it.
    What owners set they take away, which leaves what there was before.
    """
    if limits and member.role == "admin":
        raise PermissionDenied("the limits of an administrator are set by administrators; ask one", param="limits")
    for name, limit in limits.items():
        if limit is None and (getattr(member, name) is None or name in member.limits_before):
            continue
        if limit is None:
            field = field_of(name)
            raise PermissionDenied(f"an owner takes away no `{field}` that no owner set; {_UNBOUND}", param=field)
        if name == "key_count":
            most: int | None = member.key_count
        else:
            of_team, own = getattr(team, name), getattr(member, name)
            most = own if of_team is None else of_team
        if most is not None and limit > most:
            field = "keys" if name == "key_count" else field_of(name)
            raise PermissionDenied(f"an owner gives no more `{field}` than the team has; {_UNBOUND}", param=field)
