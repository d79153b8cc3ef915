"""Admission: verified keys and leased quota, cached, so that a warm key costs no call."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc

from moa.quota.v1 import quota_pb2, quota_service_pb2_grpc
from services.catalogue import Cost
from services.common.credential import Credential
from services.common.errors import (
    MoaError,
    QuotaExhausted,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from services.common.rpc.client import ConnectionWatch
from services.quota_client import grants, permissions, ratelimit
from services.quota_client._lease_store import LeaseStore
from services.quota_client._lease_stores import CALL_S, Asked, LeaseStores
from services.quota_client._pace import Paces
from services.quota_client._part import exact_of
from services.quota_client._refreshing import Refreshing
from services.quota_client._reservation import Lease, Reservation, costless
from services.quota_client._settling import DEFERRED_S, EVERY_S, Recording, Settling
from services.quota_client._share import entered
from services.quota_client._task_reservation import TaskReservation
from services.quota_client._upstream import UpstreamPaces
from services.quota_client._verified_key import VerifiedKey
from services.quota_client.amounts import NOTHING, Amount

_REFUSAL_S: Final = 0.25
_OVERTAKEN: Final = 5
"""So often is asked again for what others took, who came later and need not wait."""


class Admission:
    """Verifies keys and reserves quota for this process.

    Args:
        auth: The channel to the auth service.
        service_token: The internal credential.
        journal: A folder for journals of what was consumed, so that it is booked even if this process is killed.
        deferred_s: How long a backend's word on a call that was left is waited for.
        call_s: How long auth is waited for when a key or a reservation is asked about.
        settle_every_s: How far batches of settlements are apart, where there is a journal.
    """

    def __init__(
        self,
        auth: grpc.aio.Channel,
        *,
        service_token: Credential,
        journal: Path | None = None,
        deferred_s: float = DEFERRED_S,
        call_s: float = CALL_S,
        settle_every_s: float = EVERY_S,
    ) -> None:
        self.holder = f"{os.getpid()}-{os.urandom(6).hex()}"
        stub: quota_service_pb2_grpc.QuotaServiceAsyncStub = quota_service_pb2_grpc.QuotaServiceStub(auth)
        self._token = service_token
        self._digests = hashlib.blake2b(key=os.urandom(32), digest_size=16)
        self._arriving: dict[bytes, asyncio.Lock] = {}
        self._settling = Settling(
            stub,
            service_token=service_token,
            folder=journal,
            holder=self.holder,
            deferred_s=deferred_s,
            every_s=settle_every_s,
        )
        self._paces = Paces(stub, service_token=service_token, holder=self.holder)
        self.upstreams = UpstreamPaces(self._paces)
        """The paces of providers' keys."""
        self._connections = ConnectionWatch(auth)
        self._stores = LeaseStores(
            stub,
            service_token=service_token,
            holder=self.holder,
            settling=self._settling,
            paces=self._paces,
            there=self._connections.returned,
            lend=self._lend,
            call_s=call_s,
        )
        self._by_digest = self._stores.by_digest
        self._refreshing = Refreshing(
            stub,
            service_token=service_token,
            holder=self.holder,
            stores=self._stores,
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
        await self._stores.close()
        await self._paces.aclose()
        await self._settling.stop(within_s=5.0)
        await self._connections.aclose()

    async def identify(self, key: str) -> VerifiedKey:
        """Return who a key belongs to. Raises Unauthenticated."""
        acting = self._acting(key)
        key_id = acting.key_id if acting else ""
        now = time.monotonic()
        digest = self._digest(grants.PREFIX + key_id if acting else key)
        store = self._by_digest.get(digest)
        if store is None or now >= store.fresh_until:
            asked = Asked(key, quota_pb2.OPERATION_UNSPECIFIED, "", "", NOTHING, NOTHING, costless, "", key_id)
            store = await self._stores.ask(digest, asked, least=NOTHING)
        store.used_at = now
        return store.verified_key

    @property
    def recording(self) -> Recording:
        """Return whether what requests consume can be recorded here."""
        return self._settling.recording

    def known(self, key: str) -> VerifiedKey | None:
        """Return who a key belonged to when it was last verified here; None where it never was, or long ago."""
        if not key or not key.isascii() or key.startswith(grants.PREFIX):
            return None
        store = self._by_digest.get(self._digest(key))
        return store.verified_key if store is not None else None

    def verified(self, key: str) -> VerifiedKey | None:
        """Return who a key belongs to; None where auth is to be asked before it is used."""
        store = self._by_digest.get(self._digest(key)) if key and key.isascii() else None
        return store.verified_key if store is not None and time.monotonic() < store.fresh_until else None

    async def arrive(self, key: str) -> VerifiedKey:
        """Return who a key belongs to, and count a request that needs no quota by the paces it must keep.

        Raises Unauthenticated, or RateLimited with what is left.
        """
        verified_key = await self.identify(key)
        acting = self._acting(key)
        store = self._by_digest.get(self._digest(grants.PREFIX + acting.key_id if acting else key))
        if store is not None and (shares := store.paces):
            if not _entered(store, time.monotonic()):
                try:
                    await self._paces.enter(shares)
                except RateLimited as refused:
                    refused.headers = tuple(ratelimit.headers(verified_key.remaining()))
                    raise
            for share in shares:
                share.end()
        return verified_key

    async def count(
        self, key: str, *, provider: str, model: str, tags: tuple[str, ...] = (), amount: Amount
    ) -> Callable[[], None]:
        """Count what a task will come to on a minute's images and dollars; return what takes that back.

        Its quota was set aside elsewhere, and its request counted by `arrive`. Raises QuotaExhausted where no minute
        has so much, RateLimited where this one has not, or Unavailable.
        """
        await self.identify(key)
        acting = self._acting(key)
        store = self._by_digest[self._digest(grants.PREFIX + acting.key_id if acting else key)]
        if store.budgets is not None:
            store = self._stores.for_request(store, provider, model, tags, time.monotonic())
        shares = store.paces
        try:
            for share in shares:
                if (refusal := share.never(amount)) is not None:
                    raise refusal
            if shares:
                await self._paces.grow(shares, amount)
        except (QuotaExhausted, RateLimited) as refused:
            refused.headers = tuple(ratelimit.headers(store.verified_key.remaining()))
            raise

        def take_back() -> None:
            for share in shares:
                share.changed(exact_of(amount), NOTHING)

        return take_back

    async def reserve(
        self,
        key: str,
        *,
        operation: quota_pb2.Operation.ValueType,
        provider: str,
        model: str,
        need: Amount,
        least: Amount | None = None,
        cost: Cost = costless,
        request_id: str,
        tags: tuple[str, ...] = (),
    ) -> Reservation | TaskReservation:
        """Set quota aside for a request; without a call or a pause while the key is warm and its lease has room.

        With `least`, less than `need` may be granted when no more is free; never less than that. `cost` tells what a
        consumption costs, as long as the reservation lives. `tags` tell, with the model, on which budgets it counts. A
        grant (`services.quota_client.grants`) that carries a reservation is taken at its word: its signer settles.
        Raises Unauthenticated, PermissionDenied, RateLimited, Unavailable, or QuotaExhausted with the reset's time.
        """
        need = need.of_request()
        if key.startswith(grants.PREFIX):
            enough = need if least is None else least.of_request()
            asked = Asked(key, operation, provider, model, need, enough, cost, request_id, "", tags)
            return await self._reserve_acting(asked)
        if self._settling.overwhelmed:
            raise Unavailable("the use of this request could not be recorded now; try again", retry_after_s=1)
        now = time.monotonic()
        digest = self._digest(key)
        store = self._by_digest.get(digest)
        if store is not None and now < store.fresh_until:
            if not store.verified_key.may(operation, provider, model):
                raise permissions.refused(model or provider)
            store.used_at = now
            if store.budgets is not None:
                store = self._stores.for_request(store, provider, model, tags, now)
                digest = store.digest
            lease = store.find(need, now)
            if lease is not None and (not store.paces or _entered(store, now, need)):
                reservation = store.reserve(
                    lease, need, operation=operation, request_id=request_id, cost=cost, now=now, paces=store.paces
                )
                if not lease.free.covers(store.demand.low):
                    self._stores.top_up_ahead(store, now)
                return reservation
        enough = need if least is None else least.of_request()
        asked = Asked(key, operation, provider, model, need, enough, cost, request_id, "", tags)
        return await self._reserve_cold(digest, asked)

    def _digest(self, key: str) -> bytes:
        if not key:
            raise Unauthenticated("an API key is required; send Authorization: Bearer, X-API-Key or x-goog-api-key")
        if not key.isascii():
            raise Unauthenticated("the API key is not valid; send it whole, or one that is not expired or revoked")
        # The key itself is not kept: a dump of this process's memory shows no table of keys.
        # A copy takes a third of the time of a digest that is made anew.
        digest = self._digests.copy()
        digest.update(key.encode())
        return digest.digest()

    # What follows is off the hot path.

    def _acting(self, key: str) -> grants.ActingFor | None:
        """Return whom a grant is for; None for an ordinary key. Raises Unauthenticated for a bad grant."""
        if not key.startswith(grants.PREFIX):
            return None
        acting = grants.read(self._token, key)
        if acting is None:
            raise Unauthenticated("the API key is not valid; send it whole, or one that is not expired or revoked")
        return acting

    async def _reserve_acting(self, asked: Asked) -> Reservation | TaskReservation:
        """As `reserve`, for a service that acts for an account."""
        acting = self._acting(asked.key)
        assert acting is not None
        if not acting.reservation_id:
            return await self._reserve_cold(
                self._digest(grants.PREFIX + acting.key_id), asked._replace(key_id=acting.key_id)
            )
        verified_key = await self.identify(asked.key)
        if not verified_key.may(TaskReservation.operation, asked.provider, asked.model):
            raise permissions.refused(asked.model or asked.provider)
        if asked.need.tokens or asked.need.images > acting.images:
            raise QuotaExhausted("the reservation does not cover this request")
        return TaskReservation(verified_key, acting)

    async def _lend(self, store: LeaseStore, running: Reservation, need: Amount, least: Amount) -> Reservation:
        """As `reserve`, for more of what runs: it is in its paces, and goes on whatever has become of its key."""
        paces = running.paces
        more = await self._lent_more(store, running, need, least)
        if paces:
            try:
                await self._paces.grow(paces, more.amount)
            except RateLimited as refused:
                more.release()
                raise QuotaExhausted(refused.message, retry_after_s=refused.retry_after_s) from refused
            except BaseException:
                more.release()
                raise
        return more

    async def _lent_more(self, store: LeaseStore, running: Reservation, need: Amount, least: Amount) -> Reservation:
        now = time.monotonic()
        store.used_at = now
        lease = store.find(need, now)
        if lease is None:
            whose = store.verified_key.key_id
            asked = Asked("", running.operation, "", "", need, least, running.cost, running.request_id, whose)
            return await self._lent(store.digest, asked)
        more = store.reserve(
            lease, need, operation=running.operation, request_id=running.request_id, cost=running.cost, now=now
        )
        if not lease.free.covers(store.demand.low):
            self._stores.top_up_ahead(store, now)
        return more

    async def _reserve_cold(self, digest: bytes, asked: Asked) -> Reservation:
        try:
            return await self._in_pace(digest, asked, await self._lent(digest, asked))
        except (QuotaExhausted, RateLimited) as refused:
            await self._tell(refused, digest, asked)
            raise

    async def _lent(self, digest: bytes, asked: Asked) -> Reservation:
        """Reserve with auth's help, one request of a key after another."""
        store = self._store(digest, asked)
        if store is not None:
            store.waiting += asked.need
        lock = store.lock if store else self._arriving.setdefault(digest, asyncio.Lock())
        try:
            async with lock:
                return await self._reserve_locked(digest, asked)
        finally:
            if store is not None:
                store.waiting -= asked.need
            elif not lock.locked():
                self._arriving.pop(digest, None)

    def _store(self, digest: bytes, asked: Asked) -> LeaseStore | None:
        """Return the store that serves a request, by the budgets on which it counts; None for an unknown key."""
        store = self._by_digest.get(digest)
        if store is None or store.budgets is None or store.parent is not None or not asked.model:
            return store
        return self._stores.for_request(store, asked.provider, asked.model, asked.tags, time.monotonic())

    async def _in_pace(self, digest: bytes, asked: Asked, reservation: Reservation) -> Reservation:
        """Have a request that has its quota wait for its pace, too. Raises RateLimited."""
        store = self._store(digest, asked)
        if store is not None and (shares := store.paces):
            try:
                # What no minute has is not waited for: less will do, or nothing does.
                for share in shares:
                    if (refusal := share.never(asked.least)) is not None:
                        raise refusal
                    reservation = reservation.shrink(share.fitting(reservation.amount))
                await self._paces.enter(shares, reservation.amount)
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
                known = await self._stores.ask(digest, asked._replace(need=NOTHING, least=NOTHING), least=NOTHING)
        # What a budget limits is told by the store of the requests that count on it.
        store = self._store(digest, asked) if known is not None else None
        if store is not None:
            refused.headers = tuple(ratelimit.headers(store.verified_key.remaining()))

    async def _reserve_locked(self, digest: bytes, asked: Asked) -> Reservation:
        """Try what is held, then a lease for the whole need, then, with what is held returned, for the least."""
        for least in (asked.need, asked.least):
            now = time.monotonic()
            store = self._store(digest, asked)
            if store is not None and now < store.fresh_until:
                if (lease := store.find(asked.need, now)) is not None:
                    return self._taken(store, lease, asked, now)
                if (again := store.refused_before(asked.least, now)) is not None:
                    return self._taken(store, None, asked, now, again)
            booked = self._stores.booked(store)
            try:
                store = await self._stores.ask(digest, asked, least=least)
            except QuotaExhausted as error:
                refused = error
                store = self._store(digest, asked)
                if store is None:
                    if asked.least != least:
                        continue
                    raise
                # Pieces that are too small each may be enough together.
                if not await self._stores.gathered(store, booked) and asked.least == least:
                    store.refuse(asked.least, refused, time.monotonic() + _REFUSAL_S)
                    raise
                continue
            break
        else:
            # The second refusal.
            store = self._store(digest, asked)
            if store is not None:
                store.refuse(asked.least, refused, time.monotonic() + _REFUSAL_S)
            raise refused
        store = await self._caught_up(digest, store, asked, least)
        now = time.monotonic()
        return self._taken(store, store.find(asked.need, now), asked, now)

    async def _caught_up(self, digest: bytes, store: LeaseStore, asked: Asked, least: Amount) -> LeaseStore:
        """Ask again where what was lent for this request is gone: others, who need not wait, took it meanwhile, or auth
        had it given back."""
        for _ in range(_OVERTAKEN):
            now = time.monotonic()
            if any(lease.has(asked.least, now) for lease in store.leases):
                break
            booked = self._stores.booked(store)
            try:
                store = await self._stores.ask(digest, asked, least=least)
            except QuotaExhausted:
                if not await self._stores.gathered(store, booked):
                    break
        return store

    def _taken(
        self, store: LeaseStore, lease: Lease | None, asked: Asked, now: float, refused: QuotaExhausted | None = None
    ) -> Reservation:
        if not store.verified_key.may(asked.operation, asked.provider, asked.model):
            raise permissions.refused(asked.model or asked.provider)
        amount = asked.need
        if lease is None:
            enough = [lease for lease in store.leases if lease.has(asked.least, now)]
            if not enough:
                raise refused or QuotaExhausted(
                    "others took what was left of the quota meanwhile; try again", retry_after_s=1.0
                )
            lease = max(enough, key=lambda lease: lease.free.at_most(amount))
            amount = amount.at_most(lease.free)
        store.used_at = now
        return store.reserve(
            lease, amount, operation=asked.operation, request_id=asked.request_id, cost=asked.cost, now=now
        )


def _entered(store: LeaseStore, now: float, need: Amount = NOTHING) -> bool:
    """Begin a request in its paces if that needs no call. Raises RateLimited, which tells what is left."""
    try:
        return entered(store.paces, now, need)
    except RateLimited as refused:
        refused.headers = tuple(ratelimit.headers(store.verified_key.remaining()))
        raise
