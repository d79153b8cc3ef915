"""What is booked, and the arithmetic of it.

A block is charged within what was reserved of it; what a provider reports beyond that is charged to the day, as far as
it has room (docs/charging.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple
from uuid import UUID

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.quota_client.amounts import Amount, shared
from services.quota_client.reservation_ids import ReservationId

TEAM_IDS: Final = "team_"
"""How ids of teams begin, and no others do: the database demands it (`kind_of`)."""


class Further(NamedTuple):
    """A further reservation of a request, whose id was read."""

    reservation_id: str
    lease_id: str
    block_id: UUID
    reserved: Amount


@dataclass(frozen=True)
class Booking:
    """A settlement whose ids were read."""

    reservation_id: str
    lease_id: str
    block_id: UUID
    reserved: Amount
    settlement: quota_pb2.Settlement
    further: Sequence[Further] = ()

    @cached_property
    def charged(self) -> Amount:
        """What to charge to the block: what was consumed, within what was reserved."""
        return self.consumed.at_most(self.reserved)

    @cached_property
    def consumed(self) -> Amount:
        """What was consumed of it, even beyond what was reserved: what further reservations pay is theirs."""
        consumed = Amount.read(self.settlement.charged)
        return shared(consumed, self._reserved)[0] if self.settlement.further else consumed

    def others(self, *, unpaid: bool = False) -> list[Booking]:
        """Return the bookings of the further reservations; `unpaid`: they pay nothing."""
        if not self.further:
            return []
        told = quota_pb2.Settlement()
        if not unpaid:
            told.CopyFrom(self.settlement)
            for name in ("usage", "price_unknown", "further", "first_alone"):
                told.ClearField(name)
        consumed = Amount.read(told.charged)
        result = []
        for one, share in zip(self.further, shared(consumed, self._reserved)[1:], strict=True):
            part = quota_pb2.Settlement()
            part.CopyFrom(told)
            part.charged.CopyFrom(share.message())
            result.append(Booking(one.reservation_id, one.lease_id, one.block_id, one.reserved, part))
        return result

    @property
    def _reserved(self) -> list[Amount]:
        further = map(ReservationId.parse, self.settlement.further)
        return [self.reserved, *(one.amount for one in further if one)]


@dataclass(frozen=True, slots=True)
class Known:
    """What an earlier settlement of a reservation had booked."""

    charged: Amount
    usage: usage_pb2.Usage


@dataclass(frozen=True, slots=True)
class Return:
    """An unspent piece of a block that comes back; of a lease of it, or (with no lease) of what was never leased."""

    return_id: str
    block_id: UUID
    amount: Amount
    lease_id: str | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """A lease that is taken back."""

    lease_id: str
    block_id: UUID
    amount: Amount
    """How much it was, in all."""


@dataclass(slots=True)
class Block:
    """A piece of a day's quota that one process holds."""

    id: UUID
    account_id: str
    key_id: str
    day: str
    outstanding: Amount
    closed: bool = False
    ended: bool = False
    """Its time is over; what is outstanding is kept aside for reservations that are still reported."""
    counts_as: tuple[str, ...] = ()
    """On whose days it counts beside its account's; none: its key's."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whose days it was borrowed from, each once, in the order in which they are locked."""
        return subjects(self.account_id, *(self.counts_as or (self.key_id,)))

    @property
    def team_id(self) -> str | None:
        """The team that it counts on; None: none."""
        return next((subject for subject in self.counts_as if subject.startswith(TEAM_IDS)), None)


def subjects(*ids: str) -> tuple[str, ...]:
    """Return whose days count what a key uses: an id that stands for two is one subject, counted once."""
    return tuple(sorted(set(ids)))
