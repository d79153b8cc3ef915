"""Batches at providers, as they are kept: which requests are in which, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, LiteralString

from psycopg.rows import class_row

from moa.batch.v1.batched_message_service_pb2 import PrepareMessageResponse
from moa.quota.v1 import quota_pb2
from services.quota_client.amounts import ReservationId
from services.tasks.adapters.batch_content import BatchContent
from services.tasks.adapters.batch_queue import count_ended
from services.tasks.adapters.database import BATCHES, OWED, Database, Link
from services.tasks.domain.batch import ERRORED, MOST_BYTES
from services.tasks.domain.provider_batch import MOST_REQUESTS, TRIES, Asked, Member, Pack, Undecided

_LATE: Final = timedelta(hours=1)
"""How long after a batch's time its packs are waited for before the provider is asked to end them."""
_AT_ONCE: Final = 8
_SET: Final[LiteralString] = "update tasks.provider_batches set leased_until = null,"
_CLAIM_BATCH: Final = """
update tasks.message_batches m set deciding_until = now() + %s, deciding_fence = deciding_fence + 1
where m.id = (
    select b.id from tasks.message_batches b
    where b.ended_at is null and b.cancelled_at is null and (b.deciding_until is null or b.deciding_until < now())
    and exists (select 1 from tasks.message_batch_requests q where q.batch_id = b.id and q.state = 0)
    order by b.deciding_until nulls first, b.number limit 1 for update skip locked)
returning m.id, m.account_id, m.key_id, m.headers, m.deciding_fence,
    (select sum(size_bytes) from tasks.message_batches o where o.account_id = m.account_id) > %s
"""
_CLAIM_PACKS: Final = """
update tasks.provider_batches p set leased_until = now() + %s, fence = fence + 1, looks = looks + 1
from tasks.message_batches b
where b.id = p.batch_id and p.id in (
    select id from tasks.provider_batches
    where state < 3 and next_at <= now() and (leased_until is null or leased_until < now())
    order by next_at limit %s for update skip locked)
returning p.id, p.batch_id, p.provider, p.model, p.requests, p.quota_lease, p.fence, p.state, p.provider_batch_id,
    p.cancel_sent, p.looks, p.created_at, b.cancelled_at is not null as is_cancelled,
    b.expires_at + %s < now() as is_late
"""
_OPEN: Final[LiteralString] = (
    "select exists (select 1 from tasks.provider_batches where state < 3)"
    " or exists (select 1 from tasks.message_batch_requests where state = 0)"
)


