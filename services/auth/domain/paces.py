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


@dataclass(frozen=True, slots=True)
class Bucket:
    """How many requests can begin now, with how many tokens, and what other holders have."""

    starts: float
    other_slots: int
    other_holders: int
    tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class Given:
    """What one holder is given, and what is left of the bucket."""

    starts: int
    slots: int
    wait_s: float
    left: float
    tokens: int = 0
    tokens_left: float = 0.0


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
    if pace is None or not (pace.requests_per_minute or pace.concurrent_requests or pace.tokens_per_minute):
        return None
    return _limit(pace)


def _limit(pace: quota_pb2.Pace) -> Limit:
    return Limit(pace.requests_per_minute, pace.concurrent_requests, pace.tokens_per_minute)


def refilled(
    limit: Limit, need: quota_pb2.PaceNeed, starts: float, tokens: float | None, passed_s: float
) -> tuple[float, float]:
    """Return how many requests can begin after a while, and with how many tokens, with what is returned.

    Never more than a minute's worth, nor than a provider says is left. `tokens`: None where nobody has counted them.
    """
    starts = _refilled(limit.a_minute, starts, passed_s, need.returned_starts)
    tokens = _refilled(limit.tokens, limit.tokens if tokens is None else tokens, passed_s, need.returned_tokens)
    if need.HasField("most_starts"):
        starts = min(starts, float(need.most_starts))
    if need.HasField("most_tokens"):
        tokens = min(tokens, float(need.most_tokens))
    return starts, tokens


def _refilled(a_minute: int, left: float, passed_s: float, returned: int) -> float:
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
    if need.starts and limit.at_once and slots < need.slots:
        return Given(0, slots, 0.0, bucket.starts, 0, bucket.tokens)
    starts = _of_minute(limit.a_minute, need=need.starts, want=need.want_starts, left=bucket.starts)
    tokens = _of_minute(limit.tokens, need=min(need.tokens, limit.tokens), want=need.want_tokens, left=bucket.tokens)
    if starts.wait_s or tokens.wait_s:
        return Given(0, slots, max(starts.wait_s, tokens.wait_s), bucket.starts, 0, bucket.tokens)
    return Given(starts.given, slots, 0.0, bucket.starts - starts.given, tokens.given, bucket.tokens - tokens.given)


class _Part(NamedTuple):
    given: int
    wait_s: float = 0.0
    """How long until the need is there; 0: it is."""


def _of_minute(a_minute: int, *, need: int, want: int, left: float) -> _Part:
    """Divide what is left of a minute's requests or tokens."""
    if not a_minute or not need:
        return _Part(0)
    given = _sized(need=need, want=want, free=math.floor(left))
    return _Part(0, (need - left) * 60 / a_minute) if given is None else _Part(given)
