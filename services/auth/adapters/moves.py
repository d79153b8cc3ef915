"""The steps that the ledger's transactions are made of: locks, rows, and the counters that follow the rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date
from typing import Any, Final, LiteralString, NamedTuple
from uuid import UUID

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.auth.adapters.columns import ADDED, COLUMNS, LIMIT_COLUMNS, each
from services.auth.adapters.postgres import Link
from services.auth.domain.accounts import Owner, Standing
from services.auth.domain.ledger import Block, Booking, Known
from services.quota_client.amounts import (
    DIMENSIONS,
    GRANTED,
    LIMITS,
    NOTHING,
    Amount,
    Period,
    ReservationId,
    least,
)

_USAGE = (
    "operation, provider, model, prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens, cache_write_tokens,"
    " delivered_images, exact, price_unknown, request_id, ended_at, dialect, tags"
)
_NO_USAGE = (None,) * (_USAGE.count(",") + 1)
_LEDGER = ", ".join(
    [
        "kind, account_id, key_id, team_id, day, block_id, reference",
        COLUMNS,
        each("uncovered_{}"),
        each("reserved_{}"),
        _USAGE,
    ]
)
_INSERT = f"insert into ledger ({_LEDGER}, lease_id) values (" + ", ".join(["%s"] * (_LEDGER.count(",") + 2)) + ")"
_COPY = f"copy ledger ({_LEDGER}, lease_id) from stdin"
_MOVED: Final[Mapping[str, LiteralString]] = {
    "settled": f"update blocks set {each('settled_{} = settled_{} + %s')} where id = %s",
    "returned": f"update blocks set {each('returned_{} = returned_{} + %s')} where id = %s",
}
_NOT_RESERVED = (None,) * len(DIMENSIONS)

BLOCK = (
    "select id, account_id, key_id, day, closed_at is not null, ended_at is not null, counts_as, "
    + each("{} - settled_{} - returned_{}")
    + " from blocks"
)


def block_from(row: tuple[Any, ...]) -> Block:
    """Read a row of `BLOCK`."""
    block_id, account_id, key_id, day, closed, ended, counts_as, *outstanding = row
    return Block(
        block_id, account_id, key_id, day.isoformat(), Amount(*outstanding), closed, ended, tuple(counts_as or ())
    )


async def locked(link: Link, block_ids: set[UUID]) -> dict[UUID, Block]:
    """Lock blocks and give them by id; those that are not there are left out."""
    cursor = await link.execute(BLOCK + " where id = any(%s) order by id for update", (sorted(block_ids),))
    return {block.id: block for block in map(block_from, await cursor.fetchall())}


async def insert(link: Link, rows: list[tuple[Any, ...]]) -> None:
    """Append rows to the ledger."""
    if len(rows) == 1:
        await link.execute(_INSERT, rows[0])
    elif rows:
        # One statement for all of them: their sums by day are made once (the trigger), not a row each.
        async with link.cursor() as cursor, cursor.copy(_COPY) as copy:
            for one in rows:
                await copy.write_row(one)


async def moved(link: Link, column: str, amounts: dict[UUID, Amount]) -> None:
    """Add to the blocks' `settled` or `returned`; a block with nothing outstanding is closed later, at its end."""
    rows = [(*amount, block_id) for block_id, amount in amounts.items()]
    if len(rows) == 1:
        # In the way of several it takes twice the time.
        await link.execute(_MOVED[column], rows[0])
    elif rows:
        async with link.cursor() as cursor:
            await cursor.executemany(_MOVED[column], rows)


class Charge(NamedTuple):
    """A settlement on its way into the ledger."""

    block: Block
    booking: Booking
    charged: Amount

    @property
    def short(self) -> Amount:
        """What was consumed and is not charged."""
        consumed = self.booking.consumed
        return NOTHING if consumed == self.charged else (consumed - self.charged).at_least(NOTHING)

    def row(self) -> tuple[Any, ...]:
        """Return the ledger's row, as `insert` takes it."""
        return row("settle", self.block, self.booking.reservation_id, self.charged, self.booking, self.short)


async def known_of(link: Link, reservation_ids: Sequence[str]) -> dict[str, dict[str, Known]]:
    """Return what the ledger holds of reservations, by id and kind."""
    cursor = await link.execute(
        "select reference, kind, prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens, cache_write_tokens,"
        f" delivered_images, exact, {COLUMNS} from ledger"
        " where reference = any(%s) and kind in ('settle', 'orphan', 'late')",
        (list(reservation_ids),),
    )
    known: dict[str, dict[str, Known]] = defaultdict(dict)
    for row in await cursor.fetchall():
        reference, kind, prompt, completion, reasoning, cached, cache_write, made, exact, *charged = row
        usage = usage_pb2.Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            reasoning_tokens=reasoning,
            cached_tokens=cached,
            cache_write_tokens=cache_write,
            images=made,
            exact=exact,
        )
        known[reference][kind] = Known(Amount(*charged), usage)
    return known


