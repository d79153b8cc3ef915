"""The quota ledger in PostgreSQL: every change of a block or a day is a ledger row of the same transaction.

Locks are always taken in the same order (blocks by id, then days by subject), so that replicas cannot deadlock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple
from uuid import UUID, uuid4

from prometheus_client import Counter

from moa.quota.v1 import quota_pb2
from services.auth.adapters import moves
from services.auth.adapters.columns import ADDED, COLUMNS, MARKS, each
from services.auth.adapters.postgres import Link, Postgres
from services.auth.adapters.settlements import Booked, Late, Settlements
from services.auth.adapters.spent import held_of
from services.auth.domain.accounts import SHARED, Owner, Short, Standing, VerifiedKey
from services.auth.domain.held import short_of
from services.auth.domain.ledger import Block, Booking, Ending, Return, sized, subjects
from services.quota_client.amounts import DIMENSIONS, NOTHING, Amount, Period
from services.quota_client.amounts import least as least_of

RECALL: Final = "recall:"
"""What is told of a subject begins so, where what is idle of its quota is wanted."""
_STALE: Final = (
    "select o.reservation_id, o.block_id, o.so_far, o.held,"
    " exists (select 1 from ledger l where l.reference = o.reservation_id)"
    " from open_reservations o join blocks b on b.id = o.block_id"
    " where o.reported_at < now() - make_interval(secs => %s)"
    " and (o.held or b.closed_at is not null or b.ended_at is not null or exists"
    " (select 1 from ended_leases e where e.lease_id = o.lease_id))"
)

UNCOVERED = Counter(
    "moa_uncovered_total", "What was consumed and not charged, since the day had no room left for it.", ["what"]
)


class Borrowed(NamedTuple):
    """A new block, and how the day's quota stands after it."""

    block_id: UUID
    amount: Amount
    standings: tuple[Standing, ...]


