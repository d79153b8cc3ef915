"""Batches of messages as their callers see them: created, read, listed, cancelled, deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, LiteralString

from psycopg.rows import class_row

from services.common.errors import Conflict, InvalidField, NotFound, QueueFull
from services.tasks.adapters.batch_content import BatchContent
from services.tasks.adapters.batch_queue import count_ended
from services.tasks.adapters.database import BATCHES, Database, Link
from services.tasks.domain.batch import CANCELED, LASTS, MOST_BYTES, MOST_OPEN, WAITS, Batch, new_id
from services.tasks.domain.provider_batch import UNDECIDED

_SELECT: Final[LiteralString] = (
    "select id, account_id, created_at, expires_at, cancelled_at, ended_at, total, succeeded, errored, canceled,"
    " expired from tasks.message_batches"
)
_OLDER: Final[LiteralString] = " and number < (select number from tasks.message_batches where id = %s)"
_NEWER: Final[LiteralString] = " and number > (select number from tasks.message_batches where id = %s)"
_PAGE: Final = 16
"""Results that are read at once."""


class Batches:
    """The batches of all accounts.

    Args:
        database: Where they are.
        content: Encrypts what they hold.
    """

    def __init__(self, database: Database, content: BatchContent) -> None:
        self._database = database
        self._content = content

    async def create(
        self,
        account_id: str,
        key_id: str,
        requests: Sequence[tuple[str, bytes]],
        headers: Sequence[str],
        *,
        may_be_handed: bool = False,
    ) -> Batch:
        """Write a batch of requests, each its caller's id and its body.

        `may_be_handed`: whether it is still to be decided which of them a provider's batch API answers.

        Raises QueueFull where the account has as many open batches, or holds as much, as it may.
        """
        batch_id = new_id()
        requests = await self._content.sealed_requests(batch_id, requests)
        size = sum(len(params) for _, params in requests)
        state = UNDECIDED if may_be_handed else WAITS
        async with self._database.transaction() as link:
            await _check_room(link, account_id, size)
            await link.execute(
                "insert into tasks.message_batches"
                " (id, account_id, key_id, headers, expires_at, size_bytes, total, sealed)"
                " values (%s, %s, %s, %s, now() + %s, %s, %s, true)",
                (batch_id, account_id, key_id, list(headers), LASTS, size, len(requests)),
            )
            async with link.cursor() as cursor:
                copying = cursor.copy(
                    "copy tasks.message_batch_requests (batch_id, place, account_id, custom_id, state, params)"
                    " from stdin with (format binary)"
                )
                async with copying as copy:
                    copy.set_types(["text", "int4", "text", "text", "int2", "bytea"])
                    for place, (custom_id, params) in enumerate(requests):
                        await copy.write_row((batch_id, place, account_id, custom_id, state, params))
            await link.execute("select pg_notify(%s, '')", (BATCHES,))
            return await _found(link, account_id, batch_id)

    async def get(self, account_id: str, batch_id: str) -> Batch:
        """Return an account's batch. Raises NotFound, for others' too."""
        async with self._database.transaction() as link:
            return await _found(link, account_id, batch_id)

    async def page(self, account_id: str, *, after: str, before: str, limit: int) -> tuple[list[Batch], bool]:
        """Return batches, the newest first, and whether there are more beyond.

        Args:
            after: The batch behind which the page begins; empty: the page begins with the newest.
            before: The batch before which the page ends; empty: it ends where it is full.

        Raises NotFound for a batch that is not there.
        """
        where: LiteralString = _SELECT + " where account_id = %s"
        given: list[object] = [account_id]
        for batch_id, bound in ((after, _OLDER), (before, _NEWER)):
            if batch_id:
                await self.get(account_id, batch_id)
                where += bound
                given.append(batch_id)
        goes_up = bool(before and not after)
        order: LiteralString = " order by number asc limit %s" if goes_up else " order by number desc limit %s"
        async with self._database.transaction() as link, link.cursor(row_factory=class_row(Batch)) as cursor:
            await cursor.execute(where + order, (*given, limit + 1))
            found = await cursor.fetchall()
        page = found[:limit]
        return (page[::-1] if goes_up else page), len(found) > limit

    async def cancel(self, account_id: str, batch_id: str) -> Batch:
        """Begin no more of a batch's requests. One that has ended stays as it is. Raises NotFound."""
        async with self._database.transaction() as link:
            batch = await _found(link, account_id, batch_id, lock=True)
            if batch.ended_at is None and batch.cancelled_at is None:
                gone = await link.execute(
                    "update tasks.message_batch_requests set state = 5 where batch_id = %s and state < 2", (batch_id,)
                )
                await link.execute("update tasks.message_batches set cancelled_at = now() where id = %s", (batch_id,))
                await count_ended(link, batch_id, CANCELED, gone.rowcount)
                batch = await _found(link, account_id, batch_id)
        return batch

    async def delete(self, account_id: str, batch_id: str) -> None:
        """Remove a batch with its results. Raises NotFound, and InvalidField for one that has not ended."""
        async with self._database.transaction() as link:
            batch = await _found(link, account_id, batch_id, lock=True)
            if batch.ended_at is None:
                message = "the batch has not ended; cancel it first, and delete it when processing_status is ended"
                raise InvalidField(message, param="message_batch_id")
            await link.execute("delete from tasks.message_batches where id = %s", (batch_id,))

    async def results(self, batch_id: str) -> AsyncIterator[list[tuple[str, int, bytes | None]]]:
        """Yield the results of a batch by pages: a request's id, its state and its answer; in the requests' order."""
        place = -1
        while True:
            async with self._database.transaction() as link:
                found = await link.execute(
                    "select q.place, q.custom_id, q.state, q.result, b.sealed from tasks.message_batch_requests q"
                    " join tasks.message_batches b on b.id = q.batch_id"
                    " where q.batch_id = %s and q.place > %s and q.state between 3 and 6 order by q.place limit %s",
                    (batch_id, place, _PAGE),
                    binary=True,
                )
                rows = await found.fetchall()
            if not rows:
                return
            place = rows[-1][0]
            kept = [result for _, _, _, result, _ in rows]
            if rows[0][4]:
                kept = await self._content.results(batch_id, [(at, result) for at, _, _, result, _ in rows])
            yield [(custom_id, state, result) for (_, custom_id, state, *_), result in zip(rows, kept, strict=True)]


async def _found(link: Link, account_id: str, batch_id: str, *, lock: bool = False) -> Batch:
    ending: LiteralString = " for update" if lock else ""
    async with link.cursor(row_factory=class_row(Batch)) as cursor:
        await cursor.execute(_SELECT + " where id = %s and account_id = %s" + ending, (batch_id, account_id))
        found = await cursor.fetchone()
    if found is None:
        raise NotFound("no such batch of messages")
    return found


async def _check_room(link: Link, account_id: str, size_bytes: int) -> None:
    # Batches of one account that are created at once are counted one after another.
    await link.execute("select pg_advisory_xact_lock(hashtextextended('tasks.batches ' || %s, 0))", (account_id,))
    found = await link.execute(
        "select count(*) filter (where ended_at is null), coalesce(sum(size_bytes), 0)::bigint"
        " from tasks.message_batches where account_id = %s",
        (account_id,),
    )
    count, held = await found.fetchone() or (0, 0)
    if count >= MOST_OPEN:
        raise QueueFull(f"{MOST_OPEN} batches of this account have not ended; wait for one, or cancel one")
    if held + size_bytes > MOST_BYTES:
        raise Conflict(
            f"an account's batches may hold {MOST_BYTES >> 20} MB of requests and results together; delete some"
        )
