"""A lease of this process, and what is set aside of it for one request, until it is settled or released."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.catalogue import Cost
from services.quota_client._part import exact_of
from services.quota_client._payment import Payment
from services.quota_client._share import Share
from services.quota_client._verified_key import VerifiedKey
from services.quota_client.amounts import NOTHING, Amount, charge, shared
from services.quota_client.labels import NO_LABELS, Labels


def costless(usage: usage_pb2.Usage, provider: str, model: str) -> int:
    """Return nothing: for what has no price, or is another's to pay."""
    return 0


class Lease:
    """A lease of this process."""

    __slots__ = ("alive_until", "free", "lease_id", "number", "open", "recalled", "renew_after", "usable_until")

    def __init__(self, granted: quota_pb2.Lease, *, asked_at: float, resets_in_s: float) -> None:
        self.lease_id = granted.lease_id
        self.free = Amount.read_lease(granted.amount)
        """What is neither reserved nor spent of it."""
        self.number = 0
        self.open = 0
        self.usable_until = asked_at + resets_in_s
        """Its day ends then: no reservation after it, though running ones go on."""
        self.recalled = False
        self.alive_until = 0.0
        self.renew_after = 0.0
        self.renew(granted, asked_at)

    def renew(self, granted: quota_pb2.Lease, asked_at: float) -> None:
        """Let it live on, counted from when that was asked for."""
        lasts_s = granted.expires_in.ToMilliseconds() / 1000
        self.alive_until = max(self.alive_until, asked_at + lasts_s)
        self.renew_after = asked_at + lasts_s / 4

    def recall(self) -> None:
        """Let nothing more be reserved of it; what is runs on."""
        self.recalled = True
        self.usable_until = 0.0

    def has(self, need: Amount, now: float) -> bool:
        """Return whether that much can be reserved."""
        return self.free.covers(need) and now < self.usable_until and now < self.alive_until


OnSettled = Callable[[usage_pb2.Usage], None]
SoFar = Callable[[], tuple[usage_pb2.Usage, str, str] | None]
"""Returns what was consumed, of whose model: provider and model; None: nothing."""
"""Hears what was booked in the end."""


class ReservationStore(Protocol):
    """Who made a reservation, and hears of its end; a `LeaseStore` is one."""

    verified_key: VerifiedKey

    def settled(self, reservation: Reservation, settlement: quota_pb2.Settlement) -> None:
        """Book what a reservation came to."""

    def released(self, reservation: Reservation) -> None:
        """Take a reservation back unspent."""

    def deferred(self, reservation: Reservation, settlement: quota_pb2.Settlement, then: OnSettled) -> None:
        """Book this settlement unless a backend's word comes first."""

    def shrink(self, reservation: Reservation, amount: Amount) -> Reservation:
        """Return a smaller reservation of the same quota, in the same paces."""

    def renewed(self, reservation: Reservation) -> Reservation:
        """Return another reservation of the same quota, in the same paces, and book that this one came to nothing."""

    async def lend(self, running: Reservation, need: Amount, least: Amount) -> Reservation:
        """Return a further reservation for a request that runs, of at least so much. Raises as `Admission.reserve`."""


