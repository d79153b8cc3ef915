"""What a key may at most, and the law that no key makes a key, or changes one, into more than itself.

Not through other accounts either: an administrator's key that is limited in any dimension gives nobody anything.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Final

from moa.quota.v1 import quota_pb2
from services.auth.domain.accounts import PACES, KeyLimits
from services.auth.domain.records import KeyRecord
from services.common.errors import PermissionDenied
from services.quota_client import priorities
from services.quota_client.amounts import field_of, limit_shown, shown
from services.quota_client.permissions import covers

ACCOUNT: Final = "account"
"""Managing the account: its name and password, its keys, its webhook secret."""
ADMIN: Final = "admin"
"""Using the admin service, where the account is an administrator's."""
_OR: Final = "or do this logged in"
_A_KEY: Final = {ADMIN: "an administrator's key", ACCOUNT: "a key"}


@dataclass(frozen=True, kw_only=True)
class Power(KeyLimits):
    """What a key may, in every dimension. None and empty `scopes`: as much as its account."""

    manages: frozenset[str] = frozenset()
    scopes: tuple[quota_pb2.Rule, ...] = ()
    expires_at: datetime | None = None

    @property
    def metered(self) -> bool:
        """Whether it has limits that are counted, so that two keys would be more than one."""
        return any(limit is not None for limit in self.limits().values())

    @property
    def limited_in(self) -> list[str]:
        """The fields in which it is less than its account."""
        others = {"scopes": self.scopes or None, "priority": self.priority, "expires_in": self.expires_at}
        return [field_of(name) for name, limit in (self.limits() | others).items() if limit is not None]

    def limits(self) -> dict[str, int | None]:
        """Return the limits that are counted, by name."""
        return {
            **self.amounts(),
            **{name: getattr(self, name) for name in PACES},
        }


def _shown(name: str, limit: int) -> str:
    """Return a limit as people write it."""
    if name not in PACES:
        return limit_shown(name, limit)
    if name == "concurrent_requests":
        return f"{limit:,} requests at once"
    return f"{shown(name.removesuffix('_a_minute'), limit)} a minute"


def power_of(key: KeyRecord) -> Power:
    """Return what a stored key may."""
    return Power(
        manages=frozenset(key.manages),
        scopes=tuple(quota_pb2.Rule(**scope) for scope in key.scopes),
        expires_at=key.expires_at,
        **{field.name: getattr(key, field.name) for field in fields(KeyLimits)},
    )


def check_manages(manages: frozenset[str], scope: str) -> None:
    """Raise PermissionDenied for a key that lacks a scope."""
    if scope not in manages:
        raise PermissionDenied(
            f"this key lacks the scope `{scope}`: use one that was made with `manages: [SCOPE_{scope.upper()}]`, {_OR}"
        )


def check_within(maker: Power, made: Power) -> None:
    """Raise PermissionDenied, naming the dimension, where `made` is more than `maker` in any."""
    for scope in sorted(made.manages - maker.manages):
        raise _more(f"this key lacks the scope `{scope}`", "leave it out of `manages`", "manages")
    if maker.scopes and not (
        made.scopes and all(any(covers(rule, one) for rule in maker.scopes) for one in made.scopes)
    ):
        raise _more("this key has scopes", "name `scopes` that lie within its own, each in one of them", "scopes")
    asked = made.limits()
    for name, limit in maker.limits().items():
        given, field = asked[name], field_of(name)
        if limit is not None and (given is None or given > limit):
            raise _more(f"this key has at most {_shown(name, limit)}", f"give `{field}` of at most that", field)
    if maker.priority is not None and (
        made.priority is None or priorities.lower(made.priority, maker.priority) != made.priority
    ):
        raise _more(f"this key has a {maker.priority} priority", "give `priority`, no higher than that", "priority")
    if maker.expires_at is not None and (made.expires_at is None or made.expires_at > maker.expires_at):
        ends = f"{maker.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        raise _more(f"this key ends at {ends}", "give `expires_in` that ends no later", "expires_in")


def check_makes(maker: KeyRecord, made: Power) -> str | None:
    """Raise PermissionDenied where a key may not make another; return whose limits the other keeps, None for nobody's.

    All that a key with limits makes keep its limits together: otherwise ten of them would be ten times as much.
    """
    power = power_of(maker)
    check_manages(power.manages, ACCOUNT)
    check_within(power, made)
    if maker.bound_by is not None:
        raise PermissionDenied(f"this key was made by a key with limits, and makes none itself: use that one, {_OR}")
    return maker.counter if power.metered or maker.budgeted else None


def check_changes(maker: KeyRecord, before: KeyRecord, after: KeyRecord) -> None:
    """Raise PermissionDenied where a key may not change another, or itself, into `after`."""
    power = power_of(maker)
    check_manages(power.manages, ACCOUNT)
    check_within(power, power_of(before))
    check_within(power, power_of(after))


def check_replaces(maker: KeyRecord, old: KeyRecord) -> None:
    """Raise PermissionDenied where a key may not put a new one, whose secret it is told, in another's place."""
    check_changes(maker, old, old)
    own = old.id == maker.id or old.bound_by == maker.counter
    if (power_of(maker).metered or maker.budgeted or maker.bound_by is not None) and not own:
        raise PermissionDenied(
            f"a key with limits of its own replaces only itself and keys that it made: use another, {_OR}"
        )


def check_gives(maker: KeyRecord, scope: str = ADMIN) -> None:
    """Raise PermissionDenied where an administrator's key, or an owner's of a team, may not give: only one without any
    limit may.

    What is given cannot be compared with the key: an account's role, limits, rules, priority and credits are shared by
    all keys that it makes later, and last longer than the key does.
    """
    power = power_of(maker)
    check_manages(power.manages, scope)
    limits = [f"has `{field}`" for field in power.limited_in]
    if maker.budgeted:
        limits.append("has a budget")
    if maker.bound_by is not None:
        limits.append("was made by a key with limits")
    if limits:
        raise PermissionDenied(
            f"this key {' and '.join(limits)}, so it may read, disable and revoke, and gives no account, access, limit,"
            f" permission, priority or credit: use {_A_KEY[scope]} without limits, {_OR}"
        )


def _more(has: str, instead: str, param: str) -> PermissionDenied:
    return PermissionDenied(f"{has}, so no key that it makes or changes has more: {instead}, {_OR}", param=param)
