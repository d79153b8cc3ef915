"""What the operations on tasks need of others."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from moa.quota.v1 import quota_pb2
from services.quota_client import unpriced
from services.quota_client.amounts import Amount


class VerifiedKey(Protocol):
    """A verified key."""

    account_id: str
    key_id: str

    @property
    def manages_account(self) -> bool:
        """Whether the key may see and change the account's secrets."""

    def may(self, operation: quota_pb2.Operation.ValueType, provider: str, model: str) -> bool:
        """Return whether the key may do this. Empty names ask whether there is any that it may."""

    def asking(self, provider: str, model: str, tags: Collection[str]) -> unpriced.Limited:
        """Return the key as it is bound for a request: by those of its budgets on which that counts."""

    def free(self, enough: Amount) -> Amount:
        """Return what is left of its limits."""


class Admission(Protocol):
    """Who verifies keys; `services.quota_client.Admission` is one."""

    async def arrive(self, key: str) -> VerifiedKey:
        """Verify a key, and count the request. Raises Unauthenticated or RateLimited."""

    async def count(
        self, key: str, *, provider: str, model: str, tags: tuple[str, ...] = (), amount: Amount
    ) -> Callable[[], None]:
        """Count what a task will come to on a minute's limits; return what takes that back. Raises MoaError."""


class WebhookTargets(Protocol):
    """Which URLs callers may name; the egress guard is one."""

    def check(self, url: str, *, param: str) -> object:
        """Raise InvalidField for a URL that is never called, as far as can be told without asking anybody."""
