"""The keys that this process holds, and how it asks auth for them."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple

import grpc

from moa.quota.v1 import quota_pb2, quota_service_pb2, quota_service_pb2_grpc
from services.catalogue import Cost
from services.common.credential import Credential
from services.common.errors import MoaError, RateLimited, Unauthenticated, Unavailable
from services.common.rpc import call as calls
from services.common.rpc import status
from services.common.rpc.client import metadata
from services.common.throttle import Throttle
from services.quota_client._lease_store import FIRST_TIMES, LeaseStore, Lend
from services.quota_client._pace import Paces
from services.quota_client._settling import Settling
from services.quota_client.amounts import NOTHING, Amount

CALL_S: Final = 3.0
"""How long auth is waited for: a caller is told then that accounts cannot be reached."""
_PAUSES_S: Final = (0.05, 0.2)
_POOR_S: Final = 1.0
"""How long nothing is leased ahead of need for a key of which there was little to get."""
_UNKNOWN_S: Final = 1.0
_UNKNOWN_COUNT: Final = 10_000
_GUESSES: Final = 30
"""Wrong keys that one address may try at once, before it has to wait a second for each."""


class Asked(NamedTuple):
    """What one request asks for."""

    key: str
    operation: quota_pb2.Operation.ValueType
    provider: str
    model: str
    need: Amount
    least: Amount
    """What will do where `need` cannot be had."""
    cost: Cost
    request_id: str
    key_id: str = ""
    """The key's id, where another service acts for its account; `key` is a grant then."""
    tags: tuple[str, ...] = ()

    @property
    def running(self) -> str:
        """The id of the request that runs and needs more; empty: it is to begin."""
        return "" if self.key else self.request_id


