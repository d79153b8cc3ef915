"""What is left of quotas and paces, as response headers: OpenAI's names, and the IETF's fields.

The fields are those of draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy` names each quota, its size and its
window, `RateLimit` what is left of each and the seconds until it begins anew.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from services.quota_client.amounts import UNLIMITED

_DAY_S: Final = 86_400
_MINUTE_S: Final = 60


class _Window(NamedTuple):
    unit: str
    limit: int
    free: int
    window_s: int
    reset_s: int


class Remaining(Protocol):
    """What is left of a day's quota, and of a minute's requests."""

    @property
    def limit_tokens(self) -> int:
        """Tokens a day."""

    @property
    def free_tokens(self) -> int:
        """Tokens left of it."""

    @property
    def limit_images(self) -> int:
        """Images a day."""

    @property
    def free_images(self) -> int:
        """Images left of it."""

    @property
    def resets_at(self) -> datetime:
        """When the day ends."""

    @property
    def limit_requests(self) -> int:
        """Requests a minute; 0: any number."""

    @property
    def free_requests(self) -> int:
        """Requests that may begin now."""

    @property
    def unlimited(self) -> bool:
        """Whether there is no limit; the rest means nothing then."""


def headers(left: Remaining) -> list[tuple[str, str]]:
    """Return the headers that tell what is left; none where there is no limit."""
    windows: list[_Window] = []
    if left.limit_requests:
        used = max(0, left.limit_requests - left.free_requests)
        # Full again after this long: requests come back one by one.
        reset_s = -(-used * _MINUTE_S // left.limit_requests)
        windows.append(_Window("requests", left.limit_requests, left.free_requests, _MINUTE_S, reset_s))
    if not left.unlimited:
        reset_s = max(0, int(left.resets_at.timestamp() - time.time()))
        days = ("tokens", left.limit_tokens, left.free_tokens), ("images", left.limit_images, left.free_images)
        windows += [_Window(unit, most, free, _DAY_S, reset_s) for unit, most, free in days if most < UNLIMITED]
    if not windows:
        return []
    found: list[tuple[str, str]] = []
    for unit, limit, free, _, reset_s in windows:
        found += [
            (f"x-ratelimit-limit-{unit}", str(limit)),
            (f"x-ratelimit-remaining-{unit}", str(max(0, free))),
            (f"x-ratelimit-reset-{unit}", f"{reset_s}s"),
        ]
    policies = ", ".join(f'"{unit}";q={limit};qu="{unit}";w={window_s}' for unit, limit, _, window_s, _ in windows)
    limits = ", ".join(f'"{unit}";r={max(0, free)};t={reset_s}' for unit, _, free, _, reset_s in windows)
    return [*found, ("ratelimit-policy", policies), ("ratelimit", limits)]
