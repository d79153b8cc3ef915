"""The pace that accounts and keys must keep, over all routers together: who may begin and run how many requests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from moa.quota.v1 import quota_pb2
from services.auth.domain.accounts import VerifiedKey
from services.common.errors import InvalidField
from services.common.isolate import each_isolated, note_failure

_SHARE: Final = 8
UPSTREAM: Final = "upstream:"
"""How the subjects of providers' keys begin, and no account's or key's does."""


class Limit(NamedTuple):
    """Of one account or key; 0: any number."""

    a_minute: int
    at_once: int
    tokens: int = 0
    """Tokens a minute."""
    images: int = 0
    """Images a minute."""
    nano_usd: int = 0
    """Billionths of a dollar a minute."""


class Minute(NamedTuple):
    """How much of what a minute limits beside requests."""

    tokens: float = 0.0
    images: float = 0.0
    nano_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """How many requests can begin now, with how many tokens, and what other holders have."""

    starts: float
    other_slots: int
    other_holders: int
    minute: Minute = Minute()


@dataclass(frozen=True, slots=True)
class Given:
    """What one holder is given, and what is left of the bucket."""

    starts: int
    slots: int
    wait_s: float
    left: float
    minute: Sequence[int]
    """Of each of `Minute`."""
    minute_left: Minute


class PaceStore(Protocol):
    """Where all replicas count together."""

    async def lease(  # noqa: D102
        self, holder: str, needs: Sequence[tuple[quota_pb2.PaceNeed, Limit]], *, ttl_s: float
    ) -> list[quota_pb2.PaceShare]: ...


class VerifiedKeyStore(Protocol):
    """Where keys are looked up."""

    async def by_ids(self, key_ids: Sequence[str]) -> list[VerifiedKey]: ...  # noqa: D102


class Paces:
    """Divides paces among holders.

    Args:
        ttl_s: How long a holder that vanished keeps its slots.
    """

    def __init__(self, verified_keys: VerifiedKeyStore, store: PaceStore, *, ttl_s: float) -> None:
        self._verified_keys = verified_keys
        self._store = store
        self._ttl_s = ttl_s

    async def lease(self, holder: str, needs: Sequence[quota_pb2.PaceNeed]) -> list[quota_pb2.PaceShare]:
        """Return each need's share; none to keys that have no such pace. Raises Unavailable."""
        if not holder:
            raise InvalidField("a holder is required", param="holder")
        key_ids = [need.key_id for need in needs if not need.HasField("upstream")]
        known = {who.key_id: who for who in await self._verified_keys.by_ids(key_ids)} if key_ids else {}
        limited: dict[str, tuple[quota_pb2.PaceNeed, Limit]] = {}
        for need in needs:
            if need.HasField("upstream"):
                if not need.subject.startswith(UPSTREAM):
                    raise InvalidField("the subject of a provider's key is upstream:NAME", param="needs")
                limited[need.subject] = need, _limit(need.upstream)
                continue
            who = known.get(need.key_id)
            # A key that ended is refused elsewhere; what it paced with others goes on.
            limit = limit_of(who, need.subject) if who else None
            if limit is not None:
                limited[need.subject] = need, limit

        async def lease(some: Sequence[tuple[quota_pb2.PaceNeed, Limit]]) -> list[quota_pb2.PaceShare]:
            return await self._store.lease(holder, some, ttl_s=self._ttl_s)

        shares, failed = await each_isolated(list(limited.values()), lease)
        for (need, _), error in failed:
            note_failure("pace", need.subject, error)
        return [*(share for some in shares for share in some), *(self._none(need) for (need, _), _ in failed)]

    def _none(self, need: quota_pb2.PaceNeed) -> quota_pb2.PaceShare:
        """Return a share of nothing: a pace that cannot be counted now is not one that has no limit."""
        share = quota_pb2.PaceShare(subject=need.subject, slots=need.running, holders=1)
        share.wait.FromSeconds(1)
        share.expires_in.FromMilliseconds(int(self._ttl_s * 1000))
        return share


