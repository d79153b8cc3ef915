"""Conversations that accounts have stored, in PostgreSQL, encrypted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, LiteralString

from moa.response.v1 import conversation_store_service_pb2 as pb
from services.auth.adapters.postgres import Link, Postgres
from services.auth.adapters.stored_room import Bounds, check_room, remove_expired, remove_one, take_room
from services.common.content_sealing import ContentSealer
from services.common.errors import InvalidField, NotFound, TooLarge

_FOUND: LiteralString = "id = %s and account_id = %s and expires_at > now()"


class StoredConversations:
    """Keeps conversations.

    Args:
        postgres: Where they are.
        sealer: Encrypts what callers said and were told.
        bounds: What one account may have stored.
    """

    def __init__(self, postgres: Postgres, sealer: ContentSealer, bounds: Bounds) -> None:
        self._postgres = postgres
        self._sealer = sealer
        self._bounds = bounds

    async def create(self, asked: pb.CreateConversationRequest) -> pb.StoredConversation:
        """Make a conversation. Raises QuotaExhausted, TooLarge."""
        name, account_id = asked.conversation_id, asked.account_id
        metadata = self._sealer.seal(f"{name} metadata", asked.metadata)
        async with self._postgres.transaction() as link:
            await check_room(link, account_id, self._bounds)
            await link.execute(
                "insert into stored_conversations (id, account_id, metadata, size_bytes, expires_at)"
                " values (%s, %s, %s, %s, now() + make_interval(secs => %s))",
                (name, account_id, metadata, len(metadata), self._bounds.keep_s),
            )
            await take_room(link, account_id, self._bounds, entries=1, size_bytes=len(metadata))
            await self.add(link, account_id, name, asked.items)
            return await self._read(link, account_id, name)

    async def read(self, account_id: str, name: str) -> pb.StoredConversation:
        """Return a conversation. Raises NotFound."""
        async with self._postgres.transaction() as link:
            return await self._read(link, account_id, name)

    async def update(self, account_id: str, name: str, metadata: bytes) -> pb.StoredConversation:
        """Change what is noted of a conversation. Raises NotFound."""
        sealed = self._sealer.seal(f"{name} metadata", metadata)
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select length(metadata) from stored_conversations where " + _FOUND + " for update", (name, account_id)
            )
            row = await cursor.fetchone()
            if row is None:
                raise unknown(name)
            await link.execute("update stored_conversations set metadata = %s where id = %s", (sealed, name))
            await self._resize(link, account_id, name, len(sealed) - row[0])
            return await self._read(link, account_id, name)

    async def delete(self, account_id: str, name: str) -> None:
        """Forget a conversation. Raises NotFound."""
        async with self._postgres.transaction() as link:
            if not await remove_one(link, "stored_conversations", account_id, name):
                raise unknown(name)

    async def add_items(self, account_id: str, name: str, items: Sequence[pb.StoredItem]) -> None:
        """Add items at the end. Raises NotFound, QuotaExhausted, TooLarge."""
        async with self._postgres.transaction() as link:
            await check_room(link, account_id, self._bounds)
            if not await self.add(link, account_id, name, items):
                raise unknown(name)

    async def add(self, link: Link, account_id: str, name: str, items: Sequence[pb.StoredItem]) -> bool:
        """Add items in a transaction that does more; return whether there is such a conversation.

        Raises QuotaExhausted, TooLarge.
        """
        cursor = await link.execute(
            "update stored_conversations set next_place = next_place + %s,"
            " expires_at = now() + make_interval(secs => %s) where " + _FOUND + " returning next_place",
            (len(items), self._bounds.keep_s, name, account_id),
        )
        row = await cursor.fetchone()
        if row is None:
            return False
        sealed = await asyncio.to_thread(
            lambda: [(each.item_id, self._sealer.seal(f"{name} item {each.item_id}", each.item)) for each in items]
        )
        size = 0
        for place, (item_id, item) in enumerate(sealed, row[0] - len(items)):
            cursor = await link.execute(
                "insert into stored_items values (%s, %s, %s, %s, %s) on conflict do nothing",
                (name, place, item_id, item, len(item)),
            )
            size += len(item) if cursor.rowcount else 0
        await link.execute("update stored_conversations set size_bytes = size_bytes + %s where id = %s", (size, name))
        await take_room(link, account_id, self._bounds, entries=0, size_bytes=size)
        return True

    async def items(self, asked: pb.ReadItemsRequest) -> pb.ReadItemsResponse:
        """Return a page of items, or the one that is named. Raises NotFound, InvalidField."""
        name = asked.conversation_id
        async with self._postgres.transaction() as link:
            await self._read(link, asked.account_id, name)
            if asked.item_id:
                rows = await self._rows(link, "conversation_id = %s and id = %s", (name, asked.item_id))
                if not rows:
                    raise _no_item(asked.item_id, name)
                return pb.ReadItemsResponse(items=self._opened(name, rows))
            place = await self._place(link, name, asked.after) if asked.after else None
            which: LiteralString = "conversation_id = %s order by place"
            if place is not None:
                which = "conversation_id = %s and place > %s order by place"
            if asked.descending:
                which = "conversation_id = %s order by place desc"
                if place is not None:
                    which = "conversation_id = %s and place < %s order by place desc"
            given = (name,) if place is None else (name, place)
            rows = await self._rows(link, which + " limit %s", (*given, asked.limit + 1))
        more = len(rows) > asked.limit
        found = await asyncio.to_thread(self._opened, name, rows[: asked.limit])
        return pb.ReadItemsResponse(items=found, has_more=more)

    async def delete_item(self, account_id: str, name: str, item_id: str) -> pb.StoredConversation:
        """Forget an item; return its conversation. Raises NotFound."""
        async with self._postgres.transaction() as link:
            found = await self._read(link, account_id, name)
            cursor = await link.execute(
                "delete from stored_items where conversation_id = %s and id = %s returning size_bytes", (name, item_id)
            )
            row = await cursor.fetchone()
            if row is None:
                raise _no_item(item_id, name)
            await self._resize(link, account_id, name, -row[0])
        return found

    async def context(self, link: Link, account_id: str, name: str, until: int | None = None) -> tuple[list[Any], int]:
        """Return the rows of a conversation's items, up to a place, and the place of the last.

        Raises NotFound, TooLarge.
        """
        cursor = await link.execute(
            "select next_place - 1, size_bytes from stored_conversations where " + _FOUND, (name, account_id)
        )
        row = await cursor.fetchone()
        if row is None:
            raise unknown(name, param="conversation")
        if row[1] > self._bounds.one_bytes:
            raise TooLarge(
                f"conversation {name} has more than {self._bounds.one_bytes:,} bytes; delete items of it, or begin anew"
                " with what is needed of it in input",
                param="conversation",
            )
        last = row[0] if until is None else until
        return await self._rows(link, "conversation_id = %s and place <= %s order by place", (name, last)), last

    def opened(self, name: str, rows: Sequence[Any]) -> list[bytes]:
        """Return the items of rows that `context` read. Raises NotFound."""
        return self._opened(name, rows)

    async def tidy(self) -> None:
        """Forget those whose time is over."""
        await remove_expired(self._postgres, "stored_conversations")

    async def _read(self, link: Link, account_id: str, name: str) -> pb.StoredConversation:
        cursor = await link.execute(
            "select metadata, created_at from stored_conversations where " + _FOUND, (name, account_id)
        )
        row = await cursor.fetchone()
        metadata = self._sealer.open(f"{name} metadata", bytes(row[0])) if row is not None else None
        if row is None or metadata is None:
            raise unknown(name)
        found = pb.StoredConversation(conversation_id=name, metadata=metadata)
        found.created_at.FromDatetime(row[1])
        return found

    async def _rows(self, link: Link, which: LiteralString, given: Sequence[Any]) -> list[Any]:
        cursor = await link.execute("select id, item from stored_items where " + which, given)
        return await cursor.fetchall()

    async def _place(self, link: Link, name: str, item_id: str) -> int:
        cursor = await link.execute(
            "select place from stored_items where conversation_id = %s and id = %s", (name, item_id)
        )
        row = await cursor.fetchone()
        if row is None:
            raise InvalidField("after: there is no such item", param="after")
        return int(row[0])

    def _opened(self, name: str, rows: Sequence[Any]) -> list[bytes]:
        found = [self._sealer.open(f"{name} item {item_id}", bytes(item)) for item_id, item in rows]
        if any(item is None for item in found):
            raise unknown(name)
        return [item for item in found if item is not None]

    async def _resize(self, link: Link, account_id: str, name: str, by: int) -> None:
        await link.execute("update stored_conversations set size_bytes = size_bytes + %s where id = %s", (by, name))
        await link.execute("update stored_room set bytes = bytes + %s where account_id = %s", (by, account_id))


def items_of(items: Sequence[bytes]) -> list[pb.StoredItem]:
    """Return items, given as JSON with their ids, as they are stored."""
    return [pb.StoredItem(item_id=str(json.loads(item).get("id", "")), item=item) for item in items]


def unknown(name: str, *, param: str = "conversation_id") -> NotFound:
    """Return the refusal of an id that is not one of the account's."""
    message = f"there is no conversation {name[:80]!r} of this account; it may be deleted, or its time over"
    return NotFound(message, param=param)


def _no_item(item_id: str, name: str) -> NotFound:
    return NotFound(f"there is no item {item_id[:80]!r} in conversation {name}", param="item_id")
