"""Admission: verified keys and leased quota, cached, so that a warm key costs no call."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import grpc

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2, quota_service_pb2, quota_service_pb2_grpc
from services.common import grants, logs, ratelimit
from services.common.admission.held import Held
from services.common.admission.holding import FIRST_TIMES, Holding, Lease
from services.common.admission.identity import Identity
from services.common.admission.reservation import Reservation
from services.common.admission.settling import Settling
from services.common.errors import MoaError, PermissionDenied, QuotaExhausted, Unauthenticated
from services.common.rpc import call as calls
from services.common.rpc import status
from services.common.rpc.client import metadata
from services.common.throttle import Throttle

_log = logs.get("admission")

_ROUND_S: Final = 0.4
_CALL_S: Final = 3.0
_REFRESH_S: Final = 1.0
_ACTIVE_S: Final = 10.0
_KEEP_S: Final = 60.0
_IDLE_LEASE_S: Final = 5.0
_REPORT_S: Final = 1.0
_REFUSAL_S: Final = 0.25
_UNKNOWN_S: Final = 1.0
_UNKNOWN_COUNT: Final = 10_000
_PAUSES_S: Final = (0.05, 0.2)
_LOW: Final = 4
_GUESSES: Final = 30
"""Wrong keys that one address may try at once, before it has to wait a second for each."""


class _Asked(NamedTuple):
    """What one request asks for."""

    key: str
    operation: quota_pb2.Operation.ValueType
    provider: str
    model: str
    tokens: int
    images: int
    least_tokens: int
    request_id: str
    key_id: str = ""
    """The key's id, where another service acts for its account; `key` is a grant then."""


