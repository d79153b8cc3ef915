"""Requests of batches as workers see them: which one is answered next, for how long, and what becomes of it.

As with tasks, claims are taken one after the other, and accounts take turns; a result counts only under the fence of
its claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from psycopg.rows import class_row

from services.tasks.adapters.batch_content import BatchContent
from services.tasks.adapters.database import BATCHES, Database, Link
from services.tasks.domain.batch import CANCELED, ERRORED, EXPIRED, MOST_BYTES, SUCCEEDED, Claimed

_LOCK: Final = 0x6D6F6262  # "mobb"
_SWEPT: Final = 50
"""Batches that are looked at in one transaction."""

_CLAIM: Final = """
with recursive waiting(account_id) as (
    (select account_id from tasks.message_batch_requests where state = 1 order by account_id limit 1)
    union all
    select (select q.account_id from tasks.message_batch_requests q where q.state = 1 and q.account_id > w.account_id
            order by q.account_id limit 1)
    from waiting w where w.account_id is not null
), running as (
    select account_id, count(*) as n from tasks.message_batch_requests where state = 2 group by account_id
), chosen as (
    select t.batch_id, t.place
    from waiting w
    left join running r using (account_id)
    cross join lateral (
        select batch_id, place, not_before from tasks.message_batch_requests q
        where q.account_id = w.account_id and q.state = 1 and q.not_before <= now()
        order by q.not_before, q.batch_id, q.place
        limit least(%(count)s, greatest(0, %(per_account)s - coalesce(r.n, 0)))
    ) t
    order by coalesce(r.n, 0) + row_number() over (
        partition by w.account_id order by t.not_before, t.batch_id, t.place), t.not_before
    limit %(count)s
)
update tasks.message_batch_requests q
set state = 2, fence = q.fence + 1, leased_until = now() + %(lease)s
from chosen c join tasks.message_batches b on b.id = c.batch_id
where q.batch_id = c.batch_id and q.place = c.place and q.state = 1
returning q.batch_id, q.place, q.fence, q.tries, q.account_id, b.key_id, b.headers, b.sealed, q.params,
    (select sum(size_bytes) from tasks.message_batches o where o.account_id = q.account_id) > %(most)s as is_full
"""
_COUNT: Final = """
update tasks.message_batches set
    succeeded = succeeded + %(succeeded)s, errored = errored + %(errored)s, canceled = canceled + %(canceled)s,
    expired = expired + %(expired)s, size_bytes = size_bytes + %(bytes)s,
    ended_at = case when succeeded + errored + canceled + expired + %(count)s = total then now() end
