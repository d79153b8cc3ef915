"""Who a key belongs to, what it may do, and what is left to it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol

import msgspec

from moa.quota.v1 import quota_pb2
from services.quota_client import priorities
from services.quota_client.amounts import BOUNDLESS, NOTHING, UNLIMITED, Amount
from services.quota_client.budgets import counts
from services.quota_client.permissions import permitted

_MEMO_SIZE = 4096


class Minute(NamedTuple):
    """What one limit over a minute is, and what is left of it now."""

    limit: int
    """0: there is none."""
    free: int


NO_MINUTE: Final = Minute(0, 0)


class Remaining(msgspec.Struct, frozen=True):
    """What is left of a daily quota; `unlimited` makes the rest meaningless."""

    limit_tokens: int
    free_tokens: int
    limit_images: int
    free_images: int
    resets_at: datetime
    unlimited: bool
    limit_requests: int = 0
    """Requests a minute; 0: any number."""
    free_requests: int = 0
    minute_tokens: Minute = NO_MINUTE
    minute_images: Minute = NO_MINUTE
    minute_nano_usd: Minute = NO_MINUTE


class _Day(NamedTuple):
    """What auth said is left of a day: of tokens and of images the account's or the key's, where that is less."""

    free: Amount
    limit: Amount
    resets_at: datetime
    unlimited: bool


class TaskReservation(Protocol):
    """What this process holds of a key's quota and pace."""

    def free(self) -> Amount:
        """Return what is held and not reserved."""

    def starts(self) -> tuple[int, int] | None:
        """Return the requests a minute, and how many of them are left; None where any number may begin."""

    def minutes(self) -> tuple[Minute, Minute, Minute]:
        """Return what is left of a minute's tokens, images and billionths of a dollar."""


class VerifiedKey:
    """A verified key.

    Args:
        grant: What auth said.
        held: What this process holds for it.
        lane: The budgets that what is held counts on.
    """

    __slots__ = (
        "_day",
        "_free",
        "_grant",
        "_held",
        "_lane",
        "_memo",
        "account_id",
        "key_id",
        "priority",
        "request_logging",
        "team_id",
    )

    def __init__(self, grant: quota_pb2.Grant, held: TaskReservation, lane: tuple[str, ...] = ()) -> None:
        self.account_id = grant.account_id
        self.key_id = grant.key_id
        self.team_id = grant.team_id
        """The team of the account; empty when it is in none."""
        self.priority = priorities.NAMES.get(grant.priority, priorities.NORMAL)
        """What its requests get where engines are contended: `low`, `normal` or `high`."""
        self.request_logging = grant.request_logging
        """What is logged of its requests."""
        self._grant = grant
        self._held = held
        self._day: _Day | None = None
        self._lane = lane
        self._free: Amount | None = None
        self._memo: dict[tuple[int, str, str], bool] = {}

    @property
    def grant(self) -> quota_pb2.Grant:
        """What auth said."""
        return self._grant

    @property
    def counter(self) -> str:
        """What counts for the key, and for those that it is rotated into."""
        return self._grant.counts_as or self.key_id

    @property
    def manages_account(self) -> bool:
        """Whether the key may change its account, and see its secrets."""
        return self._grant.manages_account

    @property
    def stores_responses(self) -> bool:
        """Whether responses of its account are stored where a request does not say otherwise."""
        return self._grant.stores_responses

    def may(self, operation: quota_pb2.Operation.ValueType, provider: str, model: str) -> bool:
        """Return whether the key may do this. Empty names ask whether there is any that it may."""
        asked = (operation, provider, model)
        answer = self._memo.get(asked)
        if answer is None:
            answer = permitted(self._grant.rules, self._grant.scopes, operation, provider, model)
            if len(self._memo) >= _MEMO_SIZE:
                # Names come from callers: a memo must not grow with them.
                self._memo.clear()
            self._memo[asked] = answer
        return answer

    def asking(self, provider: str, model: str, tags: Collection[str]) -> VerifiedKey:
        """Return the key as it is bound for a request: by those of its budgets on which that counts."""
        lane = tuple(one.budget_id for one in self._grant.budgets if counts(one, provider, model, tags))
        return VerifiedKey(self._grant, self._held, lane) if lane else self

    def remaining(self) -> Remaining:
        """Return what is left: the account's, or the key's own where that is less. A second old at most."""
        told = self._day
        if told is None:
            told = self._day = _day(self._grant)
        held = NOTHING if told.unlimited else self._held.free()
        limit_requests, free_requests = self._held.starts() or (0, 0)
        minute_tokens, minute_images, minute_nano_usd = self._held.minutes()
        return Remaining(
            limit_tokens=told.limit.tokens,
            free_tokens=min(told.limit.tokens, told.free.tokens + held.tokens),
            limit_images=told.limit.images,
            free_images=min(told.limit.images, told.free.images + held.images),
            resets_at=told.resets_at,
            unlimited=told.unlimited,
            limit_requests=limit_requests,
            free_requests=min(limit_requests, free_requests),
            minute_tokens=minute_tokens,
            minute_images=minute_images,
            minute_nano_usd=minute_nano_usd,
        )

    def free(self, enough: Amount) -> Amount:
        """Return what is left of all that binds the key, over all periods. A second old at most.

        What this process holds is looked through only where there is not `enough` without.
        """
        told = self._free
        if told is None:
            grant = self._grant
            told = BOUNDLESS if grant.remaining.unlimited else Amount.read_limit(grant.remaining.free)
            if grant.HasField("key_remaining"):
                told = told.at_most(Amount.read_limit(grant.key_remaining.free))
            for budget in grant.budgets:
                if budget.budget_id in self._lane:
                    told = told.at_most(Amount.read_limit(budget.free))
            if self._pays_by_the_minute():
                # Dollars are limited, though no sum of them is: what has no price cannot be held to that.
                told = told._replace(nano_usd=min(told.nano_usd, UNLIMITED - 1))
            self._free = told
        return told if told.covers(enough) else told + self._held.free()

    def _pays_by_the_minute(self) -> bool:
        grant = self._grant
        paces = [grant.pace, grant.key_pace, grant.bound_pace, grant.team_pace]
        paces += [budget.pace for budget in grant.budgets if budget.budget_id in self._lane]
        return any(pace.nano_usd_per_minute for pace in paces)

    def renewed(self, grant: quota_pb2.Grant) -> VerifiedKey:
        """Return the key that a newer grant describes; what was decided is kept when the rules are the same."""
        newer = VerifiedKey(grant, self._held, self._lane)
        if list(grant.rules) == list(self._grant.rules) and list(grant.scopes) == list(self._grant.scopes):
            newer._memo = self._memo
        return newer


def _day(grant: quota_pb2.Grant) -> _Day:
    told = grant.remaining
    free, limit = Amount.read_limit(told.free), Amount.read_limit(told.limit)
    if grant.HasField("key_remaining"):
        own_free, own_limit = Amount.read_limit(grant.key_remaining.free), Amount.read_limit(grant.key_remaining.limit)
        if own_free.tokens < free.tokens:
            free, limit = free._replace(tokens=own_free.tokens), limit._replace(tokens=own_limit.tokens)
        if own_free.images < free.images:
            free, limit = free._replace(images=own_free.images), limit._replace(images=own_limit.images)
    return _Day(free, limit, told.resets_at.ToDatetime(tzinfo=UTC), told.unlimited)