class LeaseStores:
    """Holdings by key.

    Args:
        stub: Auth.
        service_token: The internal credential.
        holder: This process's name, unique.
        settling: Who books.
        paces: What this process may do of paces.
        there: Returns when auth is there, or is not waited for.
        lend: Returns a further reservation for a request that runs.
        call_s: How long an answer of auth is waited for.
    """

    def __init__(
        self,
        stub: quota_service_pb2_grpc.QuotaServiceAsyncStub,
        *,
        service_token: Credential,
        holder: str,
        settling: Settling,
        paces: Paces,
        there: Callable[[], Awaitable[None]],
        lend: Lend | None = None,
        call_s: float = CALL_S,
    ) -> None:
        self._stub = stub
        self._call_s = call_s
        self._auth_there = there
        self._lend = lend
        self._token = service_token
        self._holder = holder
        self._settling = settling
        self._paces = paces
        self.by_digest: dict[bytes, LeaseStore] = {}
        """What may be used."""
        self.by_key_id: dict[str, LeaseStore] = {}
        """These, and those whose key ended while requests ran under it."""
        self.taken = asyncio.Event()
        """Set whenever auth was asked about a key: there is something to keep fresh."""
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._guesses = Throttle(tries=_GUESSES, every_s=1.0)
        self._tasks: set[asyncio.Task[object]] = set()
        self._returned = 0

    async def ask(self, digest: bytes, asked: Asked, *, least: Amount) -> LeaseStore:
        """Ask auth; what it grants is kept even when the caller leaves meanwhile."""
        now = time.monotonic()
        if self._unknown.get(digest, 0.0) > now:
            raise Unauthenticated("the API key is not valid; send it whole, or one that is not expired or revoked")
        task = asyncio.create_task(self._admit(digest, asked, least))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_unheard)
            raise

    def top_up_ahead(self, store: LeaseStore, now: float) -> None:
        """Lease more in the background before what is leased runs dry."""
        if store.topping_up is None and now >= store.poor_until and store.low():
            store.topping_up = asyncio.create_task(self._topped_up(store))
            self._tasks.add(store.topping_up)
            store.topping_up.add_done_callback(self._tasks.discard)

    def all(self) -> Iterable[LeaseStore]:
        """Yield the stores of keys, each with those of its lanes behind it."""
        for store in self.by_key_id.values():
            yield store
            yield from store.lanes.values()

    def for_request(
        self, store: LeaseStore, provider: str, model: str, tags: tuple[str, ...], now: float
    ) -> LeaseStore:
        """Return the store of a key from which a request is served: by the budgets on which it counts."""
        lane = store.budgets.of(provider, model, tags) if store.budgets is not None else ()
        found = self._lane(store, lane, now) if lane else store
        found.used_at = now
        return found

    def _lane(self, key: LeaseStore, lane: tuple[str, ...], now: float) -> LeaseStore:
        found = key.lanes.get(lane)
        if found is None:
            grant = key.verified_key.grant
            digest = b"|".join((key.digest, *(name.encode() for name in lane)))
            found = LeaseStore(
                digest,
                grant,
                now,
                self._settling,
                self._paces,
                self.give_back,
                self._lend,
                parent=key,
                lane=lane,
            )
            found.fresh_until = key.fresh_until
            key.lanes[lane] = self.by_digest[digest] = found
        return found

    def give_back(self, store: LeaseStore) -> None:
        """Return what is held for a key and not reserved."""
        pieces: list[tuple[quota_pb2.LeaseReturn, float]] = []
        for lease in store.leases:
            if not lease.free:
                continue
            self._returned += 1
            piece = quota_pb2.LeaseReturn(
                return_id=f"{self._holder}.{self._returned}",
                lease_id=lease.lease_id,
                amount=lease.free.message(),
            )
            lease.free = NOTHING
            pieces.append((piece, lease.alive_until))
        if pieces:
            store.returning = [*self._settling.unreturned(store.returning), *(piece.return_id for piece, _ in pieces)]
            self._settling.give_back(pieces)

    def booked(self, store: LeaseStore | None) -> frozenset[str]:
        """Return the returns of what was idle of a key that auth has confirmed, of the last ones."""
        names = _returns(store) if store is not None else []
        return frozenset(names).difference(self._settling.unreturned(names))

    async def gathered(self, store: LeaseStore, booked: frozenset[str]) -> bool:
        """Have at auth what of a key is idle here or under way; tell whether anything came there since `booked` was so.

        What is given back is neither here nor there until auth has booked it, and so is what is leased ahead of need
        until its answer is heard: a request of the same key that was refused meanwhile is to ask again.
        """
        of_key = list(store.of_key())
        if ahead := [one.topping_up for one in of_key if one.topping_up is not None]:
            await asyncio.wait(ahead)
        if any(one.free() for one in of_key):
            for one in of_key:
                self.give_back(one)
        names = _returns(store)
        await self._settling.flush_returns(names)
        return not booked.issuperset(names)

    def give_up(self, key: LeaseStore) -> None:
        """Return what is idle of a key because others need it, and lease nothing ahead of need for a while."""
        until = time.monotonic() + _POOR_S
        for store in key.of_key():
            store.poor_until = until
            self.give_back(store)

    def end(self, digest: bytes) -> None:
        """Refuse a key from now on; what runs under it goes on."""
        ended = self.by_digest.pop(digest, None)
        for one in ended.lanes.values() if ended is not None else ():
            self.by_digest.pop(one.digest, None)
        self._unknown[digest] = time.monotonic() + _UNKNOWN_S
        self._unknown.move_to_end(digest)
        while len(self._unknown) > _UNKNOWN_COUNT:
            self._unknown.popitem(last=False)

    def forget(self, digest: bytes) -> None:
        """Take a key for granted no more: auth says with the next request why it is refused. What runs goes on."""
        self.by_digest.pop(digest, None)

    def drop(self, store: LeaseStore) -> None:
        """Forget a key that nobody uses, or a lane of one; it is asked for anew when somebody does."""
        if store.parent is None:
            self.by_key_id.pop(store.verified_key.key_id, None)
        else:
            store.parent.lanes.pop(store.lane, None)
        for one in (store, *store.lanes.values()):
            if self.by_digest.get(one.digest) is one:
                del self.by_digest[one.digest]

    async def close(self) -> None:
        """Let what was asked end, and give every lease back."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for store in self.all():
            self.give_back(store)

    async def _admit(self, digest: bytes, asked: Asked, least: Amount) -> LeaseStore:
        store = self.by_digest.get(digest)
        asked_at = time.monotonic()
        want = wanted = asked.need * FIRST_TIMES
        if store is not None and asked.need:
            wanted = store.demand.next(asked.need, asked_at)
            want = wanted.at_least(store.waiting)
        request = quota_service_pb2.AdmitRequest(
            api_key=asked.key,
            holder=self._holder,
            operation=asked.operation,
            provider=asked.provider,
            model=asked.model,
            need=asked.need.message(),
            want=want.message(),
            least=least.message(),
            tags=asked.tags,
            budgets=store.lane if store is not None else (),
            budgets_known=True,
            alone=store is None or store.is_alone(asked.need, asked.running),
        )
        if asked.key_id:
            request.key_id = asked.key_id
        address = calls.current().address
        request.address = address
        try:
            answer, asked_at = await self._call(request, asked.request_id)
        except RateLimited:
            # A wrong key, from an address that has tried many.
            self.end(digest)
            raise
        except Unauthenticated:
            self.end(digest)
            if address:
                self._guesses.check(address)
            raise
        store = self._take(digest, answer.grant, asked_at)
        # Who asked has yet to take it up: a key that was long unused gives back what it holds.
        store.used_at = time.monotonic()
        if asked.need:
            store.demand.helped(wanted, Amount.read_lease(answer.grant.lease.amount), asked_at)
        return store

    async def _call(
        self, request: quota_service_pb2.AdmitRequest, request_id: str
    ) -> tuple[quota_service_pb2.AdmitResponse, float]:
        """Return the answer, and when it was asked for: a lease counts from then."""
        for pause_s in (*_PAUSES_S, None):
            await self._auth_there()
            asked_at = time.monotonic()
            try:
                sent = metadata(self._token, request_id)
                return await self._stub.Admit(request, metadata=sent, timeout=self._call_s), asked_at
            except grpc.aio.AioRpcError as failure:
                told = _told(failure)
                if failure.code() == grpc.StatusCode.DEADLINE_EXCEEDED and not told:
                    raise Unavailable("accounts cannot be reached now; try again", retry_after_s=1) from failure
                if pause_s is None or told or failure.code() not in status.GONE:
                    raise status.error_from_rpc(failure) from failure
                # The replica is gone or restarting. An unheard grant costs its lease's time, never quota.
                await asyncio.sleep(pause_s)
        raise AssertionError("unreachable")

    def _take(self, digest: bytes, grant: quota_pb2.Grant, asked_at: float) -> LeaseStore:
        """Take a grant over; return the store that its lease is in."""
        known = self.by_digest.get(digest)
        key = known.parent or known if known is not None else self.by_key_id.get(grant.key_id)
        lane = tuple(grant.lease.budgets)
        if key is None:
            key = LeaseStore(digest, grant, asked_at, self._settling, self._paces, self.give_back, self._lend)
        else:
            key.take(grant, asked_at)
        if known is None:
            self.by_digest[digest] = key
        self.by_key_id[grant.key_id] = key
        self._unknown.pop(digest, None)
        self.taken.set()
        # One that is new takes the lease of the grant when it is made.
        return self._lane(key, lane, asked_at) if lane else key

    async def _topped_up(self, store: LeaseStore) -> None:
        asked_at = time.monotonic()
        wanted = store.demand.next(NOTHING, asked_at)
        request = quota_service_pb2.AdmitRequest(
            key_id=store.verified_key.key_id,
            holder=self._holder,
            want=wanted.message(),
            budgets=store.lane,
            budgets_known=True,
        )
        try:
            answer, asked_at = await self._call(request, "")
        except MoaError:
            # Too little is free, or auth is away. Who needs more will ask, and be told.
            store.poor_until = asked_at + _POOR_S
        else:
            self._take(store.digest, answer.grant, asked_at)
            store.demand.helped(wanted, Amount.read_lease(answer.grant.lease.amount), asked_at)
            if store.low():
                # There was little to get: to ask again at each request brings no more.
                store.poor_until = asked_at + _POOR_S
        finally:
            store.topping_up = None


def _returns(store: LeaseStore) -> list[str]:
    """Return the last returns of what was idle of a store's key."""
    return [name for one in store.of_key() for name in one.returning]


def _unheard(task: asyncio.Task[LeaseStore]) -> None:
    """Take the end of a call whose caller left: a refusal is none of the log's, anything else is."""
    failure = None if task.cancelled() else task.exception()
    if failure is not None and not isinstance(failure, MoaError):
        task.get_loop().call_exception_handler(
            {"message": "auth's answer was lost", "exception": failure, "task": task}
        )


def _told(failure: grpc.aio.AioRpcError) -> bool:
    """Return whether auth itself answered, rather than the connection."""
    return any(name == status.DETAILS_KEY for name, _ in failure.trailing_metadata() or ())