class Reservation(Payment):
    """Quota for one request. Exactly one of `settle` and `release` counts: the first.

    A request that needs more while it runs has further reservations, which are settled and released with its first.
    """

    __slots__ = (
        "_done",
        "_heir",
        "_store",
        "amount",
        "charged",
        "cost",
        "first",
        "further",
        "labels",
        "lease",
        "made_at",
        "operation",
        "paces",
        "reported_at",
        "request_id",
        "reservation_id",
        "so_far",
        "verified_key",
    )

    def __init__(
        self,
        store: ReservationStore,
        lease: Lease,
        amount: Amount,
        operation: quota_pb2.Operation.ValueType,
        request_id: str,
        cost: Cost,
        made_at: float,
        paces: tuple[Share, ...] = (),
    ) -> None:
        self._store = store
        self._done = False
        self._heir: Reservation | None = None
        """What goes on in the place of this one."""
        self.first: Reservation | None = None
        """Of a further reservation the request's first."""
        self.further: Sequence[Reservation] = ()
        """The request's further reservations, in the order in which they pay."""
        self.lease = lease
        self.verified_key = store.verified_key
        self.amount = amount
        """What was set aside at first."""
        self.charged = NOTHING
        """What the last settlement of it that was made comes to."""
        self.cost = cost
        self.labels: Labels = NO_LABELS
        """What its request is called in reports."""
        self.operation = operation
        self.request_id = request_id
        self.made_at = made_at
        self.paces = paces
        """The paces that it runs in."""
        self.so_far: SoFar | None = None
        """Returns what was consumed so far."""
        self.reported_at = 0.0
        """When auth last heard of it; 0: never."""
        lease.number += 1
        # As `ReservationId` writes it.
        self.reservation_id = f"{lease.lease_id}.{amount.numbered(f'{lease.number:x}')}"

    @property
    def held(self) -> Amount:
        """What is set aside in all."""
        return sum((one.amount for one in self.further), self.amount)

    @property
    def paced(self) -> Amount:
        """What is set aside of a minute: of tokens not what an answer grew by."""
        return sum((exact_of(one.amount) for one in self.further), self.amount)

    @property
    def priority(self) -> str:
        """What the request gets where engines are contended."""
        return self.verified_key.priority

    def report(self, *, usage: usage_pb2.Usage, provider: str, model: str) -> None:
        """Say what was consumed so far; charged should this process vanish. Costs nothing, call it often."""
        self.so_far = lambda: (usage, provider, model)

    def follow(self, so_far: SoFar) -> None:
        """Ask for what was consumed so far whenever auth is told; it is charged should this process vanish."""
        self.so_far = so_far

    def settle(self, *, usage: usage_pb2.Usage, provider: str, model: str) -> None:
        """Say what was consumed in the end. Durable when it returns, booked soon after; never more than reserved."""
        if not self._done:
            self._done, self.so_far = True, None
            self._store.settled(self, self.settlement(usage, provider, model))

    def release(self) -> None:
        """Say that nothing was consumed."""
        if not self._done:
            self._done, self.so_far = True, None
            self._store.released(self)

    def void(self) -> None:
        """Say that nothing was consumed, and have it booked, so that a backend which takes this process for dead
        charges nothing (`AbandonedCalls`)."""
        self.settle(usage=usage_pb2.Usage(), provider="", model="")

    def shrink(self, amount: Amount) -> Reservation:
        """Return a reservation of so much, or as much as there is, in the place of this one.

        Only before anybody has been told of it: its id is void.
        """
        if amount.covers(self.amount):
            return self
        smaller = self._store.shrink(self, amount.at_most(self.amount))
        self._done = True
        return smaller

    async def extend(self, need: Amount, *, least: Amount) -> Amount:
        """Set more aside for this request, and return how much; without a pause while its key's leases have room.

        Raises as `Admission.reserve`, where not even `least` can be had.
        """
        paces = self._last.paces
        more = await self._store.lend(self._last, need, least)
        first = self._last
        if first._done:
            more.release()
            for share in paces:
                share.changed(exact_of(more.amount), NOTHING)
            return NOTHING
        more.first, first.further = first, (*first.further, more)
        return more.amount

    @property
    def _last(self) -> Reservation:
        """What goes on in the place of this one in the end; itself where nothing does."""
        last = self
        while last._heir is not None:
            last = last._heir
        return last

    def defer(self, *, usage: usage_pb2.Usage, provider: str, model: str, then: OnSettled) -> None:
        """Leave it to whoever answered to say what this call comes to; if nobody does within seconds, it is `usage`.

        For a call that was left before its end, when only its other end knows how far it had come
        (`AbandonedCalls`). `then` hears what was booked.
        """
        if not self._done:
            self._done = True
            self.so_far = lambda: (usage, provider, model)
            self._store.deferred(self, self.settlement(usage, provider, model), then)

    def renewed(self) -> Reservation:
        """Return the same quota under another id, and void this one.

        For another call after one that was left before its end, whose backend may take this process for dead and book
        this id: then its word is void, and what the next call delivers is booked once all the same.
        """
        further, self.further = self.further, ()
        fresh = self._store.renewed(self)
        self._done, self._heir, fresh.further = True, fresh, further
        for one in further:
            one.first = fresh
        return fresh

    def shares(self, charged: Amount) -> list[Amount]:
        """Return what this and each further reservation pay of a charge."""
        return shared(charged, [self.amount, *(one.amount for one in self.further)])

    def settlement(self, usage: usage_pb2.Usage, provider: str, model: str) -> quota_pb2.Settlement:
        """Return the settlement that this usage makes, of further reservations too."""
        # Field by field, in half the time of arguments.
        settlement = quota_pb2.Settlement()
        settlement.reservation_id = self.reservation_id
        settlement.usage.CopyFrom(usage)
        settlement.operation = self.operation
        settlement.provider = provider
        settlement.model = model
        settlement.request_id = self.request_id
        settlement.dialect, tags = self.labels
        if tags:
            settlement.tags.extend(tags)
        self.charged = charge(settlement, self.amount, self.cost(usage, provider, model))
        # As `GetCurrentTime` does, in a third of the time.
        ended_at = settlement.ended_at
        ended_at.seconds, ended_at.nanos = divmod(time.time_ns(), 1_000_000_000)
        if self.further:
            settlement.further.extend(one.reservation_id for one in self.further)
        return settlement

    def report_of(self) -> quota_pb2.Settlement:
        """Return what would be settled if the request ended now; of a further reservation its part."""
        first = self.first or self
        so_far = first.so_far() if first.so_far is not None else None
        result = first.settlement(*(so_far or (usage_pb2.Usage(), "", "")))
        if self.first is not None:
            share = first.shares(first.charged)[1 + first.further.index(self)]
            result.reservation_id = self.reservation_id
            result.charged.CopyFrom(share.message())
            result.ClearField("usage")
            result.ClearField("price_unknown")
            result.ClearField("further")
        return result