def sum_of(before: dict[str, Known], *further: dict[str, Known]) -> Known:
    """Return what a request was charged in all, with the usage of its first reservation's latest row."""
    charged = sum((known.charged for one in (before, *further) for known in one.values()), NOTHING)
    return Known(charged, (before.get("late") or before["settle"]).usage)


async def grown(link: Link, charges: Sequence[Charge]) -> list[Charge]:
    """Charge what exceeds reservations out of what their days have left; the blocks grow by that.

    The days must be locked. Returns all charges.
    """
    result: list[Charge] = []
    for charge in charges:
        more = charge.short
        if more:
            more = more.at_most(await free_of(link, charge.block))
        if more:
            block = charge.block
            await days_moved(link, {(subject, block.day): more for subject in block.subjects})
            await link.execute(f"update blocks set {ADDED} where id = %s", (*more, block.id))
            await insert(
                link, [row("grow", block, charge.booking.reservation_id, more, lease_id=charge.booking.lease_id)]
            )
        result.append(charge._replace(charged=charge.charged + more))
    return result


class Piece(NamedTuple):
    """What goes back from a block to its day."""

    block: Block
    reference: str
    amount: Amount
    lease_id: str | None


async def taken_back(link: Link, kind: str, pieces: Sequence[Piece]) -> None:
    """Move pieces of blocks back to their days."""
    rows = [row(kind, p.block, p.reference, p.amount, lease_id=p.lease_id) for p in pieces if p.amount]
    await insert(link, rows)
    returned: dict[UUID, Amount] = defaultdict(Amount)
    days: dict[tuple[str, str], Amount] = defaultdict(Amount)
    for piece in pieces:
        block = piece.block
        returned[block.id] += piece.amount
        for subject in block.subjects:
            days[subject, block.day] -= piece.amount
    await moved(link, "returned", returned)
    await days_moved(link, days)


async def ended_among(link: Link, lease_ids: set[str]) -> set[str]:
    """Return those of the leases that were taken back."""
    cursor = await link.execute("select lease_id from ended_leases where lease_id = any(%s)", (sorted(lease_ids),))
    return {lease_id for (lease_id,) in await cursor.fetchall()}


class Parted(NamedTuple):
    """What became of open reservations whose lease or block is over."""

    charged: dict[str, Amount]
    """What orphans were charged, by lease."""
    kept: dict[str, Amount]
    """What is kept aside for those whose holder lives, by lease."""
    kept_of: dict[UUID, Amount]
    """The same, by block."""


async def part(
    link: Link, blocks: dict[UUID, Block], condition: LiteralString, parameters: tuple[object, ...], *, alive_s: float
) -> Parted:
    """Keep what open reservations reserved if they were reported of late; charge the others as last reported."""
    cursor = await link.execute(
        "select reservation_id, block_id, so_far, reported_at > now() - make_interval(secs => %s),"
        " exists (select 1 from ledger l where l.reference = o.reservation_id)"
        " from open_reservations o where " + condition + " order by reservation_id for update",
        (alive_s, *parameters),
    )
    parted = Parted(defaultdict(Amount), defaultdict(Amount), defaultdict(Amount))
    lost: list[tuple[str, UUID, bytes]] = []
    done: list[str] = []
    held: list[str] = []
    for reservation_id, block_id, so_far, alive, booked in await cursor.fetchall():
        reservation = ReservationId.parse(reservation_id)
        if booked or reservation is None:
            done.append(reservation_id)
        elif alive:
            held.append(reservation_id)
            parted.kept[reservation.lease_id] += reservation.amount
            parted.kept_of[block_id] += reservation.amount
        else:
            done.append(reservation_id)
            lost.append((reservation_id, block_id, so_far))
    await link.execute("delete from open_reservations where reservation_id = any(%s)", (done,))
    await link.execute("update open_reservations set held = true where reservation_id = any(%s)", (held,))
    for booking, charged in await charge_orphans(link, blocks, lost):
        parted.charged[booking.lease_id] += charged
    return parted


