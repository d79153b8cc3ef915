"""What this process holds for one key: its identity, its leases, and how much it tends to need."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from moa.quota.v1 import quota_pb2
from services.common.admission.identity import Identity
from services.common.errors import RateLimited

if TYPE_CHECKING:
    from services.common.admission.reservation import Reservation

FIRST_TIMES: Final = 4
"""How many times its first need a key is leased."""
_MOST_TOKENS: Final = 1 << 22
_MOST_IMAGES: Final = 1 << 10
_BRISK_S: Final = 10.0


class Lease:
    """A lease of this process. `tokens` and `images` are what is neither reserved nor spent of it."""

    __slots__ = ("alive_until", "images", "lease_id", "number", "open", "renew_after", "tokens", "usable_until")

    def __init__(self, granted: quota_pb2.Lease, *, asked_at: float, resets_in_s: float) -> None:
        self.lease_id = granted.lease_id
        self.tokens = granted.amount.tokens
        self.images = granted.amount.images
        self.number = 0
        self.open = 0
        self.usable_until = asked_at + resets_in_s
        """Its day ends then: no reservation after it, though running ones go on."""
        self.alive_until = 0.0
        self.renew_after = 0.0
        self.renew(granted, asked_at)

    def renew(self, granted: quota_pb2.Lease, asked_at: float) -> None:
        """Let it live on, counted from when that was asked for."""
        lasts_s = granted.expires_in.ToMilliseconds() / 1000
        self.alive_until = max(self.alive_until, asked_at + lasts_s)
        self.renew_after = asked_at + lasts_s / 4

    def has(self, tokens: int, images: int, now: float) -> bool:
        """Tell whether that much can be reserved."""
        return self.tokens >= tokens and self.images >= images and now < self.usable_until and now < self.alive_until


class Appetite:
    """How much quota to hold, from how fast it goes: doubled when the last helping went quickly, else halved."""

    __slots__ = ("_helped_at", "images", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.images = 0
        self._helped_at = -_BRISK_S

    def next(self, tokens: int, images: int, now: float) -> tuple[int, int]:
        """Give how much to ask for when `tokens` and `images` are needed at once."""
        brisk = now - self._helped_at < _BRISK_S
        self._helped_at = now
        self.tokens = _stepped(self.tokens, tokens, _MOST_TOKENS, brisk=brisk)
        self.images = _stepped(self.images, images, _MOST_IMAGES, brisk=brisk)
        return self.tokens, self.images


def _stepped(size: int, need: int, most: int, *, brisk: bool) -> int:
    return max(need, min(most, max(size * 2 if brisk else size // 2, need * FIRST_TIMES)))


class Holding:
    """One key's state in this process."""

    __slots__ = (
        "_allowance",
        "_allowance_at",
        "appetite",
        "digest",
        "fresh_until",
        "identity",
        "leases",
        "lock",
        "open",
        "poor_until",
        "refused_images",
        "refused_tokens",
        "refused_until",
        "topping_up",
        "used_at",
        "waiting_images",
        "waiting_tokens",
    )

    def __init__(self, digest: bytes, grant: quota_pb2.Grant, asked_at: float) -> None:
        self.digest = digest
        self.leases: list[Lease] = []
        self.open: dict[str, Reservation] = {}
        self.lock = asyncio.Lock()
        self.appetite = Appetite()
        self.used_at = asked_at
        self.identity = Identity(grant, self.free)
        self.fresh_until = 0.0
        self.topping_up: asyncio.Task[None] | None = None
        self.poor_until = 0.0
        """No helping ahead of need before then: there was little to get."""
        self.refused_until = 0.0
        self.refused_tokens = 0
        self.refused_images = 0
        self.waiting_tokens = 0
        self.waiting_images = 0
        self._allowance = float(grant.pace.requests_per_minute)
        self._allowance_at = asked_at
        self.take(grant, asked_at)

    def take(self, grant: quota_pb2.Grant, asked_at: float) -> None:
        """Take a grant over: freshness, rules, and the lease in it."""
        self.identity = self.identity.renewed(grant)
        self.fresh_until = max(self.fresh_until, asked_at + grant.fresh_for.ToMilliseconds() / 1000)
        if grant.HasField("lease") and (grant.lease.amount.tokens or grant.lease.amount.images):
            resets_in_s = grant.remaining.resets_at.ToMilliseconds() / 1000 - time.time()
            self.leases.append(Lease(grant.lease, asked_at=asked_at, resets_in_s=resets_in_s))

    def find(self, tokens: int, images: int, now: float) -> Lease | None:
        """Give a lease with room; those that can never serve again are dropped on the way."""
        for lease in self.leases:
            if lease.has(tokens, images, now):
                return lease
        self.leases = [lease for lease in self.leases if lease.open or (lease.tokens or lease.images)]
        return None

    def free(self) -> tuple[int, int]:
        """Give what is held and not reserved."""
        now = time.monotonic()
        usable = [lease for lease in self.leases if lease.has(0, 0, now)]
        return sum(lease.tokens for lease in usable), sum(lease.images for lease in usable)

    def refused_before(self, tokens: int, images: int, now: float) -> bool:
        """Tell whether as little was refused a moment ago."""
        if now >= self.refused_until:
            return False
        return (tokens > 0 and tokens >= self.refused_tokens > 0) or (images > 0 and images >= self.refused_images > 0)

    def refuse(self, tokens: int, images: int, until: float) -> None:
        """Remember a refusal."""
        self.refused_tokens, self.refused_images, self.refused_until = tokens, images, until

    def keep_pace(self, now: float) -> None:
        """Count a request against the key's pace. Raises RateLimited."""
        pace = self.identity.pace
        if pace.concurrent_requests and len(self.open) >= pace.concurrent_requests:
            raise RateLimited(f"at most {pace.concurrent_requests} requests at once for this key", retry_after_s=1)
        if most := pace.requests_per_minute:
            per_s = most / 60
            self._allowance = min(most, self._allowance + (now - self._allowance_at) * per_s)
            self._allowance_at = now
            if self._allowance < 1:
                wait_s = (1 - self._allowance) / per_s
                raise RateLimited(f"at most {most} requests a minute for this key", retry_after_s=wait_s)
            self._allowance -= 1
