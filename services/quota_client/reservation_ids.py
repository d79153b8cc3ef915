"""The id of a reservation: made by the router, understood by auth, and all that a backend needs to settle."""

from __future__ import annotations

from typing import NamedTuple


class ReservationId(NamedTuple):
    """What a reservation's id says: `<lease_id>.<number>.<tokens>.<images>`."""

    lease_id: str
    number: str
    """Unique within the lease."""
    tokens: int
    images: int

    def __str__(self) -> str:
        return f"{self.lease_id}.{self.number}.{self.tokens}.{self.images}"

    @classmethod
    def parse(cls, text: str) -> ReservationId | None:
        """Read an id; None when it is none."""
        parts = text.split(".")
        if len(parts) != 4 or not (
            parts[2].isascii() and parts[2].isdigit() and parts[3].isascii() and parts[3].isdigit()
        ):
            return None
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3]))
