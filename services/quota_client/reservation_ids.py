"""The id of a reservation: made by the router, understood by auth, and all that a backend needs to settle."""

from __future__ import annotations

from typing import NamedTuple

from services.quota_client.amounts import DIMENSIONS, DOTTED, Amount


class ReservationId(NamedTuple):
    """What a reservation's id says: `<lease_id>.<number>.<tokens>.<images>.<nano_usd>`, with credits behind it.

    What else is counted stands behind the number: `<number>-<requests>`.
    """

    lease_id: str
    number: str
    """Unique within the lease."""
    amount: Amount
    """How much was reserved."""

    def __str__(self) -> str:
        return f"{self.lease_id}.{self.amount.numbered(self.number)}"

    @classmethod
    def parse(cls, text: str) -> ReservationId | None:
        """Read an id; None when it is none. Of dimensions that an earlier release did not know nothing was reserved."""
        lease_id, number, *counts = text.split(".") if "." in text else ("", "")
        number, *further = number.split("-")
        if not 2 <= len(counts) <= DOTTED or len(further) > len(DIMENSIONS) - DOTTED:
            return None
        if not all(map(_is_count, (*counts, *further))):
            return None
        return cls(lease_id, number, Amount(*map(int, counts), *[0] * (DOTTED - len(counts)), *map(int, further)))


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20