def limit_of(who: VerifiedKey, subject: str) -> Limit | None:
    """Return the pace that an account, a key, all keys of its maker, its team or a budget must keep; None: none."""
    paces = {who.account_id: who.pace, who.counter: who.key_pace}
    if who.bound_by:
        paces[who.bound_by] = who.bound_pace
    if who.team_id:
        paces[who.team_id] = who.team_pace
    for budget in who.budgets:
        paces[budget.id] = budget.pace
    pace = paces.get(subject)
    return _limit(pace) if pace is not None and pace.ListFields() else None


def _limit(pace: quota_pb2.Pace) -> Limit:
    return Limit(
        pace.requests_per_minute,
        pace.concurrent_requests,
        pace.tokens_per_minute,
        pace.images_per_minute,
        pace.nano_usd_per_minute,
    )


@dataclass(frozen=True, slots=True)
class Counted:
    """How a pace stood, and how long ago. None: nobody has counted that."""

    starts: float | None = None
    tokens: float | None = None
    passed_s: float = 0.0
    images: float | None = None
    nano_usd: float | None = None
    exactly_s: float = 0.0
    """How long ago images and dollars were counted, which are by themselves."""


def refilled(limit: Limit, need: quota_pb2.PaceNeed, counted: Counted) -> tuple[float, Minute]:
    """Return how many requests can begin now, and with how much of what else a minute limits, with what is returned.

    Never more than a minute's worth, nor than a provider says is left.
    """
    c = counted
    starts = _refilled(limit.a_minute, c.starts, c.passed_s, need.returned_starts)
    found = Minute(
        tokens=_refilled(limit.tokens, c.tokens, c.passed_s, need.returned_tokens),
        images=_refilled(limit.images, c.images, c.exactly_s, need.returned_images),
        nano_usd=_refilled(limit.nano_usd, c.nano_usd, c.exactly_s, need.returned_nano_usd),
    )
    if need.HasField("most_starts"):
        starts = min(starts, float(need.most_starts))
    if need.HasField("most_tokens"):
        found = found._replace(tokens=min(found.tokens, float(need.most_tokens)))
    return starts, found


def _refilled(a_minute: int, counted: float | None, passed_s: float, returned: int) -> float:
    left = a_minute if counted is None else counted
    return min(float(a_minute), left + max(0.0, passed_s) * a_minute / 60 + returned)


def _sized(*, need: int, want: int, free: int) -> int | None:
    """Return how many to lease when so many are free; None when fewer than the need are."""
    if need > free:
        return None
    return need + max(0, min(want - need, (free - need) // _SHARE))


def share(limit: Limit, bucket: Bucket, need: quota_pb2.PaceNeed) -> Given:
    """Divide: beyond the need, a holder is given an eighth of what would remain at most, as of quota."""
    slots = 0
    if limit.at_once:
        free = max(0, limit.at_once - bucket.other_slots)
        given = _sized(need=need.slots, want=need.want_slots, free=free)
        # What runs already is told as it is, even when the limit has sunk below it.
        slots = max(need.running, min(need.slots, free) if given is None else given)
    left = bucket.minute
    if need.starts and limit.at_once and slots < need.slots:
        return Given(0, slots, 0.0, bucket.starts, _NOTHING, left)
    starts = _of_minute(limit.a_minute, need=need.starts, want=need.want_starts, left=bucket.starts)
    parts = [
        _of_minute(most, need=min(getattr(need, name), most), want=getattr(need, f"want_{name}"), left=here)
        for name, here in left._asdict().items()
        for most in (getattr(limit, name),)
    ]
    if wait_s := max(starts.wait_s, *(part.wait_s for part in parts)):
        return Given(0, slots, wait_s, bucket.starts, _NOTHING, left)
    minute = [part.given for part in parts]
    after = Minute(*(here - part for here, part in zip(left, minute, strict=True)))
    return Given(starts.given, slots, 0.0, bucket.starts - starts.given, minute, after)


_NOTHING: Final = (0,) * len(Minute._fields)


class _Part(NamedTuple):
    given: int
    wait_s: float = 0.0
    """How long until the need is there; 0: it is."""


def _of_minute(a_minute: int, *, need: int, want: int, left: float) -> _Part:
    """Divide what is left of one thing that a minute limits."""
    if not a_minute or not need:
        return _Part(0)
    given = _sized(need=need, want=want, free=math.floor(left))
    return _Part(0, (need - left) * 60 / a_minute) if given is None else _Part(given)