where id = %(batch)s
"""
_NAMES: Final = {SUCCEEDED: "succeeded", ERRORED: "errored", CANCELED: "canceled", EXPIRED: "expired"}


class BatchQueue:
    """Hands requests of batches to workers.

    Args:
        database: Where they are.
        content: Encrypts what they hold.
        per_account: How many of one account's are answered at once.
        lease_s: How long a worker that fell silent keeps one.
    """

    def __init__(self, database: Database, content: BatchContent, *, per_account: int, lease_s: float) -> None:
        self._database = database
        self._content = content
        self._per_account = per_account
        self._lease = timedelta(seconds=lease_s)

    @property
    def lease_s(self) -> float:
        """How long a claim lasts without renewal."""
        return self._lease.total_seconds()

    async def claim(self, count: int) -> list[Claimed]:
        """Take up to `count` requests. Raises Unavailable."""
        given = {"count": count, "per_account": self._per_account, "lease": self._lease, "most": MOST_BYTES}
        async with self._database.transaction() as link:
            await link.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
            async with link.cursor(row_factory=class_row(Claimed), binary=True) as cursor:
                await cursor.execute(_CLAIM, given)
                return await cursor.fetchall()

    async def request(self, claimed: Claimed) -> bytes | None:
        """Return a request's body; None where no key opens it."""
        if not claimed.sealed:
            return claimed.params
        return (await self._content.requests(claimed.batch_id, [(claimed.place, claimed.params)]))[0]

    async def renew(self, held: Sequence[Claimed]) -> set[tuple[str, int]]:
        """Renew leases; return which requests are still their worker's. Raises Unavailable."""
        async with self._database.transaction() as link:
            found = await link.execute(
                "update tasks.message_batch_requests q set leased_until = now() + %s"
                " from unnest(%s::text[], %s::int[], %s::bigint[]) as mine(batch_id, place, fence)"
                " where q.batch_id = mine.batch_id and q.place = mine.place and q.fence = mine.fence and q.state = 2"
                " returning q.batch_id, q.place",
                (self._lease, [h.batch_id for h in held], [h.place for h in held], [h.fence for h in held]),
            )
            return {(batch_id, place) for batch_id, place in await found.fetchall()}

    async def end(self, claimed: Claimed, state: int, result: bytes) -> bool:
        """Keep a request's result; return whether it was still its worker's. Raises Unavailable."""
        if claimed.sealed:
            result = await self._content.sealed_result(claimed.batch_id, claimed.place, result)
        async with self._database.transaction() as link:
            done = await link.execute(
                "update tasks.message_batch_requests set state = %s, result = %s, leased_until = null"
                " where batch_id = %s and place = %s and fence = %s and state = 2",
                (state, result, claimed.batch_id, claimed.place, claimed.fence),
            )
            if not done.rowcount:
                return False
            await count_ended(link, claimed.batch_id, state, 1, size_bytes=len(result))
            return True

    async def put_back(self, claimed: Claimed, *, pause_s: float, counted: bool) -> None:
        """Have a request answered later. `counted`: by a new try; else the same goes on. Raises Unavailable."""
        async with self._database.transaction() as link:
            await link.execute(
                "update tasks.message_batch_requests set state = 1, leased_until = null, not_before = now() + %s,"
                " tries = tries + %s where batch_id = %s and place = %s and fence = %s and state = 2",
                (timedelta(seconds=pause_s), int(counted), claimed.batch_id, claimed.place, claimed.fence),
            )
            await link.execute("select pg_notify(%s, '')", (BATCHES,))

    async def sweep(self) -> None:
        """Put back what vanished workers held, and end what is over: of batches that are cancelled or expired."""
        async with self._database.transaction() as link:
            await link.execute(
                "update tasks.message_batch_requests set state = 1, leased_until = null"
                " where state = 2 and leased_until < now()"
            )
            found = await link.execute(
                "select id, cancelled_at is not null from tasks.message_batches b where ended_at is null"
                " and (expires_at < now() or cancelled_at is not null) and exists (select 1 from"
                " tasks.message_batch_requests q where q.batch_id = b.id and q.state < 2)"
                " order by id limit %s for update skip locked",
                (_SWEPT,),
            )
            for batch_id, is_cancelled in await found.fetchall():
                state = CANCELED if is_cancelled else EXPIRED
                gone = await link.execute(
                    "update tasks.message_batch_requests set state = %s where batch_id = %s and state < 2",
                    (state, batch_id),
                )
                await count_ended(link, batch_id, state, gone.rowcount)

    async def clean(self, keep_s: float) -> int:
        """Remove batches that ended long ago; return how many went."""
        async with self._database.transaction() as link:
            gone = await link.execute(
                "delete from tasks.message_batches where id in (select id from tasks.message_batches"
                " where ended_at < now() - %s limit %s)",
                (timedelta(seconds=keep_s), _SWEPT),
            )
            return gone.rowcount

    async def waits(self) -> bool:
        """Return whether a request waits or is being answered."""
        async with self._database.transaction() as link:
            found = await link.execute("select 1 from tasks.message_batches where ended_at is null limit 1")
            return await found.fetchone() is not None


async def count_ended(link: Link, batch_id: str, state: int, count: int, *, size_bytes: int = 0) -> None:
    """Count requests of a batch that have ended in a state; with the last of them the batch ends."""
    counts = {name: count if each == state else 0 for each, name in _NAMES.items()}
    await link.execute(_COUNT, {**counts, "bytes": size_bytes, "count": count, "batch": batch_id})
