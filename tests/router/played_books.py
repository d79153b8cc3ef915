"""What played admission lends, and what its reservations came to."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.quota_client import Remaining
from services.quota_client.amounts import Amount
from services.quota_client.labels import NO_LABELS, Labels

TIMEOUT_S = 20


@dataclass
class VerifiedKey:
    """A key of a played account."""

    account_id: str
    priority: str = "normal"
    key_id: str = "key"
    stores_responses: bool = False

    def may(self, operation: quota_pb2.Operation.ValueType, provider: str, model: str) -> bool:
        return self.account_id == "acc1"

    def remaining(self) -> Remaining:
        return Remaining(
            limit_tokens=100,
            free_tokens=90,
            limit_images=5,
            free_images=4,
            resets_at=datetime.now(UTC) + timedelta(hours=1),
            unlimited=False,
        )

    def asking(self, provider: str, model: str, tags: Collection[str]) -> Self:
        return self

    def free(self, enough: Amount) -> Amount:
        return enough


class Books:
    """What reservations came to: a usage, or None for one that was given back."""

    def __init__(self) -> None:
        self._ended: list[usage_pb2.Usage | None] = []
        self._changed = threading.Condition()

    def add(self, usage: usage_pb2.Usage | None) -> None:
        """Note how a reservation ended."""
        with self._changed:
            self._ended.append(usage)
            self._changed.notify_all()

    def ended(self, count: int = 1) -> list[usage_pb2.Usage | None]:
        """Wait until `count` have ended (a caller has its answer before), and give them."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._ended) >= count, TIMEOUT_S)
            return list(self._ended)


@dataclass
class Reservation:
    """A reservation that remembers what it was settled by."""

    verified_key: VerifiedKey
    tokens: int
    books: Books
    reservation_id: str = "r1"
    priority: str = "normal"
    operation: quota_pb2.Operation.ValueType = quota_pb2.OPERATION_TEXT
    labels: Labels = NO_LABELS
    team_id: str = ""

    @property
    def account_id(self) -> str:
        return self.verified_key.account_id

    def follow(self, so_far: Any) -> None: ...

    def report(self, *, usage: usage_pb2.Usage, provider: str, model: str) -> None: ...

    def settle(self, *, usage: usage_pb2.Usage, provider: str, model: str) -> None:
        self.books.add(usage)

    def release(self) -> None:
        self.books.add(None)

    def void(self) -> None:
        self.books.add(None)

    @property
    def amount(self) -> Amount:
        return Amount(self.tokens)

    async def extend(self, need: Amount, *, least: Amount) -> Amount:
        return need

    def shrink(self, amount: Amount) -> Self:
        return self

    def defer(self, *, usage: usage_pb2.Usage, provider: str, model: str, then: object) -> None:
        self.books.add(None)

    def renewed(self) -> Self:
        return self
