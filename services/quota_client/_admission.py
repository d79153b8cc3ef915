"""Admission: verified keys and leased quota, cached, so that a warm key costs no call."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from moa.quota.v1 import quota_pb2, quota_service_pb2_grpc
from services.catalogue import Cost
from services.common.credential import Credential
from services.common.errors import (
    QuotaExhausted,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from services.common.rpc.client import ConnectionWatch
from services.quota_client import grants, permissions, ratelimit
from services.quota_client._lease_store import LeaseStore
from services.quota_client._lease_stores import CALL_S, Asked, LeaseStores
from services.quota_client._lending import Lending
from services.quota_client._pace import Paces
from services.quota_client._part import exact_of
from services.quota_client._refreshing import Refreshing
from services.quota_client._reservation import Reservation, costless
from services.quota_client._settling import DEFERRED_S, EVERY_S, Recording, Settling
from services.quota_client._share import entered
from services.quota_client._task_reservation import TaskReservation
from services.quota_client._upstream import UpstreamPaces
from services.quota_client._verified_key import VerifiedKey
from services.quota_client.amounts import NOTHING, Amount


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
            lend=lambda *asked: self._lending.lend(*asked),
            call_s=call_s,
        )
        self._lending = Lending(self._stores, self._paces)
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
        return await self._lending.reserve(digest, asked)

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
            return await self._lending.reserve(
                self._digest(grants.PREFIX + acting.key_id), asked._replace(key_id=acting.key_id)
            )
        verified_key = await self.identify(asked.key)
        if not verified_key.may(TaskReservation.operation, asked.provider, asked.model):
            raise permissions.refused(asked.model or asked.provider)
        if asked.need.tokens or asked.need.images > acting.images:
            raise QuotaExhausted("the reservation does not cover this request")
        return TaskReservation(verified_key, acting)


def _entered(store: LeaseStore, now: float, need: Amount = NOTHING) -> bool:
    """Begin a request in its paces if that needs no call. Raises RateLimited, which tells what is left."""
    try:
        return entered(store.paces, now, need)
    except RateLimited as refused:
        refused.headers = tuple(ratelimit.headers(store.verified_key.remaining()))
        raise
