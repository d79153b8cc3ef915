"""A lease of this process, and how much to lease next."""

from __future__ import annotations

from typing import Final

from moa.quota.v1 import quota_pb2
from services.quota_client.amounts import HELPING, NOTHING, Amount

FIRST_TIMES: Final = 4
"""How many times its first need a key is leased."""
LOW: Final = 4
"""What part of a helping is left when it is time for the next."""
_BRISK_S: Final = 10.0


class Lease:
    """A lease of this process."""

    __slots__ = ("alive_until", "free", "lease_id", "number", "open", "recalled", "renew_after", "usable_until")

    def __init__(self, granted: quota_pb2.Lease, *, asked_at: float, resets_in_s: float) -> None:
        self.lease_id = granted.lease_id
        self.free = Amount.read(granted.amount)
        """What is neither reserved nor spent of it."""
        self.number = 0
        self.open = 0
        self.usable_until = asked_at + resets_in_s
        """Its day ends then: no reservation after it, though running ones go on."""
        self.recalled = False
        self.alive_until = 0.0
        self.renew_after = 0.0
        self.renew(granted, asked_at)

    def renew(self, granted: quota_pb2.Lease, asked_at: float) -> None:
        """Let it live on, counted from when that was asked for."""
        lasts_s = granted.expires_in.ToMilliseconds() / 1000
        self.alive_until = max(self.alive_until, asked_at + lasts_s)
        self.renew_after = asked_at + lasts_s / 4

    def recall(self) -> None:
        """Let nothing more be reserved of it; what is runs on."""
        self.recalled = True
        self.usable_until = 0.0

    def has(self, need: Amount, now: float) -> bool:
        """Return whether that much can be reserved."""
        return self.free.covers(need) and now < self.usable_until and now < self.alive_until


class Demand:
    """How much quota to hold, from how fast it goes: doubled when the last helping went quickly, else halved."""

    __slots__ = ("_helped_at", "low", "size")

    def __init__(self) -> None:
        self.size = NOTHING
        self.low = NOTHING
        """When this much is left of what is reserved in advance, it is time for more."""
        self._helped_at = -_BRISK_S

    def next(self, need: Amount, now: float) -> Amount:
        """Return how much to ask for when `need` is needed at once."""
        stepped = self.size * 2 if now - self._helped_at < _BRISK_S else self.size // 2
        return stepped.at_least(need * FIRST_TIMES).at_most(HELPING).at_least(need)

    def helped(self, wanted: Amount, now: float) -> None:
        """Note that some of what was asked for was given; what is asked for in vain raises no demand."""
        self.size = wanted
        # Images are few and slow: whoever needs one can wait for auth.
        self.low = (wanted // LOW)._replace(images=0)
        self._helped_at = now
