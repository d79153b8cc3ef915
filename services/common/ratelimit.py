"""What is left of a day's quota, as response headers: OpenAI's names, and the IETF's fields.

The fields are those of draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy` names each quota, its size and its
window, `RateLimit` what is left of each and the seconds until it begins anew.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Final, Protocol

_DAY_S: Final = 86_400


class Remaining(Protocol):
    """What is left of a day's quota."""

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
    def unlimited(self) -> bool:
        """Whether there is no limit; the rest means nothing then."""


def headers(left: Remaining) -> list[tuple[str, str]]:
    """Give the headers that tell what is left; none where there is no limit."""
    if left.unlimited:
        return []
    reset_s = max(0, int(left.resets_at.timestamp() - time.time()))
    found: list[tuple[str, str]] = []
    policies: list[str] = []
    limits: list[str] = []
    for unit, limit, free in (
        ("tokens", left.limit_tokens, left.free_tokens),
        ("images", left.limit_images, left.free_images),
    ):
        found += [
            (f"x-ratelimit-limit-{unit}", str(limit)),
            (f"x-ratelimit-remaining-{unit}", str(free)),
            (f"x-ratelimit-reset-{unit}", f"{reset_s}s"),
        ]
        policies.append(f'"{unit}";q={limit};qu="{unit}";w={_DAY_S}')
        limits.append(f'"{unit}";r={max(0, free)};t={reset_s}')
    return [*found, ("ratelimit-policy", ", ".join(policies)), ("ratelimit", ", ".join(limits))]
