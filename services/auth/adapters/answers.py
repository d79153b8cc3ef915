"""Requests with an idempotency key, and their answers, in PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

from moa.idempotency.v1 import idempotency_service_pb2 as pb
from services.auth.adapters.postgres import Link, Postgres
from services.auth.adapters.sealing import Sealer
from services.common.errors import NotFound, Unavailable

KEEP_S: Final = 24 * 3600.0
"""How long an answer is kept, and a key counts as used."""
ROOM_BYTES: Final = 128 * 1024 * 1024
"""How many bytes of answers an account has; the oldest make room for later ones."""
_BATCH: Final = 200
_TRIES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that a key is claimed for."""

    account_id: str
    key_id: str
    stranger: str = ""
    operation: str
    idempotency_key: str
    fingerprint: bytes
    request_id: str
    claim_id: UUID

    @property
    def owner(self) -> str:
        """Whose answers share a room."""
        return f"{self.account_id}:{self.stranger}" if self.stranger else self.account_id


class Answers:
    """Claims keys, and keeps what came of them.

    Args:
        postgres: Where they are.
        pepper: What names and fingerprints are digested, and answers encrypted with.
        lease_s: How long a claim lasts that is not renewed.
        keep_s, room_bytes: As the constants.
    """

    def __init__(
        self,
        postgres: Postgres,
        *,
        pepper: bytes,
        lease_s: float,
        keep_s: float = KEEP_S,
        room_bytes: int = ROOM_BYTES,
    ) -> None:
        self._postgres = postgres
        self._secret = hmac.digest(pepper, b"moa idempotency", hashlib.sha256)
        self._sealer = Sealer(pepper, "answers")
        self.lease_s = lease_s
        self._keep_s = keep_s
        self._room_bytes = room_bytes

    async def claim(self, asked: Asked) -> pb.ClaimResponse:
        """Claim a key, or return what has become of it."""
        name = self._digest(asked.owner, asked.key_id, asked.operation, asked.idempotency_key)
        fingerprint = self._digest(asked.fingerprint)
        for _ in range(_TRIES):
            async with self._postgres.transaction() as link:
                if await self._insert(link, name, fingerprint, asked):
                    begun = pb.Begun(claim_id=str(asked.claim_id))
                    begun.expires_in.FromMilliseconds(int(self.lease_s * 1000))
                    return pb.ClaimResponse(begun=begun)
                found = await self._found(link, name, fingerprint)
            if found is not None:
                return found
        # Freed and claimed again whenever it was looked at.
        raise Unavailable("this idempotency key is too busy; try again", retry_after_s=1)

    async def renew(self, claim_ids: Sequence[UUID]) -> None:
        """Renew the leases of claims whose work goes on."""
        async with self._postgres.transaction() as link:
            await link.execute(
                "update idempotent_requests set leased_until = now() + make_interval(secs => %s)"
                # In one order, so that no two of these wait for each other.
                " where claim_id in (select claim_id from idempotent_requests where claim_id = any(%s)"
                " and kept_at is null order by claim_id for update)",
                (self.lease_s, list(claim_ids)),
            )

    async def keep(self, claim_id: UUID, answer: bytes) -> None:
        """Keep a claim's answer. Does nothing where something was kept under it before, or it was freed."""
        sealed = await asyncio.to_thread(self._sealer.seal, claim_id, answer)
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "update idempotent_requests set answer = %s, size_bytes = %s, kept_at = now(),"
                " expires_at = now() + make_interval(secs => %s) where claim_id = %s and kept_at is null"
                " returning owner",
                (sealed, len(sealed), self._keep_s, claim_id),
            )
            row = await cursor.fetchone()
            if row is not None:
                await self._make_room(link, row[0], len(sealed))

    async def lose(self, claim_id: UUID, reason: pb.LostReason.ValueType) -> None:
        """Note that a claim's request was made, and that its answer cannot be kept."""
        async with self._postgres.transaction() as link:
            await link.execute(
                "update idempotent_requests set lost = %s, kept_at = now(),"
                " expires_at = now() + make_interval(secs => %s) where claim_id = %s and kept_at is null",
                (reason, self._keep_s, claim_id),
            )

    async def free(self, claim_id: UUID) -> None:
        """Forget a claim, unless something was kept under it."""
        async with self._postgres.transaction() as link:
            await link.execute("delete from idempotent_requests where claim_id = %s and kept_at is null", (claim_id,))

    async def read(self, claim_id: UUID) -> bytes:
        """Return an answer. Raises NotFound where it is gone, or not one that this gateway can read."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select answer from idempotent_requests where claim_id = %s and answer is not null"
                " and expires_at > now()",
                (claim_id,),
            )
            row = await cursor.fetchone()
        plain = await asyncio.to_thread(self._sealer.open, claim_id, bytes(row[0])) if row is not None else None
        if plain is None:
            raise NotFound("the answer is no longer kept; use a new idempotency key to have it made again")
        return plain

    async def tidy(self) -> None:
        """Forget what is older than a day."""
        while await self._forget("expires_at <= now()", ()) == _BATCH:
            pass

    async def _insert(self, link: Link, name: bytes, fingerprint: bytes, asked: Asked) -> bool:
        cursor = await link.execute(
            "insert into idempotent_requests (name, claim_id, owner, fingerprint, request_id, leased_until, expires_at)"
            " values (%s, %s, %s, %s, %s, now() + make_interval(secs => %s), now() + make_interval(secs => %s))"
            " on conflict (name) do nothing",
            (name, asked.claim_id, asked.owner, fingerprint, asked.request_id, self.lease_s, self._keep_s),
        )
        return bool(cursor.rowcount)

    async def _found(self, link: Link, name: bytes, fingerprint: bytes) -> pb.ClaimResponse | None:
        """Return what has become of a key; None where it is free, or was just now."""
        cursor = await link.execute(
            "select claim_id, fingerprint, request_id, leased_until > now(), kept_at is not null, lost,"
            " expires_at <= now() from idempotent_requests where name = %s",
            (name,),
        )
        row = await cursor.fetchone()
        if row is None:
            return None
        claim_id, known, request_id, leased, kept, lost, expired = row
        if expired:
            await self._removed(link, "name = %s and expires_at <= now()", (name,))
            return None
        if not hmac.compare_digest(bytes(known), fingerprint):
            return pb.ClaimResponse(reused=pb.Reused())
        if kept and not lost:
            return pb.ClaimResponse(kept=pb.Kept(claim_id=str(claim_id), request_id=request_id))
        if kept or not leased:
            why = lost or pb.LOST_REASON_OUTCOME_UNKNOWN
            return pb.ClaimResponse(lost=pb.Lost(reason=why, request_id=request_id))
        return pb.ClaimResponse(running=pb.Running(request_id=request_id))

    async def _make_room(self, link: Link, owner: str, size_bytes: int) -> None:
        """Count an answer's bytes; the owner's oldest answers go where all are too many."""
        cursor = await link.execute(
            "insert into idempotent_room as r values (%s, %s) on conflict (owner)"
            " do update set bytes = r.bytes + excluded.bytes returning bytes",
            (owner, size_bytes),
        )
        row = await cursor.fetchone()
        over = row[0] - self._room_bytes if row else 0
        while over > 0:
            cursor = await link.execute(
                "select claim_id, size_bytes from idempotent_requests where owner = %s and answer is not null"
                " order by kept_at limit 50 for update skip locked",
                (owner,),
            )
            if not (oldest := await cursor.fetchall()):
                return
            going = []
            freed = 0
            for claim_id, size in oldest:
                if freed >= over:
                    break
                going.append(claim_id)
                freed += size
            await link.execute(
                "update idempotent_requests set answer = null, size_bytes = 0, lost = %s where claim_id = any(%s)",
                (pb.LOST_REASON_EVICTED, going),
            )
            await link.execute("update idempotent_room set bytes = bytes - %s where owner = %s", (freed, owner))
            over -= freed

    async def _forget(self, which: LiteralString, given: Sequence[Any]) -> int:
        async with self._postgres.transaction() as link:
            return await self._removed(link, which, given)

    async def _removed(self, link: Link, which: LiteralString, given: Sequence[Any]) -> int:
        """Remove rows, at most a batch of them, and their bytes from their owners' counts; return how many went."""
        cursor = await link.execute(
            "delete from idempotent_requests where name in (select name from idempotent_requests where "
            + which
            + " limit %s for update skip locked) returning owner, size_bytes",
            (*given, _BATCH),
        )
        rows = await cursor.fetchall()
        freed: dict[str, int] = {}
        for owner, size in rows:
            freed[owner] = freed.get(owner, 0) + size
        for owner in sorted(owner for owner, size in freed.items() if size):
            await link.execute("update idempotent_room set bytes = bytes - %s where owner = %s", (freed[owner], owner))
            await link.execute("delete from idempotent_room where owner = %s and bytes <= 0", (owner,))
        return len(rows)

    def _digest(self, *parts: str | bytes) -> bytes:
        digest = hmac.new(self._secret, digestmod=hashlib.sha256)
        for part in parts:
            data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "big"))
            digest.update(data)
        return digest.digest()