class Ledger:
    """Books amounts.

    Args:
        postgres: Where.
        grace_s: How long after its end a block still takes settlements before what is left of it goes back.
        alive_s: How long after its last report a reservation's holder counts as alive.
    """

    def __init__(self, postgres: Postgres, *, grace_s: float, alive_s: float) -> None:
        self._postgres = postgres
        self._grace_s = grace_s
        self._alive_s = alive_s

    async def borrow(
        self, who: VerifiedKey, *, holder: str, least: Amount, need: Amount, want: Amount, ttl_s: float
    ) -> Borrowed | Short:
        """Move quota of the day into a new block; the limit that is short when not even `least` is free."""
        found = await self._borrowed(who, holder=holder, least=least, need=need, want=want, ttl_s=ttl_s)
        if isinstance(found, Borrowed):
            return found
        standings = found
        # What only fills up is refused by no limit, but by what others may want.
        short = Short(Owner.ACCOUNT, DIMENSIONS[0], Period.DAY, 0)
        if not least and not need:
            return short
        shared = [one.subject for one in standings if one.owner in SHARED and one.short(least) is not None]
        # Whoever waits for the counters does not wait for this.
        async with self._postgres.transaction() as link:
            held = await held_of(link, who.account_id, shared, lease_s=self._alive_s)
        return short_of(who.day, standings, least, held) or short

    async def _borrowed(
        self, who: VerifiedKey, *, holder: str, least: Amount, need: Amount, want: Amount, ttl_s: float
    ) -> Borrowed | list[Standing]:
        """As `borrow`; how all stand, where that is too little."""
        counts_as = [one.subject for one in who.standings if one.subject != who.account_id]
        whose = list(subjects(who.account_id, *counts_as))
        async with self._postgres.transaction() as link, link.pipeline():
            await link.execute(
                "insert into quota_counters (subject, period, starts) select unnest(%s::text[]), 'day', %s"
                " on conflict do nothing",
                (whose, who.day),
            )
            taken = await moves.taken_of(link, whose, who.day)
            standings = [replace(one, taken=taken[one.subject]) for one in who.standings]
            free = least_of(one.free for one in standings)
            amount = sized(least=least, need=need, want=want, free=free)
            if not amount:
                return standings
            block_id = uuid4()
            await link.execute(
                f"update quota_counters set {ADDED} where period = 'day' and starts = %s and subject = any(%s)",
                (*amount, who.day, whose),
            )
            await link.execute(
                f"insert into blocks (id, account_id, key_id, counts_as, day, holder, {COLUMNS}, expires_at,"
                f" budgets_known) values (%s, %s, %s, %s, %s, %s, {MARKS}, now() + make_interval(secs => %s), true)",
                (
                    block_id,
                    who.account_id,
                    who.key_id,
                    None if counts_as == [who.key_id] else counts_as,
                    who.day,
                    holder,
                    *amount,
                    ttl_s + self._grace_s,
                ),
            )
            block = Block(block_id, who.account_id, who.key_id, who.day.isoformat(), amount, counts_as=tuple(counts_as))
            await moves.insert(link, [moves.row("borrow", block, str(block_id), amount)])
        after = (
            replace(one, taken={period: before + amount for period, before in one.taken.items()}) for one in standings
        )
        return Borrowed(block_id, amount, tuple(after))

    async def settle(self, bookings: Sequence[Booking]) -> Booked:
        """Charge reservations to their blocks, each at most once. Durable when it returns.

        A request's further reservations are settled with its first. What was consumed beyond all of them is charged
        too, as far as the day has room: the first's block grows by that.
        """
        async with self._postgres.transaction() as link:
            these = await Settlements.read(link, bookings)
            these.take(bookings)
            charges = these.charges
            if these.late or these.unused or any(charge.short for charge in charges):
                await moves.lock_days(link, these.blocks.values())
                charges = await moves.grown(link, charges)
            await moves.insert(link, [charge.row() for charge in charges])
            settled: dict[UUID, Amount] = defaultdict(Amount)
            for charge in charges:
                settled[charge.block.id] += charge.charged
            await moves.moved(link, "settled", settled)
            await moves.taken_back(link, "expire", these.unused)
            await self._settle_late(link, these.late)
            await moves.settled(link, these.names, {block.key_id for block in these.blocks.values()})
        for short in filter(None, (charge.short for charge in charges)):
            for dimension, uncovered in zip(DIMENSIONS, short, strict=True):
                UNCOVERED.labels(dimension).inc(uncovered)
        return these.done

    async def _settle_late(self, link: Link, late: Iterable[Late]) -> None:
        """Charge what came after its block had ended, as far as the day still has room for it."""
        for block, booking, owed in sorted(late, key=lambda item: (item[0].account_id, item[0].key_id, item[0].day)):
            free = await moves.free_of(link, block)
            charged = owed.at_most(free)
            day = {(subject, block.day): charged for subject in block.subjects}
            await moves.days_moved(link, day)
            await moves.insert(
                link, [moves.row("late", block, booking.reservation_id, charged, booking, owed - charged)]
            )

    async def give_back(self, returns: Sequence[Return]) -> None:
        """Return unspent pieces of blocks to their day, each at most once."""
        async with self._postgres.transaction() as link:
            blocks = await moves.locked(link, {r.block_id for r in returns})
            cursor = await link.execute(
                "select reference from ledger where kind = 'return' and reference = any(%s)",
                ([r.return_id for r in returns],),
            )
            seen = {reference for (reference,) in await cursor.fetchall()}
            ended = await moves.ended_among(link, {r.lease_id for r in returns if r.lease_id})
            pieces: list[moves.Piece] = []
            for piece in returns:
                block = blocks.get(piece.block_id)
                if block is None or block.closed or block.ended or piece.return_id in seen or piece.lease_id in ended:
                    continue
                seen.add(piece.return_id)
                amount = piece.amount.at_most(block.outstanding)
                block.outstanding -= amount
                pieces.append(moves.Piece(block, piece.return_id, amount, piece.lease_id))
            await moves.taken_back(link, "return", pieces)

    async def end(self, endings: Sequence[Ending]) -> None:
        """Take leases back: their orphans are charged as last reported, and what was not spent goes to its day."""
        async with self._postgres.transaction() as link:
            blocks = await moves.locked(link, {e.block_id for e in endings})
            before = await moves.ended_among(link, {e.lease_id for e in endings})
            whole = {block.id for block in blocks.values() if not block.closed and not block.ended}
            now = [e for e in endings if e.lease_id not in before and e.block_id in whole]
            names = [e.lease_id for e in now]
            cursor = await link.execute(
                # What a block grew by was never the lease's.
                "select lease_id, "
                + each("sum(case when kind = 'grow' then -{} else {} end)::bigint")
                + " from ledger where block_id = any(%s) and lease_id = any(%s)"
                " and kind in ('settle', 'return', 'grow') group by lease_id",
                ([e.block_id for e in now], names),
            )
            gone = {lease_id: Amount(*amounts) for lease_id, *amounts in await cursor.fetchall()}
            parted = await moves.part(
                link,
                blocks,
                "o.block_id = any(%s) and o.lease_id = any(%s)",
                ([e.block_id for e in now], names),
                alive_s=self._alive_s,
            )
            pieces: list[moves.Piece] = []
            for ending in now:
                block = blocks[ending.block_id]
                spent = (
                    gone.get(ending.lease_id, NOTHING) + parted.charged[ending.lease_id] + parted.kept[ending.lease_id]
                )
                left = (ending.amount - spent).at_most(block.outstanding).at_least(NOTHING)
                block.outstanding -= left
                pieces.append(moves.Piece(block, ending.lease_id, left, ending.lease_id))
            await moves.taken_back(link, "expire", pieces)
            async with link.cursor() as many:
                await many.executemany(
                    "insert into ended_leases (lease_id, block_id) values (%s, %s)",
                    [(e.lease_id, e.block_id) for e in now],
                )

    async def extend(self, block_ids: Sequence[UUID], *, ttl_s: float) -> set[UUID]:
        """Let blocks last `ttl_s` from now; give those that were still open."""
        async with self._postgres.transaction() as link:
            await moves.locked(link, set(block_ids))
            cursor = await link.execute(
                "update blocks set expires_at = greatest(expires_at, now() + make_interval(secs => %s))"
                " where id = any(%s) and closed_at is null and ended_at is null and expires_at > now() returning id",
                (ttl_s + self._grace_s, list(block_ids)),
            )
            return {block_id for (block_id,) in await cursor.fetchall()}

    async def report(self, open_ones: Sequence[Booking]) -> None:
        """Keep what is known of reservations that are still open, should their holder vanish."""
        # Each row locks its block against who settles it.
        open_ones = sorted(open_ones, key=lambda booking: booking.block_id)
        async with self._postgres.transaction() as link, link.cursor() as cursor:
            await cursor.executemany(
                "insert into open_reservations as o (reservation_id, block_id, so_far)"
                " select %s, id, %s from blocks where id = %s"
                # What a journal remembers of a reservation is that it was made: less than what was reported of it.
                " on conflict (reservation_id) do update set so_far = excluded.so_far, reported_at = now() where %s",
                [(b.reservation_id, b.settlement.SerializeToString(), b.block_id, _tells(b)) for b in open_ones],
            )

    async def further_of(self, reservation_ids: Sequence[str]) -> dict[str, list[str]]:
        """Return the further reservations that were reported of open ones, by id."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select reservation_id, so_far from open_reservations where reservation_id = any(%s)",
                (list(reservation_ids),),
            )
            return {
                reservation_id: list(quota_pb2.Settlement.FromString(so_far).further)
                for reservation_id, so_far in await cursor.fetchall()
            }

    async def recall(self, subjects: Collection[str]) -> None:
        """Tell every replica that what holders have idle of the subjects' quota is wanted."""
        async with self._postgres.transaction() as link:
            await link.execute(
                "select pg_notify('moa_accounts', %s || one) from unnest(%s::text[]) one", (RECALL, list(subjects))
            )

    async def owes(self) -> bool:
        """Return whether any block or reservation is open, whoever holds it."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select exists (select 1 from blocks where closed_at is null)"
                " or exists (select 1 from open_reservations)"
            )
            found = await cursor.fetchone()
        return bool(found and found[0])

    async def overdue(self, *, limit: int, but: Sequence[UUID] = ()) -> list[UUID]:
        """Return blocks whose time is over and which nobody ended, without those in `but`."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select id from blocks where closed_at is null and expires_at < now() and id <> all(%s)"
                " order by expires_at limit %s",
                (list(but), limit),
            )
            return [block_id for (block_id,) in await cursor.fetchall()]

    async def expire(self, block_ids: Sequence[UUID]) -> int:
        """End blocks whose time is over: orphans are charged as last reported, the rest goes back to its day.

        Returns how many were ended; another replica may have ended the others, or be about to.
        """
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                moves.BLOCK
                + " where id = any(%s) and closed_at is null and expires_at < now() order by id"
                + " for update skip locked",
                (list(block_ids),),
            )
            blocks = {block.id: block for block in map(moves.block_from, await cursor.fetchall())}
            if not blocks:
                return 0
            parted = await moves.part(link, blocks, "o.block_id = any(%s)", (list(blocks),), alive_s=self._alive_s)
            pieces: list[moves.Piece] = []
            for block in blocks.values():
                left = (block.outstanding - parted.kept_of[block.id]).at_least(NOTHING)
                block.outstanding -= left
                pieces.append(moves.Piece(block, uuid4().hex, left, None))
            await moves.taken_back(link, "expire", pieces)
            await link.execute(
                "update blocks set ended_at = coalesce(ended_at, now()),"
                " closed_at = case when id = any(%s) then null else now() end,"
                " expires_at = now() + make_interval(secs => %s) where id = any(%s)",
                ([block_id for block_id, kept in parted.kept_of.items() if kept], self._alive_s, list(blocks)),
            )
        return len(blocks)

    async def stale(self, *, limit: int, but: Sequence[str] = ()) -> list[str]:
        """Return reservations that outlived their lease and are reported no more, without those in `but`."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                _STALE + " and o.reservation_id <> all(%s) limit %s", (self._alive_s, list(but), limit)
            )
            return [found[0] for found in await cursor.fetchall()]

    async def lose(self, reservation_ids: Sequence[str]) -> int:
        """Charge reservations that outlived their lease and are reported no more; return how many there were.

        One that nothing was kept aside for is charged nothing, and listed with what it had consumed.
        """
        async with self._postgres.transaction() as link:
            chosen = _STALE + " and o.reservation_id = any(%s)"
            cursor = await link.execute(chosen, (self._alive_s, list(reservation_ids)))
            blocks = await moves.locked(link, {found[1] for found in await cursor.fetchall()})
            cursor = await link.execute(
                chosen + " and o.block_id = any(%s) order by o.reservation_id for update of o",
                (self._alive_s, list(reservation_ids), list(blocks)),
            )
            found = await cursor.fetchall()
            lost = [(name, block_id, so_far) for name, block_id, so_far, _, booked in found if not booked]
            held = {name for name, _, _, kept, _ in found if kept}
            pieces: list[moves.Piece] = []
            for name, block_id, so_far in lost:
                block = blocks[block_id]
                before = block.outstanding
                if name not in held:
                    # What is outstanding is other reservations'.
                    block.outstanding = NOTHING
                ((booking, charged),) = await moves.charge_orphans(link, blocks, [(name, block_id, so_far)])
                block.outstanding = before - charged
                if name in held:
                    rest = (booking.reserved - charged).at_most(block.outstanding)
                    block.outstanding -= rest
                    pieces.append(moves.Piece(block, name, rest, booking.lease_id))
            await moves.taken_back(link, "expire", pieces)
            await link.execute(
                "delete from open_reservations where reservation_id = any(%s)", ([name for name, *_ in found],)
            )
        return len(found)


def _tells(report: Booking) -> bool:
    """Return whether a report tells what was consumed, rather than that a reservation was made."""
    return report.settlement.HasField("usage") or report.settlement.HasField("charged")
