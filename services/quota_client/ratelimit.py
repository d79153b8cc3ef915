"""What is left of quotas and paces, as response headers: OpenAI's names, and the IETF's fields.

The fields are those of draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy` names each quota, its size and its
window, `RateLimit` what is left of each and the seconds until it begins anew.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from services.quota_client.amounts import UNLIMITED, dollars

_DAY_S: Final = 86_400
_MINUTE_S: Final = 60
_USD: Final = "usd"
_FIELD_UNITS: Final = {_USD: "nano-usd"}


class _Window(NamedTuple):
    name: str
    unit: str
    limit: int
    free: int
    window_s: int
    reset_s: int


class Minute(Protocol):
    """One limit over a minute."""

    @property
    def limit(self) -> int:
        """How much a minute has; 0: any amount."""

    @property
    def free(self) -> int:
        """How much may be used now."""


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
    def minute_tokens(self) -> Minute:
        """A minute's tokens."""

    @property
    def minute_images(self) -> Minute:
        """A minute's images."""

    @property
    def minute_nano_usd(self) -> Minute:
        """A minute's billionths of a dollar."""

    @property
    def unlimited(self) -> bool:
        """Whether there is no limit; the rest means nothing then."""


def headers(left: Remaining) -> list[tuple[str, str]]:
    """Return the headers that tell what is left; none where there is no limit.

    OpenAI's names know one window of a unit: a minute's, where there is one, else the day's. The fields have both.
    Dollars are whole billionths in the fields, which know no fractions.
    """
    windows: list[_Window] = []
    if left.limit_requests:
        windows.append(_minute("requests", "requests", left.limit_requests, left.free_requests))
    for unit, minute in (("tokens", left.minute_tokens), ("images", left.minute_images), (_USD, left.minute_nano_usd)):
        if minute.limit:
            windows.append(_minute(f"{unit}-a-minute", unit, minute.limit, minute.free))
    if not left.unlimited:
        reset_s = max(0, int(left.resets_at.timestamp() - time.time()))
        days = ("tokens", left.limit_tokens, left.free_tokens), ("images", left.limit_images, left.free_images)
        windows += [_Window(unit, unit, most, free, _DAY_S, reset_s) for unit, most, free in days if most < UNLIMITED]
    if not windows:
        return []
    found: dict[str, str] = {}
    for _, unit, limit, free, _, reset_s in windows:
        written = dollars if unit == _USD else str
        found.setdefault(f"x-ratelimit-limit-{unit}", written(limit))
        found.setdefault(f"x-ratelimit-remaining-{unit}", written(max(0, free)))
        found.setdefault(f"x-ratelimit-reset-{unit}", f"{reset_s}s")
    policies = ", ".join(
        [
            f'"{name}";q={limit};qu="{_FIELD_UNITS.get(unit, unit)}";w={window_s}'
            for name, unit, limit, _, window_s, _ in windows
        ]
    )
    limits = ", ".join([f'"{name}";r={max(0, free)};t={reset_s}' for name, _, _, free, _, reset_s in windows])
    return [*found.items(), ("ratelimit-policy", policies), ("ratelimit", limits)]


def _minute(name: str, unit: str, limit: int, free: int) -> _Window:
    used = max(0, limit - free)
    # Full again after this long: what was used comes back bit by bit.
    return _Window(name, unit, limit, free, _MINUTE_S, -(-used * _MINUTE_S // limit))
