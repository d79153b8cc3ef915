"""Responses that accounts have stored, in PostgreSQL, encrypted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString

from moa.response.v1 import response_store_service_pb2 as pb
from services.auth.adapters.postgres import Link, Postgres
from services.auth.adapters.stored_conversations import StoredConversations, items_of
from services.auth.adapters.stored_conversations import unknown as no_conversation
from services.auth.adapters.stored_room import Bounds, check_room, remove_expired, remove_one, take_room
from services.common.content_sealing import ContentSealer, packed, unpacked
from services.common.errors import Conflict, InvalidField, NotFound, TooLarge

RUNNING: Final = (pb.RESPONSE_STATE_QUEUED, pb.RESPONSE_STATE_IN_PROGRESS)
WHOLE: Final = (pb.RESPONSE_STATE_COMPLETED, pb.RESPONSE_STATE_INCOMPLETE)
"""What can be gone on from."""
_PREVIOUS: Final = "previous_response_id"

_CHAIN: LiteralString = """
with recursive chain as (
    select r.*, 1 as depth from stored_responses r
    where id = %(id)s and account_id = %(account)s and expires_at > now()
    union all
    select r.*, c.depth + 1 from chain c join stored_responses r on r.id = c.previous_id
    where r.account_id = %(account)s and r.expires_at > now() and c.depth <= %(most)s
)
"""


@dataclass(frozen=True, slots=True)
class Read:
    """A response as it is stored."""

    body: bytes
    state: int
    expires_at: datetime


class StoredResponses:
    """Keeps responses.

    Args:
        postgres: Where they are.
        sealer: Encrypts what callers said and were told.
        bounds: What one account may have stored.
        conversations: Where the items of those go that are made in one.
    """

    def __init__(
        self, postgres: Postgres, sealer: ContentSealer, bounds: Bounds, conversations: StoredConversations
    ) -> None:
        self._postgres = postgres
        self._sealer = sealer
        self._bounds = bounds
        self._conversations = conversations

    async def prepare(
        self, account_id: str, previous_id: str = "", *, conversation_id: str = "", stores: bool = True
    ) -> tuple[list[bytes], int]:
        """Return what a response goes on from, once its account has room for it, where it is to be stored.

        Beside it the place of the last of the conversation's items. Raises QuotaExhausted, NotFound, Conflict,
        InvalidField, TooLarge.
        """
        async with self._postgres.transaction() as link:
            if stores:
                await check_room(link, account_id, self._bounds)
            if conversation_id:
                found, until = await self._conversations.context(link, account_id, conversation_id)
                return await asyncio.to_thread(self._conversations.opened, conversation_id, found), until
            if not previous_id:
                return [], 0
            rows = await self._chain(link, account_id, previous_id)
            before = await self._of_conversation(link, account_id, rows[-1])
        return await asyncio.to_thread(self._context, rows, previous_id, before), 0

    async def input_of(self, account_id: str, response_id: str) -> list[bytes]:
        """Return all items that a response was made from. Raises NotFound."""
        async with self._postgres.transaction() as link:
            rows = await self._chain(link, account_id, response_id, is_whole=False)
            if not rows:
                raise unknown(response_id)
            try:
                base = await self._of_conversation(link, account_id, rows[-1])
            except NotFound:
                # Its conversation is gone; its own input is told.
                base = []

        def opened() -> list[bytes]:
            before = self._context(rows[1:], response_id, base, may_lack=True) if len(rows) > 1 else base
            return before + self._input(rows[0])

        return await asyncio.to_thread(opened)

    async def store(self, response: pb.StoredResponse) -> None:
        """Store a response that has ended; again is no change. Raises QuotaExhausted, TooLarge, InvalidField."""
        if response.state in (*RUNNING, pb.RESPONSE_STATE_UNSPECIFIED):
            raise InvalidField("it has not ended", param="response.state")
        name = response.response_id

        def sealed() -> tuple[bytes, bytes, bytes]:
            seal = self._sealer.seal
            events = seal(f"{name} events 0", packed(response.events)) if response.events else b""
            return seal(f"{name} input", packed(response.input)), seal(f"{name} body", response.body), events

        given, body, events = await asyncio.to_thread(sealed)
        size = len(given) + len(body) + len(events)
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "insert into stored_responses (id, account_id, previous_id, conversation_id, conversation_until, state,"
                " streamed, input, body, size_bytes, next_sequence, expires_at) values (%s, %s, nullif(%s, ''),"
                " nullif(%s, ''), %s, %s, %s, %s, %s, %s, %s, now() + make_interval(secs => %s))"
                " on conflict (id) do nothing",
                (
                    *(name, response.account_id, response.previous_response_id),
                    *(response.conversation_id, response.conversation_until, response.state),
                    *(bool(response.events), given, body, size, len(response.events), self._bounds.keep_s),
                ),
            )
            if not cursor.rowcount:
                return
            if events:
                await link.execute(
                    "insert into stored_events values (%s, 0, %s, %s)", (name, len(response.events) - 1, events)
                )
            await take_room(link, response.account_id, self._bounds, entries=1, size_bytes=size)
            await self.prolong(link, response.account_id, response.previous_response_id)
            if response.conversation_id and response.state in WHOLE:
                await self.tell(
                    link, response.account_id, response.conversation_id, [*response.input, *output_in(response.body)]
                )

    async def tell(self, link: Link, account_id: str, conversation_id: str, items: Sequence[bytes]) -> None:
        """Add items to a conversation. Raises NotFound where it is gone, QuotaExhausted."""
        if not await self._conversations.add(link, account_id, conversation_id, items_of(items)):
            raise no_conversation(conversation_id)

    async def read(self, account_id: str, response_id: str) -> Read:
        """Return a response. Raises NotFound."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select body, state, expires_at from stored_responses"
                " where id = %s and account_id = %s and expires_at > now()",
                (response_id, account_id),
            )
            row = await cursor.fetchone()
        if row is None:
            raise unknown(response_id)
        body = await asyncio.to_thread(self._opened, f"{response_id} body", row[0], response_id)
        return Read(body, row[1], row[2])

    async def events(self, account_id: str, response_id: str, after: int) -> pb.ReadEventsResponse:
        """Return the events of a response that come behind one. Raises NotFound."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select state, streamed from stored_responses where id = %s and account_id = %s and expires_at > now()",
                (response_id, account_id),
            )
            row = await cursor.fetchone()
            if row is None:
                raise unknown(response_id)
            cursor = await link.execute(
                "select first_sequence, events, last_sequence from stored_events"
                " where response_id = %s and last_sequence > %s order by first_sequence",
                (response_id, after),
            )
            chunks = await cursor.fetchall()

        def opened() -> list[bytes]:
            found: list[bytes] = []
            for first, sealed, _ in chunks:
                pieces = unpacked(self._opened(f"{response_id} events {first}", sealed, response_id))
                found += pieces[max(0, after + 1 - first) :]
            return found

        events = await asyncio.to_thread(opened) if chunks else []
        last = chunks[-1][2] if chunks else after
        return pb.ReadEventsResponse(events=events, state=row[0], streamed=row[1], last_sequence=last)

    async def delete(self, account_id: str, response_id: str) -> None:
        """Forget a response. Raises NotFound."""
        async with self._postgres.transaction() as link:
            if not await remove_one(link, "stored_responses", account_id, response_id):
                raise unknown(response_id)

    async def tidy(self) -> None:
        """Forget those whose time is over."""
        await remove_expired(self._postgres, "stored_responses")

    async def prolong(self, link: Link, account_id: str, previous_id: str) -> None:
        """Have what a new response goes on from last as long as itself."""
        if previous_id:
            await link.execute(
                _CHAIN + "update stored_responses set expires_at = now() + make_interval(secs => %(keep)s)"
                # A day's difference at least: a chain is not written anew at each of its turns.
                " where id in (select id from chain where expires_at < now() + make_interval(secs => %(keep)s * 0.97))",
                {"id": previous_id, "account": account_id, "most": self._bounds.chain, "keep": self._bounds.keep_s},
            )

    async def _chain(
        self, link: Link, account_id: str, response_id: str, *, is_whole: bool = True
    ) -> list[tuple[Any, ...]]:
        """Return a response's row and those of what it went on from, the newest first; none where it is unknown.

        With `is_whole` it is one to be gone on from. Raises NotFound, Conflict, InvalidField.
        """
        cursor = await link.execute(
            _CHAIN + "select id, previous_id, state, input, body, conversation_id, conversation_until from chain"
            " order by depth",
            {"id": response_id, "account": account_id, "most": self._bounds.chain},
        )
        rows = await cursor.fetchall()
        if not is_whole:
            return rows
        if not rows:
            raise unknown(response_id, param=_PREVIOUS)
        if rows[0][2] in RUNNING:
            raise Conflict(f"{response_id} is still being made; go on from it when it has ended", param=_PREVIOUS)
        if rows[0][2] not in WHOLE:
            raise InvalidField(f"{response_id} failed or was cancelled; go on from the one before it", param=_PREVIOUS)
        if len(rows) > self._bounds.chain:
            raise InvalidField(
                f"at most {self._bounds.chain:,} responses go on from one another; begin anew with what is needed of"
                " them in input",
                param=_PREVIOUS,
            )
        return rows

    async def _of_conversation(self, link: Link, account_id: str, row: tuple[Any, ...]) -> list[bytes]:
        """Return the items of the conversation that a response was made in, as it was before it. Raises NotFound."""
        name, until = row[5], row[6]
        if name is None:
            return []
        found, _ = await self._conversations.context(link, account_id, name, until)
        return self._conversations.opened(name, found)

    def _context(
        self, rows: list[tuple[Any, ...]], response_id: str, before: Sequence[bytes], *, may_lack: bool = False
    ) -> list[bytes]:
        """Return the items of responses that went on from one another, given the newest first, behind those before.

        Raises NotFound where one of them is gone, unless they `may_lack` their beginning, and TooLarge where they are
        too much.
        """
        if rows[-1][1] is not None and not may_lack:
            raise NotFound(
                f"{rows[-1][1]}, which {response_id} goes on from, was deleted; send all items in input",
                param=_PREVIOUS,
            )
        items = list(before)
        size = sum(map(len, items))
        for row in reversed(rows):
            mine = self._input(row) + self._output(row)
            size += sum(map(len, mine))
            if size > self._bounds.one_bytes:
                raise TooLarge(
                    f"what {response_id} goes on from has more than {self._bounds.one_bytes:,} bytes; begin anew with"
                    " what is needed of it in input",
                    param=_PREVIOUS,
                )
            items += mine
        return items

    def _input(self, row: tuple[Any, ...]) -> list[bytes]:
        return unpacked(self._opened(f"{row[0]} input", row[3], row[0]))

    def _output(self, row: tuple[Any, ...]) -> list[bytes]:
        return output_in(self._opened(f"{row[0]} body", row[4], row[0]))

    def _opened(self, record: str, sealed: bytes, response_id: str) -> bytes:
        """Return what was sealed. Raises NotFound where its key is here no more."""
        plain = self._sealer.open(record, bytes(sealed))
        if plain is None:
            raise unknown(response_id)
        return plain


def output_in(body: bytes) -> list[bytes]:
    """Return the output of a response, each item as JSON."""
    items = json.loads(body)["output"]
    return [json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode() for item in items]


def unknown(response_id: str, *, param: str = "response_id") -> NotFound:
    """Return the refusal of an id that is not one of the account's."""
    message = f"there is no response {response_id[:80]!r} of this account; it may be deleted, or its time over"
    return NotFound(message, param=param)
