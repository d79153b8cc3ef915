"""Blocks, the leases that are cut from them, and what is booked of them: their ids, and the arithmetic.

A block is charged within what was reserved of it; what a provider reports beyond that is charged to the day, as far as
it has room (docs/charging.md).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, NamedTuple
from uuid import UUID

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.quota_client.amounts import NOTHING, Amount, ReservationId, shared

TEAM_IDS: Final = "team_"
"""How ids of teams begin, and no others do: the database demands it (`kind_of`)."""
_MAC_BYTES: Final = 14
_SHARE: Final = 8
_REMEMBERED: Final = 1000


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


class LeaseIds:
    """Makes and reads lease ids: the block, a number within it, and a MAC, in 48 URL-safe characters.

    Args:
        secret: The key of the MAC; the same for every replica.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = hmac.digest(secret, b"lease ids", hashlib.sha256)
        # A busy lease is read with each of its reservations' settlements.
        self.read = lru_cache(_REMEMBERED)(self._read)
        """Return the block that a lease was cut from, and its number there; None when the id is not one of ours."""

    def make(self, block: UUID, number: int) -> str:
        """Return the id of a block's `number`th lease."""
        body = block.bytes + number.to_bytes(6, "big")
        return base64.urlsafe_b64encode(body + self._mac(body)).decode()

    def _read(self, lease_id: str) -> tuple[UUID, int] | None:
        try:
            raw = base64.urlsafe_b64decode(lease_id.encode("ascii"))
        except (binascii.Error, UnicodeEncodeError, ValueError):
            return None
        body, mac = raw[:22], raw[22:]
        if len(raw) != 22 + _MAC_BYTES or not hmac.compare_digest(mac, self._mac(body)):
            return None
        return UUID(bytes=body[:16]), int.from_bytes(body[16:], "big")

    def booking(self, settlement: quota_pb2.Settlement) -> Booking | None:
        """Return the booking that a settlement asks for; None when an id in it is not one of ours."""
        first, *further = (self._reservation(name) for name in (settlement.reservation_id, *settlement.further))
        if first is None or None in further:
            return None
        return Booking(*first, settlement, [one for one in further if one])

    def _reservation(self, reservation_id: str) -> Further | None:
        reservation = ReservationId.parse(reservation_id)
        found = self.read(reservation.lease_id) if reservation else None
        if reservation is None or found is None:
            return None
        return Further(reservation_id, reservation.lease_id, found[0], reservation.amount)

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, body, hashlib.sha256)[:_MAC_BYTES]


class Known(NamedTuple):
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


def sized(*, least: Amount, need: Amount, want: Amount, free: Amount) -> Amount | None:
    """Return how much to lease when `free` is free; None when not even `least` is.

    What exceeds the need is at most an eighth of what would remain: many holders share a plenty without asking
    often, and near the limit each gets its need alone.
    """
    if not free.covers(least):
        return None
    given = need.at_most(free)
    return given + (want - given).at_most((free - given) // _SHARE).at_least(NOTHING)
