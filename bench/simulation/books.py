"""The ledger's books in memory: what its transactions do to days, blocks and reservations.

What is decided in them is the product's own: how much is lent (`sized`), what a settlement is charged (`Booking`), how
it is sorted in (`Settlements`), what a refusal says (`short_of`). Only the bookkeeping is here, in the place of SQL.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Final, NamedTuple
from uuid import UUID, uuid4

from bench.simulation.clock import BEGAN
from services.auth.adapters.ledger import Borrowed
from services.auth.adapters.settlements import Booked, Settlements
from services.auth.domain.accounts import EVERYTHING, Owner, Short, Standing, VerifiedKey
from services.auth.domain.held import Held, short_of
from services.auth.domain.ledger import Block, Booking, Ending, Known, Return, sized
from services.quota_client.amounts import NOTHING, Amount, Period
from services.quota_client.amounts import least as least_of

DAY: Final = datetime.fromtimestamp(BEGAN, UTC).date()
RESETS_AT: Final = datetime.fromtimestamp(BEGAN + 30 * 86_400, UTC)
"""No simulation lasts until then."""


class Key(NamedTuple):
    """A key that may be used, and its account's tokens a day."""

    key_id: str
    account_id: str
    digest: bytes
    tokens_a_day: int


@dataclass
class _Open:
    booking: Booking
    reported_at: float
    held: bool = False


@dataclass
class _Lent(Block):
    expires_at: float = 0.0


