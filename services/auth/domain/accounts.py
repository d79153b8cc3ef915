"""What an account and its keys are, as admission needs them, and the limits that bind them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from functools import cached_property
from typing import Final, NamedTuple

from moa.quota.v1 import quota_pb2
from services.quota_client import priorities
from services.quota_client.amounts import (
    BOUNDLESS,
    DIMENSIONS,
    NOTHING,
    PERIODS,
    UNLIMITED,
    Amount,
    AmountLimits,
    Period,
    least,
    limit_of,
)
from services.quota_client.budgets import counts

PACES: Final = "requests_a_minute", "concurrent_requests", "tokens_a_minute", "images_a_minute", "nano_usd_a_minute"
"""The names of limits on the pace of requests."""


@dataclass(frozen=True, kw_only=True)
class PacedLimits(AmountLimits):
    """Limits of an account or a key: amounts, and the pace of requests. None: no limit of its own. 0: nothing."""

    requests_a_minute: int | None = None
    concurrent_requests: int | None = None
    tokens_a_minute: int | None = None
    images_a_minute: int | None = None
    nano_usd_a_minute: int | None = None


@dataclass(frozen=True, kw_only=True)
class Limits(PacedLimits):
    """What an account may use."""

    key_count: int


@dataclass(frozen=True, kw_only=True)
class KeyLimits(PacedLimits):
    """What a key may use; None: what its account may."""

    priority: str | None = None


NO_LIMITS: Final = KeyLimits()
"""A key that has no limits of its own."""
DEFAULT_LIMITS: Final = Limits(tokens_a_day=100_000, images_a_day=50, key_count=1)
"""A new account's."""
CEILINGS: Final = Limits(tokens_a_day=1_000_000, images_a_day=500, key_count=10)
"""The most that a user account can be given."""
LOCAL_ONLY: Final = quota_pb2.Rule(provider="local-*", model="*")
"""What a new account may use."""
BYOK_LIMITS: Final = Limits(tokens_a_day=0, images_a_day=0, key_count=1)
"""All those together who bring a provider's key of their own: what they use is theirs to pay, and its pace is the
router's to count."""
BYOK_RULE: Final = quota_pb2.Rule(
    provider="*", model="*", operations=(quota_pb2.OPERATION_TEXT, quota_pb2.OPERATION_IMAGE)
)
"""What they may use; the router lets them reach no models but their provider's."""
EVERYTHING: Final = quota_pb2.Rule(provider="*", model="*")
"""What an administrator's account may use."""


class Owner(StrEnum):
    """Whose limits bind a key."""

    ACCOUNT = "account"
    KEY = "key"
    MAKER = "maker"
    """The key that made this one, and all of whose keys keep its limits together."""
    TEAM = "team"
    """What accounts keep limits together in."""
    BUDGET = "budget"
    """Limits on a part of what is asked for."""


SHARED: Final = frozenset({Owner.TEAM, Owner.BUDGET})
"""Whose limits bind a key no more when its account, or what it asks for, is another."""


