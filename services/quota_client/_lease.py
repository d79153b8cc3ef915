"""A lease of this process, and how much to lease next."""

from __future__ import annotations

from typing import Final

from moa.quota.v1 import quota_pb2

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
        """Return whether that much can be reserved."""
        return self.tokens >= tokens and self.images >= images and now < self.usable_until and now < self.alive_until


class Appetite:
    """How much quota to hold, from how fast it goes: doubled when the last helping went quickly, else halved."""

    __slots__ = ("_helped_at", "images", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.images = 0
        self._helped_at = -_BRISK_S

    def next(self, tokens: int, images: int, now: float) -> tuple[int, int]:
        """Return how much to ask for when `tokens` and `images` are needed at once."""
        brisk = now - self._helped_at < _BRISK_S
        return (
            _stepped(self.tokens, tokens, _MOST_TOKENS, brisk=brisk),
            _stepped(self.images, images, _MOST_IMAGES, brisk=brisk),
        )

    def helped(self, wanted: tuple[int, int], now: float) -> None:
        """Note that some of what was asked for was given; one who asks in vain is not hungrier for it."""
        self.tokens, self.images = wanted
        self._helped_at = now


def _stepped(size: int, need: int, most: int, *, brisk: bool) -> int:
    return max(need, min(most, max(size * 2 if brisk else size // 2, need * FIRST_TIMES)))
