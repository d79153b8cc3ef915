"""Responses that are made in the background: their rows are the queue, and each making writes under its fence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Final

from moa.quota.v1 import quota_pb2
from moa.response.v1 import response_store_service_pb2 as pb
from services.auth.adapters.postgres import Link, Postgres
from services.auth.adapters.stored_responses import RUNNING, WHOLE, StoredResponses, output_in, unknown
from services.auth.adapters.stored_room import Bounds, check_room, take_room
from services.common import logs
from services.common.content_sealing import ContentSealer, packed, unpacked
from services.common.errors import InvalidField, MoaError, NotFound, QueueFull

_log = logs.get("responses")

LEASE_S: Final = 15.0
"""How long a making lasts after its router was last heard of."""
MOST_WAITING: Final = 100
"""How many responses of one account may wait or be made at once."""
_BATCH: Final = 200


class BackgroundResponses:
    """Queues responses, and keeps what comes of them.

    Args:
        stored: What keeps them otherwise.
        lease_s, most_waiting: As the constants.
    """

    def __init__(
        self,
        postgres: Postgres,
        sealer: ContentSealer,
        bounds: Bounds,
        stored: StoredResponses,
        *,
        lease_s: float = LEASE_S,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._postgres = postgres
        self._sealer = sealer
        self._bounds = bounds
        self._stored = stored
        self.lease_s = lease_s
        self._most_waiting = most_waiting

    async def enqueue(self, asked: pb.EnqueueRequest) -> int:
        """Store a response that is to be made; return the fence. Raises QuotaExhausted, QueueFull, TooLarge."""
        response = asked.response
        name, account_id = response.response_id, response.account_id

        def sealed() -> tuple[bytes, bytes, bytes]:
            seal = self._sealer.seal
            return (
                seal(f"{name} input", packed(response.input)),
                seal(f"{name} body", response.body),
                seal(f"{name} request", asked.request),
            )

        given, body, request = await asyncio.to_thread(sealed)
        size = len(given) + len(body) + len(request)
        async with self._postgres.transaction() as link:
            await check_room(link, account_id, self._bounds)
            cursor = await link.execute(
                "select count(*) from stored_responses where account_id = %s and state = any(%s)",
                (account_id, list(RUNNING)),
            )
            row = await cursor.fetchone()
            if row is not None and row[0] >= self._most_waiting:
                raise QueueFull(
                    f"{self._most_waiting} responses of this account wait or are being made in the background; send"
                    " this when some have ended",
                    retry_after_s=5,
                )
            await link.execute(
                "insert into stored_responses (id, account_id, previous_id, conversation_id, conversation_until, state,"
                " streamed, input, body, request, key_id, size_bytes, attempts, fence, leased_until, expires_at) values"
                " (%s, %s, nullif(%s, ''), nullif(%s, ''), %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,"
                " now() + make_interval(secs => %s), now() + make_interval(secs => %s))",
                (
                    *(name, account_id, response.previous_response_id),
                    *(response.conversation_id, response.conversation_until),
                    *(pb.RESPONSE_STATE_QUEUED, asked.streamed),
                    *(given, body, request, asked.key_id, size, int(asked.claims), int(asked.claims)),
                    *(self.lease_s if asked.claims else 0, self._bounds.keep_s),
                ),
            )
            await take_room(link, account_id, self._bounds, entries=1, size_bytes=size)
            await self._stored.prolong(link, account_id, response.previous_response_id)
        return int(asked.claims)

    async def claim(self) -> pb.ClaimResponse:
        """Take up the response that has waited longest; return one without an id where none does."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "update stored_responses set fence = fence + 1, attempts = attempts + 1,"
                " leased_until = now() + make_interval(secs => %s) where id = (select id from stored_responses"
                " where state = any(%s) and leased_until <= now() order by leased_until limit 1"
                " for update skip locked) returning id, account_id, key_id, request, fence, attempts, next_sequence,"
                " streamed",
                (self.lease_s, list(RUNNING)),
            )
            row = await cursor.fetchone()
            if row is None:
                return await self._none_waits(link)
            await self._forget_events(link, row[0])
        name, account_id, key_id, sealed, fence, attempt, first, streamed = row
        # One that nobody can read any more has no request, and fails.
        request = await asyncio.to_thread(self._sealer.open, f"{name} request", bytes(sealed))
        return pb.ClaimResponse(
            response_id=name,
            account_id=account_id,
            key_id=key_id,
            request=request or b"",
            fence=fence,
            attempt=attempt,
            first_sequence=first,
            streamed=streamed,
        )

    async def _none_waits(self, link: Link) -> pb.ClaimResponse:
        cursor = await link.execute(
            "select extract(epoch from min(leased_until) - now())::float8 from stored_responses where state = any(%s)",
            (list(RUNNING),),
        )
        row = await cursor.fetchone()
        answer = pb.ClaimResponse()
        if row is not None and row[0] is not None:
            answer.next_in.FromMilliseconds(max(0, int(row[0] * 1000)))
        return answer

    async def renew(self, made: Sequence[pb.Made]) -> pb.RenewResponse:
        """Renew leases; return which makings are to end, and which are another's."""
        fences = {each.response_id: each.fence for each in made}
        names = sorted(fences)
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select id, fence, state from stored_responses where id = any(%s) order by id for update", (names,)
            )
            found = {name: (fence, state) for name, fence, state in await cursor.fetchall()}
            ended = [name for name in names if name not in found or found[name][1] not in RUNNING]
            lost = [name for name in names if name not in ended and found[name][0] != fences[name]]
            live = [name for name in names if name not in ended and name not in lost]
            if live:
                await link.execute(
                    "update stored_responses set leased_until = now() + make_interval(secs => %s) where id = any(%s)",
                    (self.lease_s, live),
                )
        return pb.RenewResponse(ended=ended, lost=lost)

    async def append(self, asked: pb.AppendRequest) -> bool:
        """Store a part of a response; return whether it counted."""
        name = asked.made.response_id
        events, body = await asyncio.to_thread(self._sealed, name, asked.body, asked.events, asked.first_sequence)
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "update stored_responses set state = %s, body = coalesce(%s, body), next_sequence = next_sequence + %s"
                " where id = %s and fence = %s and state = any(%s) returning account_id",
                (
                    *(pb.RESPONSE_STATE_IN_PROGRESS, body, len(asked.events)),
                    *(name, asked.made.fence, list(RUNNING)),
                ),
            )
            row = await cursor.fetchone()
            if row is None:
                return False
            await self._add_events(link, name, row[0], asked.first_sequence, len(asked.events), events)
        return True

    async def finish(self, asked: pb.FinishRequest) -> bool:
        """Store the end of a response, with what it came to; return whether it counted. Again counts as before."""
        if asked.state in (*RUNNING, pb.RESPONSE_STATE_UNSPECIFIED):
            raise InvalidField("it has not ended", param="state")
        name = asked.made.response_id
        events, body = await asyncio.to_thread(self._sealed, name, asked.body, asked.events, asked.first_sequence)
        settlement = asked.settlement.SerializeToString() if asked.HasField("settlement") else None
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select account_id, state, fence, length(body) + length(request), conversation_id, input"
                " from stored_responses where id = %s for update",
                (name,),
            )
            row = await cursor.fetchone()
            if row is None or row[2] != asked.made.fence:
                return False
            if row[1] not in RUNNING:
                return bool(row[1] == asked.state)
            await link.execute(
                "update stored_responses set state = %s, body = %s, request = null, settlement = %s,"
                " leased_until = null, next_sequence = next_sequence + %s where id = %s",
                (asked.state, body, settlement, len(asked.events), name),
            )
            await self._resize(link, name, row[0], len(body or b"") - (row[3] or 0))
            await self._add_events(link, name, row[0], asked.first_sequence, len(asked.events), events)
            if row[4] is not None and asked.state in WHOLE:
                await self._tell(link, row[0], row[4], name, bytes(row[5]), asked.body)
        return True

    async def _tell(
        self, link: Link, account_id: str, conversation_id: str, name: str, given: bytes, body: bytes
    ) -> None:
        """Add a response's items to its conversation, if that is there and has room."""
        plain = self._sealer.open(f"{name} input", given) or b""
        try:
            async with link.transaction():
                await self._stored.tell(link, account_id, conversation_id, [*unpacked(plain), *output_in(body)])
        except MoaError as error:
            _log.warning("conversation.not_told", why=error.message)

    async def put_back(self, made: pb.Made) -> None:
        """Let another router take a response up at once; this making counts as none."""
        async with self._postgres.transaction() as link:
            await link.execute(
                # With another fence: a renewal that was on its way must not lease it again.
                "update stored_responses set leased_until = now(), attempts = greatest(attempts - 1, 0),"
                " fence = fence + 1"
                " where id = %s and fence = %s and state = any(%s)",
                (made.response_id, made.fence, list(RUNNING)),
            )

    async def cancel(self, account_id: str, response_id: str) -> bytes:
        """End a response that is being made; return it as it is then. Raises NotFound, InvalidField."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select state, body, key_id, length(body) + length(request) from stored_responses"
                " where id = %s and account_id = %s and expires_at > now() for update",
                (response_id, account_id),
            )
            row = await cursor.fetchone()
            if row is None:
                raise unknown(response_id)
            state, sealed, key_id, size = row
            if key_id is None:
                raise InvalidField(
                    "only a response that is made with background: true can be cancelled; of others close the"
                    " connection",
                    param="response_id",
                )
            plain = self._sealer.open(f"{response_id} body", bytes(sealed))
            if plain is None:
                raise unknown(response_id)
            if state not in RUNNING:
                return plain
            body = json.dumps({**json.loads(plain), "status": "cancelled"}, ensure_ascii=False).encode()
            kept = self._sealer.seal(f"{response_id} body", body)
            await link.execute(
                "update stored_responses set state = %s, body = %s, request = null, leased_until = null where id = %s",
                (pb.RESPONSE_STATE_CANCELLED, kept, response_id),
            )
            await self._resize(link, response_id, account_id, len(kept) - (size or 0))
        return body

    async def unbooked(self) -> list[tuple[str, quota_pb2.Settlement]]:
        """Return what ended responses came to that was not booked when they ended, by their ids."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select id, settlement from stored_responses where settlement is not null order by id limit %s",
                (_BATCH,),
            )
            return [(name, quota_pb2.Settlement.FromString(data)) for name, data in await cursor.fetchall()]

    async def booked(self, names: Sequence[str]) -> None:
        """Note that what these came to is booked."""
        async with self._postgres.transaction() as link:
            await link.execute("update stored_responses set settlement = null where id = any(%s)", (sorted(names),))

    def _sealed(self, name: str, body: bytes, events: Sequence[bytes], first: int) -> tuple[bytes | None, bytes | None]:
        seal = self._sealer.seal
        made = seal(f"{name} events {first}", packed(events)) if events else None
        return made, seal(f"{name} body", body) if body else None

    async def _add_events(
        self, link: Link, name: str, account_id: str, first: int, count: int, events: bytes | None
    ) -> None:
        if events is not None:
            await link.execute(
                "insert into stored_events values (%s, %s, %s, %s)", (name, first, first + count - 1, events)
            )
            await self._resize(link, name, account_id, len(events))

    async def _forget_events(self, link: Link, name: str) -> None:
        cursor = await link.execute(
            "with gone as (delete from stored_events where response_id = %s returning length(events) as size)"
            " select coalesce(sum(size), 0)::bigint from gone",
            (name,),
        )
        row = await cursor.fetchone()
        if row is not None and row[0]:
            owner = await (
                await link.execute("select account_id from stored_responses where id = %s", (name,))
            ).fetchone()
            if owner is None:
                raise NotFound("it is gone")
            await self._resize(link, name, owner[0], -row[0])

    async def _resize(self, link: Link, name: str, account_id: str, by: int) -> None:
        """Count that a response has become so much larger; what is being made is stored to its end."""
        await link.execute("update stored_responses set size_bytes = size_bytes + %s where id = %s", (by, name))
        await link.execute("update stored_room set bytes = bytes + %s where account_id = %s", (by, account_id))
