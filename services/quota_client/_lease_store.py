"""What this process holds of one key: whose it is, its leases, its reservations, and how much it tends to need."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.catalogue import Cost
from services.common.errors import QuotaExhausted
from services.quota_client import _budgets
from services.quota_client._budgets import Budgets
from services.quota_client._pace import Paces
from services.quota_client._reservation import Lease, OnSettled, Reservation
from services.quota_client._settling import Settling
from services.quota_client._share import Share
from services.quota_client._verified_key import NO_MINUTE, Minute, VerifiedKey
from services.quota_client.amounts import EACH_REQUEST, HELPING, NOTHING, Amount, covered_by

FIRST_TIMES: Final = 4
"""How many times its first need a key is leased."""
LOW: Final = 4
"""What part of a helping is left when it is time for the next."""
_BRISK_S: Final = 10.0
_BY_THE_MINUTE: Final = ("tokens", "images", "nano_usd")
_NO_MINUTES: Final = (NO_MINUTE, NO_MINUTE, NO_MINUTE)


class Demand:
    """How much quota to hold, from how fast it goes: doubled when the last helping went quickly, else halved."""

    __slots__ = ("_helped_at", "low", "size")

    def __init__(self) -> None:
        self.size = NOTHING
        self.low = NOTHING
        """When this much is left of what is reserved in advance, it is time for more."""
        self._helped_at = -_BRISK_S

    def next(self, need: Amount, now: float) -> Amount:
        """Return how much to ask for when `need` is needed at once."""
        stepped = self.size * 2 if now - self._helped_at < _BRISK_S else self.size // 2
        return stepped.at_least(need * FIRST_TIMES).at_most(HELPING).at_least(need)

    def helped(self, wanted: Amount, given: Amount, now: float) -> None:
        """Note how much of what was asked for was given; what is asked for in vain raises no demand.

        A helping that goes quickly because it was small says nothing of how fast this process uses a key: one that
        asked for more each time would soon hold what auth keeps for all others, for when the database is away.
        """
        self.size = wanted.at_most(self.size.at_least(given))
        # Images are few and slow: whoever needs one can wait for auth.
        self.low = (self.size // LOW)._replace(images=0)
        self._helped_at = now


class LeaseStore:
    """One key's state in this process.

    Args:
        digest: What the key is found by.
        grant: What auth said of it.
        settling: Who books what its reservations come to.
        paces: What this process may do of paces.
        give_back: Returns what a store has idle.
        lend: Returns a further reservation for a request that runs; None: there is none.
    """

    __slots__ = (
        "_give_back",
        "_last",
        "_lend",
        "_paces",
        "_refused",
        "_refused_least",
        "_refused_until",
        "_settling",
        "budgets",
        "demand",
        "digest",
        "fresh_s",
        "fresh_until",
        "lane",
        "lanes",
        "leases",
        "lock",
        "open",
        "paces",
        "parent",
        "poor_until",
        "returning",
        "topping_up",
        "used_at",
        "verified_key",
        "version",
        "waiting",
    )

    def __init__(
        self,
        digest: bytes,
        grant: quota_pb2.Grant,
        asked_at: float,
        settling: Settling,
        paces: Paces,
        give_back: Callable[[LeaseStore], None],
        lend: Lend | None = None,
        *,
        parent: LeaseStore | None = None,
        lane: tuple[str, ...] = (),
    ) -> None:
        self.digest = digest
        self.parent = parent
        """The store of the key, of a lane of it."""
        self.lane = lane
        """The budgets that what is leased here counts on; none in the store of a key."""
        self.lanes: dict[tuple[str, ...], LeaseStore] = {}
        """What is leased of the key for requests that count on budgets, by these."""
        self.budgets: Budgets | None = None
        """The budgets that requests of the key may count on; None for most keys."""
        self._give_back = give_back
        self._lend = lend or _lend_nothing
        self._settling = settling
        self.leases: list[Lease] = []
        self.returning: Sequence[str] = ()
        """The last returns of what was idle, and those before that auth had not confirmed then."""
        self._last: Lease | None = None
        self.open: dict[str, Reservation] = {}
        self.lock = asyncio.Lock()
        self.demand = Demand()
        self.used_at = asked_at
        self.verified_key = VerifiedKey(grant, self, lane)
        self.fresh_s = 0.0
        self.fresh_until = 0.0
        self.version = 0
        """Of the grant that it has, as auth tells it apart from a newer one; 0: not known."""
        self.topping_up: asyncio.Task[None] | None = None
        self.poor_until = 0.0
        """No helping ahead of need before then: there was little to get."""
        self._refused: QuotaExhausted | None = None
        self._refused_least = NOTHING
        self._refused_until = 0.0
        self.waiting = NOTHING
        """What requests that wait need together."""
        self._paces = paces
        self.paces: tuple[Share, ...] = ()
        """The paces that bind it; none for most."""
        self.take(grant, asked_at)

    def take(self, grant: quota_pb2.Grant, asked_at: float) -> None:
        """Take a grant over: freshness, rules, and the lease in it.

        Where limits changed, what was lent under those of before goes back, but for what is reserved of it.
        """
        # 0 is told by the release before.
        if 0 != self.verified_key.grant.limits_version != grant.limits_version != 0:
            self._recall()
        self.verified_key = self.verified_key.renewed(grant)
        self.paces = self._paces.of(grant, self.lane)
        # Most keys have none: nobody who follows one of theirs comes to budgets.
        self.budgets = _budgets.renewed(self.budgets, grant) if grant.budgets else None
        self.version = grant.version
        self.fresh_s = grant.fresh_for.ToMilliseconds() / 1000
        # Of this grant: an answer that was overtaken by a newer one is no fresher for it.
        self.fresh_until = asked_at + self.fresh_s
        for one in self.lanes.values():
            one.take(grant, asked_at)
        if grant.HasField("lease") and Amount.read(grant.lease.amount) and tuple(grant.lease.budgets) == self.lane:
            self.leases.append(Lease(grant.lease, asked_at=asked_at, resets_in_s=_resets_in_s(grant)))

    def keep(self, asked_at: float) -> None:
        """Take over that the grant is still as it was."""
        self.paces = self._paces.of(self.verified_key.grant, self.lane)
        self.fresh_until = max(self.fresh_until, asked_at + self.fresh_s)
        for one in self.lanes.values():
            one.keep(asked_at)

    def of_key(self) -> Iterable[LeaseStore]:
        """Yield the stores of this one's key."""
        key = self.parent or self
        yield key
        yield from key.lanes.values()

    def is_alone(self, need: Amount, running: str) -> bool:
        """Return whether no request of the key runs or waits beside one that needs so much, and may run by this id."""
        return all(
            need.covers(store.waiting) and all(running and one.request_id == running for one in store.open.values())
            for store in self.of_key()
        )

    def find(self, need: Amount, now: float) -> Lease | None:
        """Return a lease with room; those that can never serve again are dropped on the way."""
        # A busy key has a hundred leases with a little left each: the one that served last is asked first.
        if self._last is not None and self._last.has(need, now):
            return self._last
        for lease in self.leases:
            if lease.has(need, now):
                self._last = lease
                return lease
        self._last = None
        self.leases = [lease for lease in self.leases if lease.open or lease.free]
        return None

    def reserve(
        self,
        lease: Lease,
        amount: Amount,
        *,
        operation: quota_pb2.Operation.ValueType,
        request_id: str,
        cost: Cost,
        now: float,
        paces: tuple[Share, ...] = (),
    ) -> Reservation:
        """Set so much of a lease aside, which must have as much; `paces` are those that it was entered in."""
        lease.free -= amount
        lease.open += 1
        # By position: names of a class's arguments cost a dictionary.
        reservation = Reservation(self, lease, amount, operation, request_id, cost, now, paces)
        self.open[reservation.reservation_id] = reservation
        self._settling.opened(reservation.reservation_id)
        return reservation

    def settled(self, reservation: Reservation, settlement: quota_pb2.Settlement) -> None:
        """Book what a reservation came to (`Reservation.settle` calls this).

        What exceeds it is charged to what the account has left: what lies idle here goes back first, so that it counts.
        """
        beyond = self._end(reservation, reservation.charged)
        if beyond:
            for one in self.of_key():
                self._give_back(one)
        self._settling.settled(settlement, after_returns=beyond)
        if reservation.further:
            self._settling.covered(settlement.further)

    def deferred(self, reservation: Reservation, settlement: quota_pb2.Settlement, then: OnSettled) -> None:
        """Keep what was set aside until it is known what was consumed (`Reservation.defer` calls this)."""
        self._leave_paces(reservation, Amount.read(settlement.charged))

        def known(charged: quota_pb2.Amount, usage: usage_pb2.Usage) -> None:
            reservation.charged = Amount.read(charged)
            self._end(reservation, reservation.charged)
            then(usage)

        self._settling.deferred(settlement, known)

    def released(self, reservation: Reservation) -> None:
        """Take a reservation back unspent (`Reservation.release` calls this)."""
        if reservation.reported_at:
            # Auth would charge it as an orphan one day.
            self.settled(reservation, reservation.settlement(usage_pb2.Usage(), "", ""))
            return
        self._close(reservation, reservation.amount)
        self._settling.released(reservation.reservation_id)
        for one in reservation.further:
            self._close(one, one.amount)
            self._settling.released(one.reservation_id)

    def renewed(self, reservation: Reservation) -> Reservation:
        """Return the same of the same lease under another id (`Reservation.renewed` calls this)."""
        paces, reservation.paces = reservation.paces, ()
        # Else a recalled lease goes back with the last of it.
        reservation.lease.open += 1
        self.settled(reservation, reservation.settlement(usage_pb2.Usage(), "", ""))
        fresh = self._again(reservation, reservation.amount, paces)
        reservation.lease.open -= 1
        fresh.so_far = reservation.so_far
        return fresh

    def shrink(self, reservation: Reservation, amount: Amount) -> Reservation:
        """Return a smaller one of the same lease (`Reservation.shrink` calls this)."""
        paces, reservation.paces = reservation.paces, ()
        reservation.lease.open += 1
        self.released(reservation)
        smaller = self._again(reservation, amount, paces)
        reservation.lease.open -= 1
        for share in paces:
            share.changed(reservation.amount, amount)
        return smaller

    async def lend(self, running: Reservation, need: Amount, least: Amount) -> Reservation:
        """Return a further reservation for a request that runs (`Reservation.extend` calls this)."""
        return await self._lend(self, running, need, least)

    def _again(self, ended: Reservation, amount: Amount, paces: tuple[Share, ...]) -> Reservation:
        # What was just put back is there to be taken, though the lease may be too old for others.
        again = self.reserve(
            ended.lease,
            amount,
            operation=ended.operation,
            request_id=ended.request_id,
            cost=ended.cost,
            now=time.monotonic(),
            paces=paces,
        )
        again.labels = ended.labels
        return again

    def free(self) -> Amount:
        """Return what is held and not reserved."""
        now = time.monotonic()
        # A call for each of a busy key's leases, at every request, was a third of what a router does for one.
        usable = [lease.free for lease in self.leases if now < lease.usable_until and now < lease.alive_until]
        if len(usable) == 1:
            return usable[0]
        return Amount(*map(sum, zip(*usable, strict=True))) if usable else NOTHING

    def starts(self) -> tuple[int, int] | None:
        """Return the requests a minute that bind most, and how many of them are left; None where none bind."""
        if not self.paces:
            return None
        bound = [(share.a_minute, share.free_starts + int(share.starts)) for share in self.paces if share.a_minute]
        return min(bound, key=lambda pair: pair[1], default=None)

    def minutes(self) -> tuple[Minute, Minute, Minute]:
        """Return the tokens, images and billionths of a dollar a minute that bind most, and how many are left."""
        if not self.paces:
            return _NO_MINUTES
        found = dict.fromkeys(_BY_THE_MINUTE, NO_MINUTE)
        for share in self.paces:
            for part in share.parts:
                name, free = part.counted.name, max(0, part.free + int(part.here))
                if not found[name].limit or free < found[name].free:
                    found[name] = Minute(part.a_minute, min(part.a_minute, free))
        return found["tokens"], found["images"], found["nano_usd"]

    def low(self) -> bool:
        """Return whether it is time to lease more."""
        now = time.monotonic()
        # The newest hold most: one or two of them answer it.
        free = (one.free for one in reversed(self.leases) if now < one.usable_until and now < one.alive_until)
        return not covered_by(self.demand.low, free)

    def refused_before(self, least: Amount, now: float) -> QuotaExhausted | None:
        """Return the refusal, where as little was refused a moment ago."""
        if now < self._refused_until and least.covers(self._refused_least) and self._refused is not None:
            again = QuotaExhausted(self._refused.message, retry_after_s=self._refused.retry_after_s)
            again.headers = self._refused.headers
            return again
        return None

    def refuse(self, least: Amount, refused: QuotaExhausted, until: float) -> None:
        """Remember a refusal."""
        self._refused, self._refused_least, self._refused_until = refused.with_traceback(None), least, until

    def _end(self, reservation: Reservation, charged: Amount) -> bool:
        """Put back what a request did not consume. Return whether it consumed more than was set aside."""
        if reservation.paces:
            self._leave_paces(reservation, charged)
        if reservation.further:
            charged, *shares = reservation.shares(charged)
            for one, share in zip(reservation.further, shares, strict=True):
                self._close(one, one.amount - share)
        return self._close(reservation, reservation.amount - charged)

    def _recall(self) -> None:
        for lease in self.leases:
            lease.recall()
        self._give_back(self)

    def _close(self, reservation: Reservation, left: Amount) -> bool:
        """Put back what is left of a reservation. Return whether less than nothing is."""
        lease = reservation.lease
        lease.open -= 1
        beyond = min(left) < 0
        lease.free += left.at_least(NOTHING) if beyond else left
        if self._refused is not None and (left + EACH_REQUEST).covers(self._refused_least):
            # What is back may be enough, with a request that another lease brings.
            self._refused = None
        self.open.pop(reservation.reservation_id, None)
        if reservation.paces:
            self._leave_paces(reservation, reservation.amount - left)
        if lease.recalled and not lease.open:
            self._give_back(self)
        return beyond

    @staticmethod
    def _leave_paces(reservation: Reservation, used: Amount) -> None:
        """Leave the paces, once, with so much used."""
        paces, reservation.paces = reservation.paces, ()
        for share in paces:
            share.end(reservation.paced, used)


def _resets_in_s(grant: quota_pb2.Grant) -> float:
    """Return how long the day of a grant's lease lasts; by this process's clock where auth does not tell it."""
    if grant.lease.HasField("day_ends_in"):
        return grant.lease.day_ends_in.ToMilliseconds() / 1000
    return grant.remaining.resets_at.ToMilliseconds() / 1000 - time.time()


async def _lend_nothing(store: LeaseStore, running: Reservation, need: Amount, least: Amount) -> Reservation:
    raise QuotaExhausted("the reservation does not cover this request")


Lend = Callable[[LeaseStore, Reservation, Amount, Amount], Awaitable[Reservation]]
"""Returns a further reservation for a request that runs: of how much, and of how much at least."""
