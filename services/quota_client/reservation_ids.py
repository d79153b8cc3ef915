"""The id of a reservation: made by the router, understood by auth, and all that a backend needs to settle."""

from __future__ import annotations

from typing import NamedTuple

from services.quota_client.amounts import DIMENSIONS, Amount


class ReservationId(NamedTuple):
    """What a reservation's id says: `<lease_id>.<number>.<tokens>.<images>.<nano_usd>`, with credits behind it."""

    lease_id: str
    number: str
    """Unique within the lease."""
    amount: Amount
    """How much was reserved."""

    def __str__(self) -> str:
        return f"{self.lease_id}.{self.number}.{self.amount.dotted}"

    @classmethod
    def parse(cls, text: str) -> ReservationId | None:
        """Read an id; None when it is none. Of dimensions that an earlier release did not know nothing was reserved."""
        parts = text.split(".")
        counts = parts[2:]
        if not 2 <= len(counts) <= len(DIMENSIONS) or not all(map(_is_count, counts)):
            return None
        return cls(parts[0], parts[1], Amount(*map(int, counts)))


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20