@dataclass(kw_only=True)
class Books:
    """Days, blocks and what was booked.

    Args:
        keys: Who may use anything.
        clock: Seconds.
        grace_s: How long after its end a block still takes settlements.
        alive_s: How long after its last report a reservation's holder counts as alive.
    """

    keys: Sequence[Key]
    clock: Callable[[], float]
    grace_s: float
    alive_s: float
    charged: dict[str, Amount] = field(default_factory=dict)
    """What was charged, by reservation."""
    uncovered: Amount = NOTHING
    """What was consumed and came when its day had no room left for it."""

    def __post_init__(self) -> None:
        self._taken: dict[str, Amount] = defaultdict(Amount)
        self._whose: dict[str, str] = {}
        self._blocks: dict[UUID, _Lent] = {}
        self._living: dict[UUID, _Lent] = {}
        """Those that are not closed."""
        self._known: dict[str, dict[str, Known]] = defaultdict(dict)
        self._open: dict[str, _Open] = {}
        self._ended: set[str] = set()
        self._returned: set[str] = set()
        self._gone: dict[str, Amount] = defaultdict(Amount)
        """What was settled or returned of a lease."""
        self._limits = {key.account_id: key.tokens_a_day for key in self.keys}
        self._by_id = {key.key_id: key for key in self.keys}
        self._by_digest = {key.digest: key for key in self.keys}

    # What is read.

    def by_digest(self, digest: bytes) -> VerifiedKey | None:
        """Return the key with this digest."""
        key = self._by_digest.get(digest)
        return self._verified(key) if key else None

    def by_ids(self, key_ids: Sequence[str]) -> list[VerifiedKey]:
        """Return keys by their ids."""
        return [self._verified(self._by_id[key_id]) for key_id in key_ids if key_id in self._by_id]

    def taken(self, account_id: str) -> Amount:
        """Return what is charged to an account or held by blocks of it."""
        return self._taken[account_id]

    def spent(self) -> Amount:
        """Return what was charged in all."""
        return sum(self.charged.values(), NOTHING)

    def outstanding(self) -> Amount:
        """Return what blocks hold, and nobody was charged."""
        return sum((block.outstanding for block in self._living.values()), NOTHING)

    def faults(self) -> list[str]:
        """Return what breaks a law: more taken than a limit, or days that are not what blocks and charges make them."""
        made: dict[str, Amount] = defaultdict(Amount)
        for block in self._blocks.values():
            made[block.account_id] += block.outstanding
        for account_id, amount in self._charged_of.items():
            made[account_id] += amount
        over = [
            f"{account}: {self._taken[account].tokens} of {most}"
            for account, most in self._limits.items()
            if self._taken[account].tokens > most
        ]
        wrong = [
            f"{account}: {self._taken[account]} taken, {made[account]} made"
            for account in self._limits
            if self._taken[account] != made[account]
        ]
        return over + wrong

    @property
    def _charged_of(self) -> dict[str, Amount]:
        result: dict[str, Amount] = defaultdict(Amount)
        for name, amount in self.charged.items():
            result[self._whose[name]] += amount
        return result

    # What is booked, a transaction each.

    def borrow(self, who: VerifiedKey, *, least: Amount, need: Amount, want: Amount, ttl_s: float) -> Borrowed | Short:
        """As `Ledger.borrow`."""
        standings = [replace(one, taken={Period.DAY: self._taken[one.subject]}) for one in who.standings]
        amount = sized(least=least, need=need, want=want, free=least_of(one.free for one in standings))
        if not amount:
            short = Short(Owner.ACCOUNT, "tokens", Period.DAY, 0)
            if not least and not need:
                return short
            return short_of(who.day, standings, least, self._held(who.account_id)) or short
        now = self.clock()
        block = _Lent(uuid4(), who.account_id, who.key_id, who.day.isoformat(), amount, counts_as=(who.key_id,))
        block.expires_at = now + ttl_s + self.grace_s
        self._blocks[block.id] = self._living[block.id] = block
        self._day(block, amount)
        after = (replace(one, taken={Period.DAY: self._taken[one.subject]}) for one in standings)
        return Borrowed(block.id, amount, tuple(after))

    def settle(self, bookings: Sequence[Booking]) -> Booked:
        """As `Ledger.settle`."""
        leases = {booking.lease_id for booking in bookings}
        held = {booking.reservation_id for booking in bookings if self._is_held(booking.reservation_id)}
        these = Settlements(
            self._some(booking.block_id for booking in bookings), self._known, leases & self._ended, held
        )
        these.take(bookings)
        for charge in these.charges:
            block, booking = charge.block, charge.booking
            more = charge.short.at_most(self._free(block)) if charge.short else NOTHING
            self._day(block, more)
            self._charge(booking.reservation_id, block, charge.charged + more)
            self._gone[booking.lease_id] += charge.charged
            self.uncovered += charge.short - more
        for piece in these.unused:
            self._day(piece.block, NOTHING - piece.amount)
        for block, booking, owed in these.late:
            charged = owed.at_most(self._free(block))
            self._day(block, charged)
            self._charge(booking.reservation_id, block, charged)
            self.uncovered += owed - charged
        for name in these.names:
            self._open.pop(name, None)
        return these.done

    def give_back(self, returns: Sequence[Return]) -> None:
        """As `Ledger.give_back`."""
        for piece in returns:
            block = self._blocks.get(piece.block_id)
            if block is None or block.closed or block.ended or piece.return_id in self._returned:
                continue
            if piece.lease_id in self._ended:
                continue
            self._returned.add(piece.return_id)
            amount = piece.amount.at_most(block.outstanding)
            self._back(block, amount)
            if piece.lease_id:
                self._gone[piece.lease_id] += amount

    def end(self, endings: Sequence[Ending]) -> None:
        """As `Ledger.end`."""
        for ending in endings:
            block = self._blocks.get(ending.block_id)
            if ending.lease_id in self._ended or block is None or block.closed or block.ended:
                continue
            spent = self._gone[ending.lease_id]
            spent += self._parted([name for name, one in self._open.items() if one.booking.lease_id == ending.lease_id])
            self._back(block, (ending.amount - spent).at_most(block.outstanding).at_least(NOTHING))
            self._ended.add(ending.lease_id)

    def extend(self, block_ids: Sequence[UUID], *, ttl_s: float) -> set[UUID]:
        """As `Ledger.extend`."""
        now = self.clock()
        alive = {
            block.id
            for block in self._some(block_ids).values()
            if not block.closed and not block.ended and block.expires_at > now
        }
        for block_id in alive:
            block = self._blocks[block_id]
            block.expires_at = max(block.expires_at, now + ttl_s + self.grace_s)
        return alive

    def report(self, open_ones: Sequence[Booking]) -> None:
        """As `Ledger.report`."""
        for booking in open_ones:
            if booking.block_id not in self._blocks:
                continue
            told = booking.settlement.HasField("usage") or booking.settlement.HasField("charged")
            known = self._open.get(booking.reservation_id)
            if known is None:
                self._open[booking.reservation_id] = _Open(booking, self.clock())
            elif told:
                known.booking, known.reported_at = booking, self.clock()

    def owes(self) -> bool:
        """As `Ledger.owes`."""
        return bool(self._open or self._living)

    def overdue(self, *, limit: int) -> list[UUID]:
        """As `Ledger.overdue`."""
        now = self.clock()
        return [block.id for block in self._living.values() if block.expires_at < now][:limit]

    def expire(self, block_ids: Sequence[UUID]) -> int:
        """As `Ledger.expire`."""
        now, count = self.clock(), 0
        for block in self._some(block_ids).values():
            if block.closed or block.expires_at >= now:
                continue
            count += 1
            kept = self._parted([name for name, one in self._open.items() if one.booking.block_id == block.id])
            self._back(block, (block.outstanding - kept).at_least(NOTHING))
            block.ended, block.closed = True, not kept
            if block.closed:
                del self._living[block.id]
            block.expires_at = now + self.alive_s
        return count

    def stale(self, *, limit: int) -> list[str]:
        """As `Ledger.stale`."""
        before = self.clock() - self.alive_s
        return [name for name, one in self._open.items() if one.reported_at < before and self._is_over(one)][:limit]

    def lose(self, names: Sequence[str]) -> int:
        """As `Ledger.lose`."""
        before = self.clock() - self.alive_s
        found = [(name, self._open[name]) for name in names if name in self._open]
        found = [(name, one) for name, one in found if one.reported_at < before and self._is_over(one)]
        for name, one in found:
            block = self._blocks[one.booking.block_id]
            charged = self._orphaned(name) if one.held else NOTHING
            if one.held:
                self._back(block, (one.booking.reserved - charged).at_most(block.outstanding))
            self._open.pop(name, None)
        return len(found)

    # The steps of transactions.

    def _verified(self, key: Key) -> VerifiedKey:
        limits = {"tokens_a_day": key.tokens_a_day}
        account = Standing.of(Owner.ACCOUNT, key.account_id, limits, {Period.DAY: self._taken[key.account_id]})
        own = Standing.of(Owner.KEY, key.key_id, {}, {Period.DAY: self._taken[key.key_id]})
        return VerifiedKey(
            account_id=key.account_id,
            key_id=key.key_id,
            digest=key.digest,
            ended=False,
            rules=(EVERYTHING,),
            unlimited=False,
            day=DAY,
            resets_at=RESETS_AT,
            standings=(account, own),
        )

    def _some(self, block_ids: Iterable[UUID]) -> dict[UUID, _Lent]:
        return {block_id: self._blocks[block_id] for block_id in block_ids if block_id in self._blocks}

    def _day(self, block: Block, amount: Amount) -> None:
        for subject in block.subjects:
            self._taken[subject] += amount

    def _back(self, block: Block, amount: Amount) -> None:
        block.outstanding -= amount
        self._day(block, NOTHING - amount)

    def _charge(self, name: str, block: Block, amount: Amount) -> None:
        self.charged[name] = self.charged.get(name, NOTHING) + amount
        self._whose[name] = block.account_id

    def _free(self, block: Block) -> Amount:
        limits = {"tokens_a_day": self._limits[block.account_id]}
        return Standing.of(Owner.ACCOUNT, block.account_id, limits, {Period.DAY: self._taken[block.account_id]}).free

    def _held(self, account_id: str) -> list[Held]:
        now = self.clock()
        return [
            Held(frozenset(block.subjects), date.fromisoformat(block.day), block.expires_at - now, block.outstanding)
            for block in self._living.values()
            if block.account_id == account_id and block.outstanding
        ]

    def _is_held(self, name: str) -> bool:
        return name in self._open and self._open[name].held

    def _is_over(self, one: _Open) -> bool:
        block = self._blocks[one.booking.block_id]
        return one.held or block.closed or block.ended or one.booking.lease_id in self._ended

    def _parted(self, names: Sequence[str]) -> Amount:
        """Keep what is reported of late, charge the rest as last reported; return what both come to."""
        result = NOTHING
        for name in names:
            one = self._open[name]
            if self._known[name]:
                del self._open[name]
            elif one.reported_at > self.clock() - self.alive_s:
                one.held = True
                result += one.booking.reserved
            else:
                self._orphaned(name)
                del self._open[name]
        return result

    def _orphaned(self, name: str) -> Amount:
        booking = self._open[name].booking
        block = self._blocks[booking.block_id]
        charged = booking.charged.at_most(block.outstanding)
        block.outstanding -= charged
        self._charge(name, block, charged)
        self._known[name]["orphan"] = Known(charged, booking.settlement.usage)
        return charged
