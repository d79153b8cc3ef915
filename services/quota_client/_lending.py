"""Reservations that need auth's help: leases are asked for and gathered, one request of a key after another."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from services.common.errors import MoaError, QuotaExhausted, RateLimited
from services.quota_client import permissions, ratelimit
from services.quota_client._lease_store import LeaseStore
from services.quota_client._lease_stores import Asked, LeaseStores
from services.quota_client._pace import Paces
from services.quota_client._reservation import Lease, Reservation
from services.quota_client.amounts import NOTHING, Amount

_REFUSAL_S: Final = 0.25
_OVERTAKEN: Final = 5
"""So often is asked again for what others took, who came later and need not wait."""


class Lending:
    """Reserves what a lease store has not.

    Args:
        stores: The keys that this process holds, which ask auth.
        paces: What this process may do of paces.
    """

    def __init__(self, stores: LeaseStores, paces: Paces) -> None:
        self._stores = stores
        self._paces = paces
        self._arriving: dict[bytes, asyncio.Lock] = {}

    async def reserve(self, digest: bytes, asked: Asked) -> Reservation:
        """Reserve for a request that is to begin. Raises as `Admission.reserve` does."""
        try:
            return await self._in_pace(digest, asked, await self._lent(digest, asked))
        except (QuotaExhausted, RateLimited) as refused:
            await self._tell(refused, digest, asked)
            raise

    async def lend(self, store: LeaseStore, running: Reservation, need: Amount, least: Amount) -> Reservation:
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
        store = self._stores.by_digest.get(digest)
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
        known = self._stores.by_digest.get(digest)
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