async def charge_orphans(
    link: Link, blocks: dict[UUID, Block], lost: Sequence[tuple[str, UUID, bytes]]
) -> list[tuple[Booking, Amount]]:
    """Charge reservations whose holder vanished as last reported; give each with its charge."""
    charges: list[tuple[Booking, Amount]] = []
    rows: list[tuple[Any, ...]] = []
    settled: dict[UUID, Amount] = defaultdict(Amount)
    for reservation_id, block_id, so_far in lost:
        reservation = ReservationId.parse(reservation_id)
        assert reservation is not None
        block = blocks[block_id]
        settlement = quota_pb2.Settlement.FromString(so_far)
        booking = Booking(reservation_id, reservation.lease_id, block_id, reservation.amount, settlement)
        charged = booking.charged.at_most(block.outstanding)
        block.outstanding -= charged
        settled[block_id] += charged
        rows.append(row("orphan", block, reservation_id, charged, booking, booking.consumed - charged))
        charges.append((booking, charged))
    await insert(link, rows)
    await moved(link, "settled", settled)
    return charges


async def lock_days(link: Link, blocks: Iterable[Block]) -> None:
    """Lock the counters of blocks' days, in the one order in which everybody does."""
    wanted = sorted({(subject, block.day) for block in blocks for subject in block.subjects})
    await link.execute(
        "select 1 from quota_counters c join (select distinct w.subject, p.period, p.starts"
        " from unnest(%s::text[], %s::date[]) w (subject, day), periods_of(w.day) p) w using (subject, period, starts)"
        " order by c.subject, c.period, c.starts for update of c",
        ([subject for subject, _ in wanted], [day for _, day in wanted]),
    )


async def days_moved(link: Link, days: dict[tuple[str, str], Amount]) -> None:
    """Add to what is out of reach of days, by subject and day; the database adds it to the periods that they are in."""
    async with link.cursor() as cursor:
        await cursor.executemany(
            f"update quota_counters set {ADDED} where subject = %s and period = 'day' and starts = %s",
            [(*amount, *where) for where, amount in sorted(days.items()) if amount],
        )


async def taken_of(link: Link, subjects: Iterable[str], day: date | str) -> dict[str, dict[Period, Amount]]:
    """Return what is out of reach by subject, in each period that a day is in; it stays so to the transaction's end."""
    cursor = await link.execute(
        f"select c.subject, c.period, {COLUMNS} from quota_counters c join periods_of(%s) p using (period, starts)"
        " where c.subject = any(%s) order by c.subject, c.period, c.starts for update of c",
        (day, list(subjects)),
    )
    taken: dict[str, dict[Period, Amount]] = defaultdict(dict)
    for subject, period, *amounts in await cursor.fetchall():
        taken[subject][Period(period)] = Amount(*amounts)
    return taken


async def free_of(link: Link, block: Block) -> Amount:
    """Return what all still have free that a block counts on, in every period that its day is in, and keep it so until
    the transaction ends."""
    taken = await taken_of(link, block.subjects, block.day)
    # What a key goes on with has its limits: they were taken over when it was replaced.
    cursor = await link.execute(
        f"select subject, kind, {LIMIT_COLUMNS}, {GRANTED} from subject_limits where subject = any(%s)",
        (list(block.subjects),),
    )
    return least(
        Standing.of(Owner(kind), subject, dict(zip((*LIMITS, GRANTED), limits, strict=True)), taken[subject]).free
        for subject, kind, *limits in await cursor.fetchall()
    )


async def settled(link: Link, names: Sequence[str], key_ids: set[str]) -> None:
    """Forget that reservations are open, and note that keys were used, to the minute."""
    await link.execute(
        "with gone as (delete from open_reservations where reservation_id = any(%s))"
        " update keys set last_used_at = now() where id = any(array(select id from keys where id = any(%s)"
        " and (last_used_at is null or last_used_at < now() - interval '1 minute') order by id"
        " for no key update skip locked))",
        (list(names), sorted(key_ids)),
    )


def row(
    kind: str,
    block: Block,
    reference: str,
    amount: Amount,
    booking: Booking | None = None,
    uncovered: Amount | None = None,
    lease_id: str | None = None,
) -> tuple[Any, ...]:
    """Return a row of the ledger, as `insert` takes it."""
    over = (uncovered or NOTHING).at_least(NOTHING)
    head = (
        kind,
        block.account_id,
        block.key_id,
        block.team_id,
        date.fromisoformat(block.day),
        block.id,
        reference,
        *amount,
        *over,
    )
    if booking is None:
        return (*head, *_NOT_RESERVED, *_NO_USAGE, lease_id)
    told = booking.settlement
    usage = told.usage
    counted = (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.reasoning_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.images,
        usage.exact,
    )
    return (
        *head,
        *booking.reserved,
        told.operation,
        told.provider,
        told.model,
        # None: what a further reservation pays is no request of its own.
        *(counted if told.HasField("usage") else (None,) * len(counted)),
        told.price_unknown,
        told.request_id,
        told.ended_at.ToDatetime(tzinfo=UTC) if told.HasField("ended_at") else None,
        told.dialect or None,
        list(told.tags) or None,
        booking.lease_id,
    )
