"""What an account and its keys are, as admission needs them, and the limits that bind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, NamedTuple

from moa.quota.v1 import quota_pb2
from services.quota_client import priorities


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an account may use."""

    tokens_a_day: int
    images_a_day: int
    key_count: int
    requests_a_minute: int = 0
    """0: any number."""
    concurrent_requests: int = 0
    """0: any number."""


class KeyLimits(NamedTuple):
    """What a key may use; None: what its account may."""

    tokens_a_day: int | None = None
    images_a_day: int | None = None
    requests_a_minute: int | None = None
    concurrent_requests: int | None = None
    priority: str | None = None


NO_LIMITS: Final = KeyLimits()
"""A key that has no limits of its own."""
DEFAULT_LIMITS: Final = Limits(tokens_a_day=100_000, images_a_day=50, key_count=1)
"""A new account's."""
CEILINGS: Final = Limits(tokens_a_day=1_000_000, images_a_day=500, key_count=10)
"""The most that a user account can be given."""
UNLIMITED: Final = 2**53
"""What stands for "no limit" in an amount."""

LOCAL_ONLY: Final = quota_pb2.Rule(provider="local-*", model="*")
"""What a new account may use."""
BYOK_LIMITS: Final = Limits(tokens_a_day=0, images_a_day=0, key_count=1)
"""All those together who bring a provider's key of their own: what they use is theirs to pay, and its pace is the
router's to count."""
BYOK_RULE: Final = quota_pb2.Rule(
    provider="*", model="*", operations=(quota_pb2.OPERATION_TEXT, quota_pb2.OPERATION_IMAGE)
)
"""What they may use; the router lets them reach no models but their provider's."""
EVERYTHING: Final = quota_pb2.Rule(provider="*", model="*")
"""What an administrator's account may use."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """How much of a day's quota somebody has: the limit, and what is settled or held by blocks."""

    limit_tokens: int
    limit_images: int
    taken_tokens: int
    taken_images: int

    @property
    def free_tokens(self) -> int:
        """Tokens that nobody has yet."""
        return max(0, self.limit_tokens - self.taken_tokens)

    @property
    def free_images(self) -> int:
        """Images that nobody has yet."""
        return max(0, self.limit_images - self.taken_images)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A key and its account, as they stand now."""

    account_id: str
    key_id: str
    digest: bytes
    ended: bool
    """Whether the key is revoked or expired, or the account disabled."""
    rules: tuple[quota_pb2.Rule, ...]
    scopes: tuple[quota_pb2.Rule, ...] = ()
    unlimited: bool
    day: date
    """The quota day, in the account's zone."""
    resets_at: datetime
    """When that day ends."""
    account: Held
    key: Held | None
    """The key's own limits; None when it has none."""
    expires_at: datetime | None = None
    pace: quota_pb2.Pace = field(default_factory=quota_pb2.Pace)
    key_pace: quota_pb2.Pace | None = None
    """The key's own; None when it has none."""
    priority: str = priorities.NORMAL
    """The account's, or the key's own where it is lower."""
    manages: frozenset[str] = frozenset()
    """What the key may do beside using models (`services.auth.domain.powers`)."""
    counts_as: str = ""
    """Whose counters the key's own limits go on with, because it replaced it; empty: its own."""
    bound_by: str = ""
    """The key with limits that made this one; empty: none did."""
    bound: Held | None = None
    """How the limits stand that all keys of that maker keep together; None when it has none."""
    bound_pace: quota_pb2.Pace | None = None
    """The pace that they keep together; None when there is none."""
    micro_credits: int = 0
    """Credits granted in all, in millionths."""

    @property
    def counter(self) -> str:
        """Whose counters the key's own limits count on."""
        return self.counts_as or self.key_id

    @property
    def own(self) -> Held | None:
        """How the limits stand that bind the key beside its account's: its own, or its maker's where less is left."""
        return tighter(self.key, self.bound)


def tighter(one: Held | None, other: Held | None) -> Held | None:
    """Return of two limits, in each unit, the one of which less is left."""
    if one is None or other is None:
        return one or other
    tokens = min(one, other, key=lambda held: held.free_tokens)
    images = min(one, other, key=lambda held: held.free_images)
    return Held(
        limit_tokens=tokens.limit_tokens,
        limit_images=images.limit_images,
        taken_tokens=tokens.taken_tokens,
        taken_images=images.taken_images,
    )