class Short(NamedTuple):
    """A limit that does not cover what is needed."""

    owner: Owner
    dimension: str
    period: Period
    limit: int
    label: str = ""
    """What people call its owner, where it has a name."""
    back_in_s: float | None = None
    """When what others hold of it is free again at the latest, as far as they do not use it, and covers what is needed;
    None: it is used up."""
    needed: int | None = None
    """What is needed, where that is more than the whole limit: no new period covers it."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How the limits of a subject stand: what they are, and what is settled or held by blocks of them."""

    owner: Owner
    subject: str
    """Whose counters they are."""
    limits: Mapping[Period, Amount]
    """By period; `UNLIMITED` where there is none."""
    taken: Mapping[Period, Amount]
    """What is out of reach for others, in the period that the quota day is in."""
    label: str = ""
    """What people call the subject, where it has a name; of a budget also whose it is."""

    @classmethod
    def of(
        cls,
        owner: Owner,
        subject: str,
        limits: Mapping[str, int | None],
        taken: Mapping[Period, Amount],
        label: str = "",
    ) -> Standing:
        """Return the standing of limits that are told by name."""
        by_period = {
            period: Amount(
                *[UNLIMITED if (most := limits.get(limit_of(name, period))) is None else most for name in DIMENSIONS]
            )
            for period in PERIODS
        }
        return cls(owner=owner, subject=subject, limits=by_period, taken=taken, label=label)

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return any(limit != BOUNDLESS for limit in self.limits.values())

    def left(self, period: Period) -> Amount:
        """Return what nobody has yet of one period."""
        return (self.limits[period] - self.taken.get(period, NOTHING)).at_least(NOTHING)

    @cached_property
    def free(self) -> Amount:
        """What nobody has yet, whatever the period."""
        return least(self.left(period) for period in PERIODS)

    def without(self, held: Mapping[Period, Amount]) -> Standing:
        """Return how they would stand if nothing of this were held."""
        return replace(self, taken={period: taken - held.get(period, NOTHING) for period, taken in self.taken.items()})

    def short(self, need: Amount) -> Short | None:
        """Return the limit that a need exceeds: the one that begins anew last, for it keeps the others waiting."""
        for period in reversed(PERIODS):
            for name, left, wanted, limit in zip(DIMENSIONS, self.left(period), need, self.limits[period], strict=True):
                if wanted > left:
                    return Short(self.owner, name, period, limit, self.label)
        return None

    def never(self, need: Amount) -> Short | None:
        """Return the limit that is less than a need, however little of it is used."""
        for period in PERIODS:
            for name, wanted, limit in zip(DIMENSIONS, need, self.limits[period], strict=True):
                if wanted > limit:
                    return Short(self.owner, name, period, limit, self.label, needed=wanted)
        return None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A budget that requests of a key may count on."""

    provider: str
    model: str
    tag: str
    standing: Standing
    pace: quota_pb2.Pace | None = None

    @property
    def id(self) -> str:
        """Whose counters it is."""
        return self.standing.subject


@dataclass(frozen=True, kw_only=True)
class VerifiedKey:
    """A key and its account, as they stand now."""

    account_id: str
    key_id: str
    digest: bytes
    ended: bool
    """Whether the key is revoked or expired, or the account disabled."""
    disabled: bool = False
    """Whether the account is disabled, of a key that has not ended otherwise."""
    rules: tuple[quota_pb2.Rule, ...]
    scopes: tuple[quota_pb2.Rule, ...] = ()
    unlimited: bool
    day: date
    """The quota day, in the account's zone."""
    resets_at: datetime
    """When that day ends."""
    standings: tuple[Standing, ...]
    """How all stands that binds the key: its account's limits first, then its own, whether it has any or not; behind
    them the budgets that a request counts on (`asking`)."""
    ends: Mapping[Period, datetime] = field(default_factory=dict)
    """When the periods that the day is in end; those that never do are left out."""
    expires_at: datetime | None = None
    pace: quota_pb2.Pace = field(default_factory=quota_pb2.Pace)
    key_pace: quota_pb2.Pace | None = None
    """The key's own; None when it has none."""
    priority: str = priorities.NORMAL
    """The account's, or the key's own where it is lower."""
    manages: frozenset[str] = frozenset()
    """What the key may do beside using models (`services.auth.domain.powers`)."""
    counts_as: str = ""
    """Whose counters the key's own limits go on with, because it replaced it; empty: its own."""
    bound_by: str = ""
    """The key with limits that made this one; empty: none did."""
    bound_pace: quota_pb2.Pace | None = None
    """The pace that they keep together; None when there is none."""
    micro_credits: int = 0
    """Credits granted in all, in millionths."""
    stores_responses: bool | None = None
    """Whether the account wants its responses stored; None: what the operator's setting says."""
    team_id: str = ""
    """The team of its account; empty: it is in none."""
    team_pace: quota_pb2.Pace | None = None
    """The pace that the team's accounts keep together; None when there is none."""
    budgets: tuple[Budget, ...] = ()
    """The budgets that its requests may count on."""
    request_logging: quota_pb2.RequestLogging.ValueType = quota_pb2.REQUEST_LOGGING_UNSPECIFIED
    """What is logged of its requests."""

    @property
    def counter(self) -> str:
        """Whose counters the key's own limits count on."""
        return self.counts_as or self.key_id

    @property
    def own(self) -> tuple[Standing, ...]:
        """The limits beside its account's: the key's, those that it keeps with others of its maker, its team's."""
        return tuple(one for one in self.standings if one.owner not in (Owner.ACCOUNT, Owner.BUDGET))

    @property
    def limits(self) -> tuple[tuple[str, Mapping[Period, Amount]], ...]:
        """All limits that bind the key, with whose they are where that may change."""
        return tuple((one.subject if one.owner in SHARED else "", one.limits) for one in self.standings)

    def asking(
        self, provider: str, model: str, tags: Collection[str], known: Collection[str] | None = ()
    ) -> VerifiedKey:
        """Return the key as it is bound for a request: by those of its budgets on which that counts.

        `known` are budgets on which it counts by itself; None: on all, for nobody knows.
        """
        if not self.budgets:
            return self
        on = [
            budget.standing
            for budget in self.budgets
            if known is None or budget.id in known or (model and counts(budget, provider, model, tags))
        ]
        return replace(self, standings=(*self.standings, *sorted(on, key=lambda one: one.subject))) if on else self

    @property
    def lane(self) -> tuple[str, ...]:
        """The budgets on which a request counts, once it is known (`asking`)."""
        return tuple(one.subject for one in self.standings if one.owner is Owner.BUDGET) if self.budgets else ()

    def stood(self, standings: Sequence[Standing]) -> VerifiedKey:
        """Return the key, bound as it is, with standings as they are now."""
        now = {(one.owner, one.subject): one for one in standings}
        budgets = self.budgets and tuple(
            replace(budget, standing=now.get((Owner.BUDGET, budget.id), budget.standing)) for budget in self.budgets
        )
        kept = tuple(now.get((one.owner, one.subject), one) for one in self.standings)
        return replace(self, standings=kept, budgets=budgets)

    @property
    def free(self) -> Amount:
        """What nobody has yet of all that binds the key."""
        return least(standing.free for standing in self.standings)