class Admission:
    """Verifies keys and reserves quota for this process.

    Args:
        auth: The channel to the auth service.
        service_token: The internal credential.
        journal: A folder for journals of what was consumed, so that it is booked even if this process is killed.
    """

    def __init__(self, auth: grpc.aio.Channel, *, service_token: str, journal: Path | None = None) -> None:
        self.holder = f"{os.getpid()}-{os.urandom(6).hex()}"
        self._stub: quota_service_pb2_grpc.QuotaServiceAsyncStub = quota_service_pb2_grpc.QuotaServiceStub(auth)
        self._token = service_token
        self._secret = os.urandom(32)
        self._holdings: dict[bytes, Holding] = {}
        self._kept: dict[str, Holding] = {}
        self._arriving: dict[bytes, asyncio.Lock] = {}
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._settling = Settling(self._stub, service_token=service_token, folder=journal, holder=self.holder)
        self._tasks: set[asyncio.Task[object]] = set()
        self._rounds: asyncio.Task[None] | None = None
        self._orphans: list[str] = []
        self._guesses = Throttle(tries=_GUESSES, every_s=1.0)
        self._returned = 0

    async def start(self) -> None:
        """Start the background work, with what earlier processes left in the journal's folder."""
        self._orphans = self._settling.start()
        self._rounds = asyncio.create_task(self._keep_fresh(), name="admission")

    async def stop(self) -> None:
        """Book every settlement, give every lease back, and end."""
        if self._rounds:
            self._rounds.cancel()
            await asyncio.gather(self._rounds, *self._tasks, return_exceptions=True)
        for holding in self._kept.values():
            self._give_back(holding)
        await self._settling.stop(within_s=5.0)

    async def identify(self, key: str) -> Identity:
        """Give who a key belongs to. Raises Unauthenticated."""
        acting = self._acting(key)
        key_id = acting.key_id if acting else ""
        now = time.monotonic()
        digest = self._digest(grants.PREFIX + key_id if acting else key)
        holding = self._holdings.get(digest)
        if holding is None or now >= holding.fresh_until:
            asked = _Asked(key, quota_pb2.OPERATION_UNSPECIFIED, "", "", 0, 0, 0, "", key_id)
            holding = await self._admitted(digest, asked, least=0)
        holding.used_at = now
        return holding.identity

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
    ) -> Reservation | Held:
        """Set quota aside for a request; without a call or a pause while the key is warm and its lease has room.

        With `min_tokens`, fewer than `tokens` may be granted when no more are free; never fewer than that. A grant
        (`services.common.grants`) that carries a reservation is taken at its word: its signer settles.
        Raises Unauthenticated, PermissionDenied, RateLimited, or QuotaExhausted with the time to the reset.
        """
        if key.startswith(grants.PREFIX):
            return await self._reserve_acting(key, operation, provider, model, tokens, images, min_tokens, request_id)
        now = time.monotonic()
        digest = self._digest(key)
        holding = self._holdings.get(digest)
        if holding is not None and now < holding.fresh_until:
            if not holding.identity.may(operation, provider, model):
                raise PermissionDenied(f"this key may not use {model or provider}")
            holding.used_at = now
            lease = holding.find(tokens, images, now)
            if lease is not None:
                holding.keep_pace(now)
                if tokens and lease.tokens - tokens < holding.appetite.tokens // _LOW:
                    self._top_up_ahead(holding, now)
                return self._reserved(holding, lease, tokens, images, operation, request_id, now)
        least = min(tokens, min_tokens) if min_tokens else tokens
        asked = _Asked(key, operation, provider, model, tokens, images, least, request_id)
        return await self._reserve_cold(digest, asked)

    def settled(self, reservation: Reservation, usage: usage_pb2.Usage, provider: str, model: str) -> None:
        """Book what a reservation came to (`Reservation.settle` calls this)."""
        settlement = reservation.settlement(usage, provider, model)
        self._close(reservation, settlement.charged.tokens, settlement.charged.images)
        self._settling.settled(settlement)

    def released(self, reservation: Reservation) -> None:
        """Take a reservation back unspent (`Reservation.release` calls this)."""
        self._close(reservation, 0, 0)
        if reservation.reported_at:
            # Auth would charge it as an orphan one day.
            self._settling.settled(reservation.settlement(usage_pb2.Usage(), "", ""))
        else:
            self._settling.released(reservation.reservation_id)

    def _digest(self, key: str) -> bytes:
        if not key:
            raise Unauthenticated("an API key is required")
        if not key.isascii():
            raise Unauthenticated("the API key is not valid")
        # The key itself is not kept: a dump of this process's memory shows no table of keys.
        return hashlib.blake2b(key.encode(), key=self._secret, digest_size=16).digest()

    def _reserved(
        self,
        holding: Holding,
        lease: Lease,
        tokens: int,
        images: int,
        operation: quota_pb2.Operation.ValueType,
        request_id: str,
        now: float,
    ) -> Reservation:
        lease.tokens -= tokens
        lease.images -= images
        lease.open += 1
        reservation = Reservation(
            self,
            holding,
            lease,
            tokens=tokens,
            images=images,
            operation=operation,
            request_id=request_id,
            made_at=now,
        )
        holding.open[reservation.reservation_id] = reservation
        self._settling.opened(reservation.reservation_id)
        return reservation

    def _close(self, reservation: Reservation, tokens: int, images: int) -> None:
        lease = reservation.lease
        lease.open -= 1
        lease.tokens += max(0, reservation.tokens - tokens)
        lease.images += max(0, reservation.images - images)
        reservation.holding.open.pop(reservation.reservation_id, None)

    # What follows is off the hot path.

    def _acting(self, key: str) -> grants.ActingFor | None:
        """Give whom a grant is for; None for an ordinary key. Raises Unauthenticated for a bad grant."""
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
    ) -> Reservation | Held:
        """As `reserve`, for a service that acts for an account."""
        acting = self._acting(key)
        assert acting is not None
        if not acting.reservation_id:
            least = min(tokens, min_tokens) if min_tokens else tokens
            asked = _Asked(key, operation, provider, model, tokens, images, least, request_id, acting.key_id)
            return await self._reserve_cold(self._digest(grants.PREFIX + acting.key_id), asked)
        identity = await self.identify(key)
        # A reservation in a grant was made for a task, whatever the task is made of.
        if not identity.may(quota_pb2.OPERATION_TASK, provider, model):
            raise PermissionDenied(f"this key may not use {model or provider}")
        if tokens or images > acting.images:
            raise QuotaExhausted("the reservation does not cover this request")
        return Held(identity, acting)

    async def _reserve_cold(self, digest: bytes, asked: _Asked) -> Reservation:
        holding = self._holdings.get(digest)
        if holding is not None:
            holding.waiting_tokens += asked.tokens
            holding.waiting_images += asked.images
        lock = holding.lock if holding else self._arriving.setdefault(digest, asyncio.Lock())
        try:
            async with lock:
                return await self._reserve_locked(digest, asked)
        except QuotaExhausted as refused:
            if known := self._holdings.get(digest):
                refused.headers = tuple(ratelimit.headers(known.identity.remaining()))
            raise
        finally:
            if holding is not None:
                holding.waiting_tokens -= asked.tokens
                holding.waiting_images -= asked.images
            elif not lock.locked():
                self._arriving.pop(digest, None)

    async def _reserve_locked(self, digest: bytes, asked: _Asked) -> Reservation:
        """Try what is held, then a lease for the whole need, then, with what is held returned, for the least."""
        for least in (asked.tokens, asked.least_tokens):
            now = time.monotonic()
            holding = self._holdings.get(digest)
            if holding is not None and now < holding.fresh_until:
                lease = holding.find(asked.tokens, asked.images, now)
                if lease is not None or holding.refused_before(asked.least_tokens, asked.images, now):
                    return self._taken(holding, lease, asked, now)
            try:
                holding = await self._admitted(digest, asked, least=least)
            except QuotaExhausted:
                holding = self._holdings.get(digest)
                if holding is None:
                    if asked.least_tokens < least:
                        continue
                    raise
                if any(holding.free()):
                    # Pieces that are too small each may be enough together.
                    self._give_back(holding)
                    await self._settling.flush_returns()
                elif asked.least_tokens == least:
                    holding.refuse(asked.least_tokens, asked.images, time.monotonic() + _REFUSAL_S)
                    raise
                continue
            break
        else:
            # The second refusal.
            holding = self._holdings.get(digest)
            if holding is not None:
                holding.refuse(asked.least_tokens, asked.images, time.monotonic() + _REFUSAL_S)
            raise self._exhausted(holding, asked)
        now = time.monotonic()
        return self._taken(holding, holding.find(asked.tokens, asked.images, now), asked, now)

    def _taken(self, holding: Holding, lease: Lease | None, asked: _Asked, now: float) -> Reservation:
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
        holding.keep_pace(now)
        holding.used_at = now
        return self._reserved(holding, lease, tokens, asked.images, asked.operation, asked.request_id, now)

    def _exhausted(self, holding: Holding | None, asked: _Asked) -> QuotaExhausted:
        what = "image" if asked.images and not asked.tokens else "token"
        wait_s, when = 1.0, ""
        if holding is not None:
            resets_at = holding.identity.remaining().resets_at
            wait_s = max(1.0, resets_at.timestamp() - time.time())
            when = f"; it begins anew at {resets_at:%Y-%m-%dT%H:%M:%SZ}"
        return QuotaExhausted(f"the daily {what} quota does not cover this request{when}", retry_after_s=wait_s)

    async def _admitted(self, digest: bytes, asked: _Asked, *, least: int) -> Holding:
        """Ask auth; what it grants is kept even when the caller leaves meanwhile."""
        now = time.monotonic()
        if self._unknown.get(digest, 0.0) > now:
            raise Unauthenticated("the API key is not valid")
        task = asyncio.create_task(self._admit(digest, asked, least))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _admit(self, digest: bytes, asked: _Asked, least: int) -> Holding:
        holding = self._holdings.get(digest)
        asked_at = time.monotonic()
        want_tokens, want_images = asked.tokens * FIRST_TIMES, asked.images * FIRST_TIMES
        if holding is not None and (asked.tokens or asked.images):
            want_tokens, want_images = holding.appetite.next(asked.tokens, asked.images, asked_at)
            want_tokens = max(want_tokens, holding.waiting_tokens)
            want_images = max(want_images, holding.waiting_images)
        request = quota_service_pb2.AdmitRequest(
            api_key=asked.key,
            holder=self.holder,
            operation=asked.operation,
            provider=asked.provider,
            model=asked.model,
            need=quota_pb2.Amount(tokens=asked.tokens, images=asked.images),
            want=quota_pb2.Amount(tokens=want_tokens, images=want_images),
            least=quota_pb2.Amount(tokens=least, images=asked.images),
        )
        if asked.key_id:
            request.key_id = asked.key_id
        try:
            answer = await self._call(request, asked.request_id)
        except Unauthenticated:
            self._forget(digest)
            if address := calls.current().address:
                self._guesses.check(address)
            raise
        return self._take(digest, answer.grant, asked_at)

    async def _call(self, request: quota_service_pb2.AdmitRequest, request_id: str) -> quota_service_pb2.AdmitResponse:
        for pause_s in (*_PAUSES_S, None):
            try:
                return await self._stub.Admit(request, metadata=metadata(self._token, request_id), timeout=_CALL_S)
            except grpc.aio.AioRpcError as failure:
                away = failure.code() == grpc.StatusCode.UNAVAILABLE and not _told(failure)
                if pause_s is None or not away:
                    raise status.error_from_rpc(failure) from failure
                # The replica is gone or restarting. An unheard grant costs its lease's time, never quota.
                await asyncio.sleep(pause_s)
        raise AssertionError("unreachable")

    def _take(self, digest: bytes, grant: quota_pb2.Grant, asked_at: float) -> Holding:
        holding = self._holdings.get(digest) or self._kept.get(grant.key_id)
        if holding is None:
            holding = Holding(digest, grant, asked_at)
        else:
            holding.take(grant, asked_at)
        self._holdings[digest] = holding
        self._kept[grant.key_id] = holding
        self._unknown.pop(digest, None)
        return holding

    def _forget(self, digest: bytes) -> None:
        """Refuse a key from now on; what runs under it goes on."""
        self._holdings.pop(digest, None)
        self._unknown[digest] = time.monotonic() + _UNKNOWN_S
        self._unknown.move_to_end(digest)
        while len(self._unknown) > _UNKNOWN_COUNT:
            self._unknown.popitem(last=False)

    def _top_up_ahead(self, holding: Holding, now: float) -> None:
        """Lease more in the background before the lease runs dry."""
        if holding.topping_up is None and now >= holding.poor_until:
            holding.topping_up = asyncio.create_task(self._topped_up(holding))
            self._tasks.add(holding.topping_up)
            holding.topping_up.add_done_callback(self._tasks.discard)

    async def _topped_up(self, holding: Holding) -> None:
        asked_at = time.monotonic()
        tokens, images = holding.appetite.next(0, 0, asked_at)
        request = quota_service_pb2.AdmitRequest(
            key_id=holding.identity.key_id,
            holder=self.holder,
            want=quota_pb2.Amount(tokens=tokens, images=images),
        )
        try:
            answer = await self._call(request, "")
        except MoaError:
            # Too little is free, or auth is away. Who needs more will ask, and be told.
            holding.poor_until = asked_at + 1.0
        else:
            self._take(holding.digest, answer.grant, asked_at)
        finally:
            holding.topping_up = None

    def _give_back(self, holding: Holding) -> None:
        pieces: list[tuple[quota_pb2.LeaseReturn, float]] = []
        for lease in holding.leases:
            if not lease.tokens and not lease.images:
                continue
            self._returned += 1
            piece = quota_pb2.LeaseReturn(
                return_id=f"{self.holder}.{self._returned}",
                lease_id=lease.lease_id,
                amount=quota_pb2.Amount(tokens=lease.tokens, images=lease.images),
            )
            lease.tokens = lease.images = 0
            pieces.append((piece, lease.alive_until))
        self._settling.give_back(pieces)

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(_ROUND_S)
            try:
                await self._round()
            except grpc.aio.AioRpcError as failure:
                _log.warning("refresh.failed", code=failure.code().name)
            except Exception:
                # A bug must not let every key go stale.
                _log.exception("refresh.failed")

    async def _round(self) -> None:
        now = time.monotonic()
        active: list[Holding] = []
        for holding in list(self._kept.values()):
            idle_s = now - holding.used_at
            if idle_s > _IDLE_LEASE_S:
                self._give_back(holding)
            if holding.open or idle_s < _ACTIVE_S:
                active.append(holding)
            elif idle_s > _KEEP_S:
                self._kept.pop(holding.identity.key_id, None)
                if self._holdings.get(holding.digest) is holding:
                    del self._holdings[holding.digest]
        if active or self._orphans:
            await self._refresh(active, now)

    async def _refresh(self, active: list[Holding], asked_at: float) -> None:
        leases = {
            lease.lease_id: lease
            for holding in active
            for lease in holding.leases
            if asked_at > lease.renew_after and (lease.open or lease.tokens or lease.images)
        }
        reported = list(_aged(active, asked_at))
        request = quota_service_pb2.RefreshRequest(
            holder=self.holder,
            key_ids=[holding.identity.key_id for holding in active],
            lease_ids=list(leases),
            open=[
                *map(_open, reported),
                *map(_orphaned, self._orphans),
            ],
        )
        for reservation in reported:
            # Before the call: one that is released meanwhile must take the report back.
            reservation.reported_at = asked_at
        answer = await self._stub.Refresh(request, metadata=metadata(self._token, ""), timeout=_REFRESH_S)
        if answer.reported and self._orphans:
            self._orphans = []
            self._settling.orphans_reported()
        for grant in answer.grants:
            holding = self._kept.get(grant.key_id)
            if holding is not None:
                holding.take(grant, asked_at)
        for key_id in answer.ended_key_ids:
            ended = self._kept.get(key_id)
            if ended is not None:
                self._forget(ended.digest)
        for granted in answer.leases:
            leases[granted.lease_id].renew(granted, asked_at)


def _aged(active: Iterable[Holding], now: float) -> Iterable[Reservation]:
    """Give the reservations that auth should know of, should this process vanish."""
    for holding in active:
        for reservation in holding.open.values():
            if now - (reservation.reported_at or reservation.made_at) > _REPORT_S:
                yield reservation


def _open(reservation: Reservation) -> quota_pb2.OpenReservation:
    usage, provider, model = reservation.so_far or (usage_pb2.Usage(), "", "")
    return quota_pb2.OpenReservation(so_far=reservation.settlement(usage, provider, model))


def _orphaned(reservation_id: str) -> quota_pb2.OpenReservation:
    return quota_pb2.OpenReservation(so_far=quota_pb2.Settlement(reservation_id=reservation_id))


def _told(failure: grpc.aio.AioRpcError) -> bool:
    """Tell whether auth itself answered, rather than the connection."""
    return any(name == status.DETAILS_KEY for name, _ in failure.trailing_metadata() or ())
