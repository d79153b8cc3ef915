"""The pace of calls that auth answers itself: they count as any other request of their account and key."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from moa.quota.v1 import quota_pb2
from services.auth.adapters.sessions import Sessions
from services.auth.domain.accounts import VerifiedKey
from services.auth.domain.paces import Limit, PaceStore, limit_of
from services.common.errors import RateLimited, Unavailable

_LEAST_WAIT_S = 0.25


class Arrivals:
    """Counts calls.

    Args:
        ttl_s: How long a holder that vanished counts as one.
    """

    def __init__(self, store: PaceStore, sessions: Sessions, *, ttl_s: float) -> None:
        self._store = store
        self._sessions = sessions
        self._ttl_s = ttl_s
        self._holder = f"auth-{secrets.token_hex(6)}"

    async def of_key(self, who: VerifiedKey) -> None:
        """Count a call with a key. Raises RateLimited with the time until the next."""
        subjects = [who.account_id, who.counter, *filter(None, (who.bound_by, who.team_id))]
        limits = [(subject, limit) for subject in subjects if (limit := limit_of(who, subject)) is not None]
        await self._count(limits, who.key_id)

    async def of_session(self, account_id: str) -> None:
        """Count a call of somebody who is logged in. Raises RateLimited with the time until the next."""
        a_minute, tokens = await self._sessions.pace_of(account_id)
        await self._count([(account_id, Limit(a_minute, 0, tokens))], "")

    async def _count(self, limits: Sequence[tuple[str, Limit]], key_id: str) -> None:
        # A call of these takes a moment: how many run at once says nothing of it.
        needs = [
            (quota_pb2.PaceNeed(key_id=key_id, subject=subject, starts=1, want_starts=1), limit._replace(at_once=0))
            for subject, limit in limits
            if limit.a_minute
        ]
        if not needs:
            return
        try:
            shares = await self._store.lease(self._holder, needs, ttl_s=self._ttl_s)
        except Unavailable:
            # A pace protects and is not money.
            return
        waits = [share.wait.ToMilliseconds() / 1000 for share in shares if not share.starts]
        if waits:
            most = min(limit.a_minute for _, limit in needs)
            raise RateLimited(
                f"at most {most} requests a minute for this account or key", retry_after_s=max(_LEAST_WAIT_S, *waits)
            )
