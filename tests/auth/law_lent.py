"""What routers hold and consume in the tests of the ledger's law."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.auth.domain.ledger import Booking, Further, LeaseIds
from services.auth.domain.pools import Pools
from services.quota_client.amounts import NOTHING, Amount, shared


@dataclass
class Replica:
    pools: Pools
    alive: bool = True


@dataclass
class Lease:
    """A router's lease, as the router sees it."""

    lease_id: str
    replica: Replica
    free: Amount
    day: date
    alive_until: float
    on: tuple[str, ...] = ()
    """Whom it counts on."""
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))


@dataclass
class Reservation:
    """What a router set aside, and what the provider delivered of it."""

    reservation_id: str
    lease: Lease
    amount: Amount
    delivered: Amount = NOTHING
    """By all of its further reservations together, too."""
    ended: bool = False
    further: list[Reservation] = field(default_factory=list)

    @property
    def whole(self) -> Amount:
        """What is set aside for the request in all."""
        return sum((one.amount for one in self.further), self.amount)

    def end(self) -> None:
        """End it: what was not delivered may be reserved again."""
        for one, share in zip(
            (self, *self.further), shared(self.delivered, [self.amount, *(o.amount for o in self.further)]), strict=True
        ):
            one.ended = True
            one.lease.free += (one.amount - share).at_least(NOTHING)


def part_of(amount: Amount, part: float) -> Amount:
    """Return a part of an amount, rounded down."""
    return Amount(*(int(value * part) for value in amount))


def booking_of(lease_ids: LeaseIds, reservation: Reservation) -> Booking:
    """Return the booking of what was delivered of a reservation, and of its further ones."""
    settlement = quota_pb2.Settlement(
        reservation_id=reservation.reservation_id,
        charged=reservation.delivered.message(),
        usage=usage_pb2.Usage(completion_tokens=reservation.delivered.tokens),
        provider="local-text",
        model="m",
        dialect="openai",
        tags=["a", "user:b"],
        further=[one.reservation_id for one in reservation.further],
    )
    return Booking(*_named(lease_ids, reservation), settlement, [_named(lease_ids, one) for one in reservation.further])


def opened(lease_ids: LeaseIds, reservation: Reservation) -> Booking:
    """Return what is reported of a reservation that runs."""
    return Booking(*_named(lease_ids, reservation), quota_pb2.Settlement(reservation_id=reservation.reservation_id))


def _named(lease_ids: LeaseIds, reservation: Reservation) -> Further:
    found = lease_ids.read(reservation.lease.lease_id)
    assert found is not None
    return Further(reservation.reservation_id, reservation.lease.lease_id, found[0], reservation.amount)
