"""Admission: verified keys and leased quota, cached, so that a warm key costs no call."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import Final

import grpc

from moa.quota.v1 import quota_pb2, quota_service_pb2_grpc
from services.common.errors import (
    MoaError,
    PermissionDenied,
    QuotaExhausted,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from services.common.rpc.connections import ConnectionWatch
from services.quota_client import grants, ratelimit
from services.quota_client._lease import Lease
from services.quota_client._lease_store import LOW, LeaseStore
from services.quota_client._lease_stores import CALL_S, Asked, LeaseStores
from services.quota_client._pace import Paces, entered
from services.quota_client._refreshing import Refreshing
from services.quota_client._reservation import Reservation
from services.quota_client._settling import DOUBT_S, Settling
from services.quota_client._task_reservation import TaskReservation
from services.quota_client._verified_key import VerifiedKey

_REFUSAL_S: Final = 0.25
_OVERTAKEN: Final = 5
"""So often is asked again for what others took, who came later and need not wait."""


class Admission:
    """Verifies keys and reserves quota for this process.

    Args:
        auth: The channel to the auth service.
        service_token: The internal credential.
        journal: A folder for journals of what was consumed, so that it is booked even if this process is killed.
        doubt_s: How long a backend's word on a call that was left is waited for.
        call_s: How long auth is waited for when a key or a reservation is asked about.
    """

    def __init__(
        self,
        auth: grpc.aio.Channel,
        *,
        service_token: str,
        journal: Path | None = None,
        doubt_s: float = DOUBT_S,
        call_s: float = CALL_S,
    ) -> None:
        self.holder = f"{os.getpid()}-{os.urandom(6).hex()}"
        stub: quota_service_pb2_grpc.QuotaServiceAsyncStub = quota_service_pb2_grpc.QuotaServiceStub(auth)
        self._token = service_token
        self._secret = os.urandom(32)
        self._arriving: dict[bytes, asyncio.Lock] = {}
        self._settling = Settling(
            stub, service_token=service_token, folder=journal, holder=self.holder, doubt_s=doubt_s
        )
        self._paces = Paces(stub, service_token=service_token, holder=self.holder)
        self._connections = ConnectionWatch(auth)
        self._holdings = LeaseStores(
            stub,
            service_token=service_token,
            holder=self.holder,
            settling=self._settling,
            paces=self._paces,
            there=self._connections.returned,
            call_s=call_s,
        )
        self._by_digest = self._holdings.by_digest
        self._refreshing = Refreshing(
            stub,
            service_token=service_token,
            holder=self.holder,
            holdings=self._holdings,
            settling=self._settling,
            paces=self._paces,
        )

    async def start(self) -> None:
        """Start the background work, with what earlier processes left in the journal's folder."""
        self._connections.watch()
        self._refreshing.start(self._settling.start())

    async def stop(self) -> None:
        """Book every settlement, give every lease back, and end."""
        await self._refreshing.stop()
        await self._holdings.close()
        await self._settling.stop(within_s=5.0)
        await self._connections.aclose()

    async def identify(self, key: str) -> VerifiedKey:
        """Return who a key belongs to. Raises Unauthenticated."""
        acting = self._acting(key)
        key_id = acting.key_id if acting else ""
        now = time.monotonic()
        digest = self._digest(grants.PREFIX + key_id if acting else key)
        holding = self._by_digest.get(digest)
        if holding is None or now >= holding.fresh_until:
            asked = Asked(key, quota_pb2.OPERATION_UNSPECIFIED, "", "", 0, 0, 0, "", key_id)
            holding = await self._holdings.ask(digest, asked, least=0)
        holding.used_at = now
        return holding.identity

    async def arrive(self, key: str) -> VerifiedKey:
        """Return who a key belongs to, and count a request that needs no quota by the paces it must keep.

        Raises Unauthenticated, or RateLimited with what is left.
        """
        identity = await self.identify(key)
        acting = self._acting(key)
        holding = self._by_digest.get(self._digest(grants.PREFIX + acting.key_id if acting else key))
        if holding is not None and (shares := holding.paces):
            if not _entered(holding, time.monotonic()):
                try:
                    await self._paces.enter(shares)
                except RateLimited as refused:
                    refused.headers = tuple(ratelimit.headers(identity.remaining()))
                    raise
            for share in shares:
                share.end()
        return identity

    async def reserve(
        self,
        key: str,
        *,
        operation: quota_pb2.Operation.ValueType,
        provider: str,
        model: str,
        tokens: int = 0,
        images: int = 0,
        request_id: str,
        min_tokens: int = 0,
    ) -> Reservation | TaskReservation:
        """Set quota aside for a request; without a call or a pause while the key is warm and its lease has room.

        With `min_tokens`, fewer than `tokens` may be granted when no more are free; never fewer than that. A grant
        (`services.quota_client.grants`) that carries a reservation is taken at its word: its signer settles.
        Raises Unauthenticated, PermissionDenied, RateLimited, Unavailable, or QuotaExhausted with the reset's time.
        """
        if key.startswith(grants.PREFIX):
            return await self._reserve_acting(key, operation, provider, model, tokens, images, min_tokens, request_id)
        if self._settling.overwhelmed:
            raise Unavailable("the use of this request could not be recorded now; try again", retry_after_s=1)
        now = time.monotonic()
        digest = self._digest(key)
        holding = self._by_digest.get(digest)
        if holding is not None and now < holding.fresh_until:
            if not holding.identity.may(operation, provider, model):
                raise PermissionDenied(f"this key may not use {model or provider}")
            holding.used_at = now
            lease = holding.find(tokens, images, now)
            if lease is not None and (not holding.paces or _entered(holding, now)):
                if tokens and lease.tokens - tokens < holding.appetite.tokens // LOW:
                    self._holdings.top_up_ahead(holding, now)
                return holding.reserve(
                    lease, tokens, images, operation=operation, request_id=request_id, now=now, paces=holding.paces
                )
        least = min(tokens, min_tokens) if min_tokens else tokens
        asked = Asked(key, operation, provider, model, tokens, images, least, request_id)
        return await self._reserve_cold(digest, asked)

    def _digest(self, key: str) -> bytes:
        if not key:
            raise Unauthenticated("an API key is required")
        if not key.isascii():
            raise Unauthenticated("the API key is not valid")
        # The key itself is not kept: a dump of this process's memory shows no table of keys.
        return hashlib.blake2b(key.encode(), key=self._secret, digest_size=16).digest()

    # What follows is off the hot path.

    def _acting(self, key: str) -> grants.ActingFor | None:
        """Return whom a grant is for; None for an ordinary key. Raises Unauthenticated for a bad grant."""
        if not key.startswith(grants.PREFIX):
            return None
        acting = grants.read(self._token, key)
        if acting is None:
            raise Unauthenticated("the API key is not valid")
        return acting

    async def _reserve_acting(
        self,
        key: str,
        operation: quota_pb2.Operation.ValueType,
        provider: str,
        model: str,
        tokens: int,
        images: int,
        min_tokens: int,
        request_id: str,
    ) -> Reservation | TaskReservation:
        """As `reserve`, for a service that acts for an account."""
        acting = self._acting(key)
        assert acting is not None
        if not acting.reservation_id:
            least = min(tokens, min_tokens) if min_tokens else tokens
            asked = Asked(key, operation, provider, model, tokens, images, least, request_id, acting.key_id)
            return await self._reserve_cold(self._digest(grants.PREFIX + acting.key_id), asked)
        identity = await self.identify(key)
        if not identity.may(TaskReservation.operation, provider, model):
            raise PermissionDenied(f"this key may not use {model or provider}")
        if tokens or images > acting.images:
            raise QuotaExhausted("the reservation does not cover this request")
        return TaskReservation(identity, acting)

    async def _reserve_cold(self, digest: bytes, asked: Asked) -> Reservation:
        holding = self._by_digest.get(digest)
        if holding is not None:
            holding.waiting_tokens += asked.tokens
            holding.waiting_images += asked.images
        lock = holding.lock if holding else self._arriving.setdefault(digest, asyncio.Lock())
        try:
            async with lock:
                reservation = await self._reserve_locked(digest, asked)
            return await self._in_pace(digest, reservation)
        except (QuotaExhausted, RateLimited) as refused:
            await self._tell(refused, digest, asked)
            raise
        finally:
            if holding is not None:
                holding.waiting_tokens -= asked.tokens
                holding.waiting_images -= asked.images
            elif not lock.locked():
                self._arriving.pop(digest, None)

    async def _in_pace(self, digest: bytes, reservation: Reservation) -> Reservation:
        """Have a request that has its quota wait for its pace, too. Raises RateLimited."""
        holding = self._by_digest.get(digest)
        if holding is not None and (shares := holding.paces):
            try:
                await self._paces.enter(shares)
            except BaseException:
                reservation.release()
                raise
            reservation.paces = shares
        return reservation

    async def _tell(self, refused: QuotaExhausted | RateLimited, digest: bytes, asked: Asked) -> None:
        """Put into a refusal what is left; nothing for a key that is none."""
        known = self._by_digest.get(digest)
        if known is None and isinstance(refused, QuotaExhausted):
            # Refused at its first request: nothing has been told of it yet.
            with contextlib.suppress(MoaError):
                known = await self._holdings.ask(digest, asked._replace(tokens=0, images=0), least=0)
        if known is not None:
            refused.headers = tuple(ratelimit.headers(known.identity.remaining()))

    async def _reserve_locked(self, digest: bytes, asked: Asked) -> Reservation:
        """Try what is held, then a lease for the whole need, then, with what is held returned, for the least."""
        for least in (asked.tokens, asked.least_tokens):
            now = time.monotonic()
            holding = self._by_digest.get(digest)
            if holding is not None and now < holding.fresh_until:
                lease = holding.find(asked.tokens, asked.images, now)
                if lease is not None or holding.refused_before(asked.least_tokens, asked.images, now):
                    return self._taken(holding, lease, asked, now)
            try:
                holding = await self._holdings.ask(digest, asked, least=least)
            except QuotaExhausted:
                holding = self._by_digest.get(digest)
                if holding is None:
                    if asked.least_tokens < least:
                        continue
                    raise
                if any(holding.free()):
                    # Pieces that are too small each may be enough together.
                    self._holdings.give_back(holding)
                    await self._settling.flush_returns()
                elif asked.least_tokens == least:
                    holding.refuse(asked.least_tokens, asked.images, time.monotonic() + _REFUSAL_S)
                    raise
                continue
            break
        else:
            # The second refusal.
            holding = self._by_digest.get(digest)
            if holding is not None:
                holding.refuse(asked.least_tokens, asked.images, time.monotonic() + _REFUSAL_S)
            raise self._exhausted(holding, asked)
        holding = await self._caught_up(digest, holding, asked, least)
        now = time.monotonic()
        return self._taken(holding, holding.find(asked.tokens, asked.images, now), asked, now)

    async def _caught_up(self, digest: bytes, holding: LeaseStore, asked: Asked, least: int) -> LeaseStore:
        """Ask again where others, who need not wait, took what was lent for this request meanwhile."""
        for _ in range(_OVERTAKEN):
            now = time.monotonic()
            if any(lease.has(asked.least_tokens, asked.images, now) for lease in holding.leases):
                break
            try:
                holding = await self._holdings.ask(digest, asked, least=least)
            except QuotaExhausted:
                break
        return holding

    def _taken(self, holding: LeaseStore, lease: Lease | None, asked: Asked, now: float) -> Reservation:
        if not holding.identity.may(asked.operation, asked.provider, asked.model):
            raise PermissionDenied(f"this key may not use {asked.model or asked.provider}")
        tokens = asked.tokens
        if lease is None:
            lease = max(
                (lease for lease in holding.leases if lease.has(asked.least_tokens, asked.images, now)),
                key=lambda lease: lease.tokens,
                default=None,
            )
            if lease is None:
                raise self._exhausted(holding, asked)
            tokens = min(tokens, lease.tokens)
        holding.used_at = now
        return holding.reserve(
            lease, tokens, asked.images, operation=asked.operation, request_id=asked.request_id, now=now
        )

    @staticmethod
    def _exhausted(holding: LeaseStore | None, asked: Asked) -> QuotaExhausted:
        what = "image" if asked.images and not asked.tokens else "token"
        wait_s, when = 1.0, ""
        if holding is not None:
            resets_at = holding.identity.remaining().resets_at
            wait_s = max(1.0, resets_at.timestamp() - time.time())
            when = f"; it begins anew at {resets_at:%Y-%m-%dT%H:%M:%SZ}"
        return QuotaExhausted(f"the daily {what} quota does not cover this request{when}", retry_after_s=wait_s)


def _entered(holding: LeaseStore, now: float) -> bool:
    """Begin a request in its paces if that needs no call. Raises RateLimited, which tells what is left."""
    try:
        return entered(holding.paces, now)
    except RateLimited as refused:
        refused.headers = tuple(ratelimit.headers(holding.identity.remaining()))
        raise