class ProviderBatches:
    """The packs of all batches.

    Args:
        database: Where they are.
        content: Encrypts what they hold.
        lease_s: How long a worker that fell silent keeps one.
    """

    def __init__(self, database: Database, content: BatchContent, *, lease_s: float) -> None:
        self._database = database
        self._content = content
        self._lease = timedelta(seconds=lease_s)

    @property
    def lease_s(self) -> float:
        """How long a claim lasts without renewal."""
        return self._lease.total_seconds()

    async def waits(self) -> bool:
        """Return whether a request is undecided or handed over."""
        async with self._database.transaction() as link:
            row = await (await link.execute(_OPEN)).fetchone()
            return bool(row and row[0])

    async def undecided(self) -> Undecided | None:
        """Claim a batch with undecided requests, the one that was looked at longest ago; None: there is none."""
        async with self._database.transaction() as link:
            row = await (await link.execute(_CLAIM_BATCH, (self._lease, MOST_BYTES))).fetchone()
            if row is None:
                return None
            batch_id, account_id, key_id, headers, fence, is_full = row
            found = await link.execute(
                "select place, params from tasks.message_batch_requests where batch_id = %s and state = 0"
                " order by place limit %s",
                (batch_id, MOST_REQUESTS),
                binary=True,
            )
            rows = await found.fetchall()
        bodies = await self._content.requests(batch_id, rows)
        places = [place for place, _ in rows]
        requests = [
            Asked(batch_id, place, account_id, key_id, headers, body)
            for place, body in zip(places, bodies, strict=True)
            if body is not None
        ]
        unreadable = [place for place, body in zip(places, bodies, strict=True) if body is None]
        return Undecided(batch_id, key_id, fence, is_full, requests, unreadable)

    async def decided(self, undecided: Undecided, ordinary: Sequence[int], *, pause_s: float) -> None:
        """Let go of a batch for a while; requests of these places are asked for as any other."""
        async with self._database.transaction() as link:
            await link.execute(
                "update tasks.message_batch_requests set state = 1"
                " where batch_id = %s and place = any(%s) and state = 0",
                (undecided.batch_id, list(ordinary)),
            )
            await link.execute(
                "update tasks.message_batches set deciding_until = now() + %s where id = %s and deciding_fence = %s",
                (timedelta(seconds=pause_s), undecided.batch_id, undecided.fence),
            )
            await link.execute("select pg_notify(%s, '')", (BATCHES,))

    async def refuse(self, asked: Asked, result: bytes) -> None:
        """Keep why an undecided request is refused, as its result."""
        sealed = await self._content.sealed_result(asked.batch_id, asked.place, result)
        async with self._database.transaction() as link:
            done = await link.execute(
                "update tasks.message_batch_requests set state = %s, result = %s"
                " where batch_id = %s and place = %s and state = 0",
                (ERRORED, sealed, asked.batch_id, asked.place),
            )
            if done.rowcount:
                await count_ended(link, asked.batch_id, ERRORED, 1, size_bytes=len(sealed))

    async def add(self, undecided: Undecided, pack: Pack, members: Sequence[Member]) -> bool:
        """Write a pack before anybody is asked; return whether its requests were still undecided and one's own."""
        handed = await self._content.sealed_handed(
            pack.batch_id, [(each.asked.place, _kept(each.handed)) for each in members]
        )
        places = [each.asked.place for each in members]
        async with self._database.transaction() as link:
            found = await link.execute(
                "select 1 from tasks.message_batches where id = %s and deciding_fence = %s and cancelled_at is null"
                " and ended_at is null for update",
                (pack.batch_id, undecided.fence),
            )
            if await found.fetchone() is None:
                return False
            await link.execute(
                "insert into tasks.provider_batches"
                " (id, batch_id, provider, model, requests, quota_lease, leased_until)"
                " values (%s, %s, %s, %s, %s, %s, now() + %s)",
                (pack.id, pack.batch_id, pack.provider, pack.model, pack.requests, pack.quota_lease, self._lease),
            )
            await link.execute(
                "update tasks.message_batch_requests q set state = 7, pack = %s, handed = m.handed,"
                " reservation_id = m.reservation from unnest(%s::int[], %s::bytea[], %s::text[])"
                " as m(place, handed, reservation) where q.batch_id = %s and q.place = m.place and q.state = 0",
                (pack.id, places, handed, [each.reservation_id for each in members], pack.batch_id),
            )
            return True

    async def due(self) -> list[Pack]:
        """Claim packs that are to be looked at."""
        async with self._database.transaction() as link, link.cursor(row_factory=class_row(Pack)) as cursor:
            await cursor.execute(_CLAIM_PACKS, (self._lease, _AT_ONCE, _LATE))
            return await cursor.fetchall()

    async def renew(self, packs: Sequence[Pack]) -> set[str]:
        """Renew leases; return which packs are still one's own."""
        async with self._database.transaction() as link:
            found = await link.execute(
                "update tasks.provider_batches p set leased_until = now() + %s"
                " from unnest(%s::text[], %s::bigint[]) as mine(id, fence)"
                " where p.id = mine.id and p.fence = mine.fence and p.state < 3 returning p.id",
                (self._lease, [each.id for each in packs], [each.fence for each in packs]),
            )
            return {row[0] for row in await found.fetchall()}

    async def leases(self) -> list[str]:
        """Return the leases that hold the quota of open packs."""
        async with self._database.transaction() as link:
            found = await link.execute(
                "select quota_lease from tasks.provider_batches where state < 3 and quota_lease <> ''"
            )
            return [row[0] for row in await found.fetchall()]

    async def known_ids(self, provider: str) -> list[str]:
        """Return the provider's ids of all packs that are known to be there, or were."""
        async with self._database.transaction() as link:
            found = await link.execute(
                "select provider_batch_id from tasks.provider_batches"
                " where provider = %s and provider_batch_id is not null",
                (provider,),
            )
            return [row[0] for row in await found.fetchall()]

    async def submitted(self, pack: Pack, provider_batch_id: str) -> None:
        """Note that a pack is at its provider."""
        await self._change(pack, "state = 2, looks = 0, provider_batch_id = %s, next_at = now()", provider_batch_id)

    async def later(self, pack: Pack, pause_s: float) -> None:
        """Look at a pack again after a while."""
        await self._change(pack, "next_at = now() + %s", timedelta(seconds=pause_s))

    async def cancel_sent(self, pack: Pack) -> None:
        """Note that the provider was asked to end a pack."""
        async with self._database.transaction() as link:
            await link.execute("update tasks.provider_batches set cancel_sent = true where id = %s", (pack.id,))

    async def _change(self, pack: Pack, change: LiteralString, *given: object) -> None:
        async with self._database.transaction() as link:
            statement: LiteralString = f"{_SET} {change} where id = %s and fence = %s and state < 3"
            await link.execute(statement, (*given, pack.id, pack.fence))

    async def members(self, pack: Pack) -> list[Member]:
        """Return the requests of a pack whose results are not known. What no key opens has an empty body."""
        async with self._database.transaction() as link:
            found = await link.execute(
                "select q.place, q.params, q.handed, q.reservation_id, b.account_id, b.key_id, b.headers"
                " from tasks.message_batch_requests q join tasks.message_batches b on b.id = q.batch_id"
                " where q.pack = %s and q.state = 7 order by q.place",
                (pack.id,),
                binary=True,
            )
            rows = await found.fetchall()
        bodies = await self._content.requests(pack.batch_id, [(row[0], row[1]) for row in rows])
        handed = await self._content.handed(pack.batch_id, [(row[0], row[2]) for row in rows])
        return [
            Member(
                Asked(pack.batch_id, row[0], row[4], row[5], row[6], body or b""),
                PrepareMessageResponse.FromString(kept or b""),
                row[3],
            )
            for row, body, kept in zip(rows, bodies, handed, strict=True)
        ]

    async def end(
        self, pack: Pack, member: Member, state: int, result: bytes | None, settlement: quota_pb2.Settlement | None
    ) -> bool:
        """Keep a request's result, and have what it came to booked; return whether it was not known before."""
        place = member.asked.place
        if result is not None:
            result = await self._content.sealed_result(pack.batch_id, place, result)
        async with self._database.transaction() as link:
            done = await link.execute(
                "update tasks.message_batch_requests set state = %s, result = %s, handed = null"
                " where batch_id = %s and place = %s and pack = %s and state = 7",
                (state, result, pack.batch_id, place, pack.id),
            )
            if not done.rowcount:
                return False
            await count_ended(link, pack.batch_id, state, 1, size_bytes=len(result or b""))
            await _book(link, pack, place, member.reservation_id, settlement)
            return True

    async def again(self, pack: Pack, member: Member) -> bool:
        """Have a request that failed decided anew, and give back what is held for it; return whether it may be.

        It may `TRIES` times, while its batch is neither cancelled nor over.
        """
        place = member.asked.place
        async with self._database.transaction() as link:
            done = await link.execute(
                "update tasks.message_batch_requests q set state = 0, pack = null, handed = null, tries = tries + 1"
                " from tasks.message_batches b where b.id = q.batch_id and q.batch_id = %s and q.place = %s"
                " and q.pack = %s and q.state = 7 and q.tries + 1 < %s"
                " and b.cancelled_at is null and b.expires_at > now()",
                (pack.batch_id, place, pack.id, TRIES),
            )
            if not done.rowcount:
                return False
            await _book(link, pack, place, member.reservation_id, None)
            await link.execute("select pg_notify(%s, '')", (BATCHES,))
            return True

    async def release(self, pack: Pack, places: Sequence[int] | None = None) -> None:
        """Have requests of a pack asked for as any other, and give back what is held for them; None: all."""
        async with self._database.transaction() as link:
            found = await link.execute(
                "update tasks.message_batch_requests q set state = 1, pack = null, handed = null, not_before = now()"
                " from tasks.message_batch_requests old where old.batch_id = q.batch_id and old.place = q.place"
                " and q.batch_id = %s and q.pack = %s and q.state = 7"
                " and (%s::int[] is null or q.place = any(%s::int[])) returning q.place, old.reservation_id",
                (pack.batch_id, pack.id, places, places),
            )
            for place, reservation_id in await found.fetchall():
                await _book(link, pack, place, reservation_id, None)
            await link.execute("select pg_notify(%s, '')", (BATCHES,))

    async def close(self, pack: Pack) -> None:
        """Note that a pack is over."""
        await self._change(pack, "state = 3")


