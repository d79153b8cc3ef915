"""The paces of providers' keys: what of them this process may do, leased from auth as those of accounts are."""

from __future__ import annotations

import time
from collections.abc import Sequence

from moa.quota.v1 import quota_pb2
from services.quota_client._pace import Paces
from services.quota_client._share import Share, entered
from services.quota_client.amounts import Amount

Rate = tuple[str, quota_pb2.Pace]
"""The name of a provider's key, or of a model's part of it, and its pace."""


class Turn:
    """A call of a provider that counts in its paces. Ended once."""

    __slots__ = ("_set_aside", "_shares")

    def __init__(self, shares: Sequence[Share], set_aside: Amount) -> None:
        self._shares = shares
        self._set_aside = set_aside

    def end(self, used: int | None = None) -> None:
        """Say how many tokens it used in the end; None: as many as it might."""
        shares, self._shares = self._shares, ()
        for share in shares:
            share.end(self._set_aside, self._set_aside if used is None else Amount(tokens=used))


class UpstreamPaces:
    """What this process may do of providers' paces."""

    def __init__(self, paces: Paces) -> None:
        self._paces = paces

    def turn(self, rates: Sequence[Rate], tokens: int) -> Turn | None:
        """Return a turn where that needs no call, else None. Raises RateLimited where it was refused a moment ago."""
        shares = self._shares(rates)
        need = Amount(tokens=tokens)
        return Turn(shares, need) if entered(shares, time.monotonic(), need) else None

    async def enter(self, rates: Sequence[Rate], tokens: int) -> Turn:
        """Return a turn. Raises RateLimited with the time until there may be one."""
        shares = self._shares(rates)
        need = Amount(tokens=tokens)
        await self._paces.enter(shares, need)
        return Turn(shares, need)

    def left(self, rates: Sequence[Rate], tokens: int) -> float:
        """Return what part of the paces is left, as far as is known here; 0 where so many tokens would be refused."""
        now = time.monotonic()
        least = 1.0
        for name, pace in rates:
            share = self._paces.known_upstream(name)
            if share is None:
                continue
            if now < share.refused_until or now < share.wait_until:
                return 0.0
            if pace.requests_per_minute:
                least = min(least, (share.free_starts + max(0.0, share.starts)) / pace.requests_per_minute)
            if (part := share.part("tokens")) is not None:
                free = part.free + max(0.0, part.here)
                least = min(least, 0.0 if free < min(tokens, pace.tokens_per_minute) else free / pace.tokens_per_minute)
        return max(0.0, min(1.0, least))

    def reported(self, rate: Rate, *, requests: int | None, tokens: int | None, wait_s: float) -> None:
        """Take what a provider says is left of a pace: that counts, whatever was reckoned here.

        `wait_s`: for how long it takes nothing.
        """
        (share,) = self._shares((rate,))
        share.reported(requests=requests, tokens=tokens)
        if wait_s > 0:
            share.rest(time.monotonic() + wait_s)

    def _shares(self, rates: Sequence[Rate]) -> list[Share]:
        return [self._paces.upstream(name, pace) for name, pace in rates]