def _kept(handed: Any) -> bytes:
    """Return what is kept of how a request is handed over: what its answer is read by, without its prompt."""
    kept = PrepareMessageResponse()
    kept.CopyFrom(handed)
    kept.request.ClearField("messages")
    return kept.SerializeToString()


async def _book(
    link: Link, pack: Pack, place: int, reservation_id: str | None, settlement: quota_pb2.Settlement | None
) -> None:
    """Have a request's settlement booked, and what it did not take of its reservation given back."""
    reservation = ReservationId.parse(reservation_id or "")
    if reservation is None or not pack.quota_lease:
        return
    rest = reservation.amount
    name = pack.custom_id(place)
    if settlement is not None:
        rest = (rest - type(rest).read(settlement.charged)).at_least(type(rest)())
        await _owe(link, name, settlement.SerializeToString(), settles=True)
    if rest:
        back = quota_pb2.LeaseReturn(return_id=f"{name}.rest", lease_id=pack.quota_lease, amount=rest.message())
        await _owe(link, f"{name}.rest", back.SerializeToString(), settles=False)
    await link.execute("select pg_notify(%s, '')", (OWED,))


async def _owe(link: Link, name: str, message: bytes, *, settles: bool) -> None:
    await link.execute(
        "insert into tasks.quota_outbox (task_id, message, settles) values (%s, %s, %s)", (name, message, settles)
    )
