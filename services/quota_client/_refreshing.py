"""Keeps what this process holds fresh: keys verified again, leases renewed, open reservations reported, idle ones given
back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import grpc

from moa.quota.v1 import quota_pb2, quota_service_pb2, quota_service_pb2_grpc
from services.common import logs
from services.common.beats import until_beat_s
from services.common.cancelling import cancel_and_wait
from services.common.credential import Credential
from services.common.rpc.client import metadata
from services.quota_client._lease_store import LeaseStore
from services.quota_client._lease_stores import LeaseStores
from services.quota_client._pace import Paces
from services.quota_client._reservation import Lease, Reservation
from services.quota_client._settling import Settling

_log = logs.get("admission")

ROUND_S: Final = 0.4
_CALL_S: Final = 1.0
_ACTIVE_S: Final = 10.0
_FRESH_S: Final = 2.0
"""No key may be used for longer than this without asking auth (`AuthSettings.fresh_s`)."""
REST_S: Final = 5.0
_KEEP_S: Final = 60.0
_IDLE_LEASE_S: Final = 5.0
_REPORT_S: Final = 1.0
_KEYS_A_CALL: Final = 500
"""Few enough that neither this process nor auth is held up by one call."""
_REPORTS_A_CALL: Final = 1000
RENEW_S: Final = 2.0
"""In a round that takes longer, leases are renewed meanwhile."""
_AWAY: Final = 2
"""Calls that fail in a row before a round is given up."""


class Refreshing:
    """The rounds of one process.

    Args:
        stub: Auth.
        service_token: The internal credential.
        holder: This process's name, unique.
        stores: What is kept fresh.
        paces: What is kept fresh too.
        settling: Whose journal remembers what earlier processes left open; it hears of every call in vain.
    """

    def __init__(
        self,
        stub: quota_service_pb2_grpc.QuotaServiceAsyncStub,
        *,
        service_token: Credential,
        holder: str,
        stores: LeaseStores,
        settling: Settling,
        paces: Paces,
    ) -> None:
        self._stub = stub
        self._token, self._request_id = service_token, ""
        self._holder = holder
        self._stores = stores
        self._settling = settling
        self._paces = paces
        self._orphans: Sequence[str] = ()
        self._turn = 0
        self._task: asyncio.Task[None] | None = None

    def start(self, orphans: Sequence[str]) -> None:
        """Begin; `orphans` are the reservations that earlier processes left open."""
        self._orphans = orphans
        self._task = asyncio.create_task(self._run(), name="admission")

    async def stop(self) -> None:
        """End."""
        await cancel_and_wait(self._task)
        self._task = None

    async def _run(self) -> None:
        while True:
            if self._orphans or self._paces.busy() or self._in_use():
                await asyncio.sleep(ROUND_S)
            else:
                await self._rest()
            try:
                await self.round()
            except Exception:
                # A bug must not let every key go stale.
                _log.exception("refresh.failed")

    def _in_use(self) -> bool:
        """Return whether any key runs something, or could be used without asking auth first."""
        within = time.monotonic() - _ACTIVE_S - _FRESH_S
        return any(store.open or store.used_at > within for store in self._stores.all())

    async def _rest(self) -> None:
        """Wait until auth is asked about a key, or for so long: keys that nobody uses are to be forgotten."""
        self._stores.taken.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(until_beat_s(REST_S)):
                await self._stores.taken.wait()

    async def round(self) -> None:
        """Verify every active key again, renew leases, and give back what nobody uses."""
        now = time.monotonic()
        active: list[LeaseStore] = []
        for store in list(self._stores.all()):
            idle_s = now - store.used_at
            if idle_s > _IDLE_LEASE_S:
                self._stores.give_back(store)
            # A key is asked about while any lane of it runs something.
            if store.open or idle_s < _ACTIVE_S or any(lane.open for lane in store.lanes.values()):
                active.append(store)
            elif idle_s > _KEEP_S:
                self._stores.drop(store)
        try:
            await self._refresh_all(active)
        finally:
            await self._paces.round()

    async def _refresh_all(self, active: list[LeaseStore]) -> None:
        """Ask about all keys in several calls. Where two in a row fail, auth is away: the next round begins behind."""
        turn = self._turn % max(1, len(active))
        active = active[turn:] + active[:turn]
        failures: list[grpc.aio.AioRpcError] = []
        renewed_at = time.monotonic()
        for start in range(0, max(len(active), 1 if self._orphans else 0), _KEYS_A_CALL):
            try:
                now = time.monotonic()
                if now - renewed_at > RENEW_S:
                    # An auth that has to read the keys takes its time; no lease may end for it.
                    renewed_at = now
                    await self._renew(active, now)
                await self._refresh(active[start : start + _KEYS_A_CALL], time.monotonic())
                failures.clear()
            except grpc.aio.AioRpcError as failure:
                _log.warning("refresh.failed", code=failure.code().name)
                self._settling.failed()
                failures.append(failure)
                if len(failures) == _AWAY:
                    self._turn = turn + start + _KEYS_A_CALL
                    return

    async def _renew(self, active: list[LeaseStore], asked_at: float) -> None:
        """Renew the leases that are due, whatever has become of their keys."""
        due = _due(active, asked_at)
        names = list(due)
        for start in range(0, len(names), _KEYS_A_CALL):
            request = quota_service_pb2.RefreshRequest(
                holder=self._holder, lease_ids=names[start : start + _KEYS_A_CALL]
            )
            answer = await self._stub.Refresh(
                request, metadata=metadata(self._token, self._request_id), timeout=_CALL_S
            )
            for granted in answer.leases:
                due[granted.lease_id].renew(granted, asked_at)

    async def _refresh(self, active: list[LeaseStore], asked_at: float) -> None:
        """Ask about some keys, in a call whose size and time are bounded."""
        leases = _due(active, asked_at)
        reported = list(islice(_aged(active, asked_at), _REPORTS_A_CALL))
        orphans = self._orphans[:_REPORTS_A_CALL]
        keys = [store for store in active if store.parent is None]
        request = quota_service_pb2.RefreshRequest(
            holder=self._holder,
            key_ids=[store.verified_key.key_id for store in keys],
            versions=[store.version for store in keys],
            lease_ids=list(leases),
            open=[*map(_open, reported), *map(_orphaned, orphans)],
        )
        for reservation in reported:
            # Before the call: one that is released meanwhile must take the report back.
            reservation.reported_at = asked_at
        answer = await self._stub.Refresh(request, metadata=metadata(self._token, self._request_id), timeout=_CALL_S)
        if not answer.reported:
            self._settling.failed()
        elif orphans:
            self._orphans = self._orphans[len(orphans) :]
            if not self._orphans:
                self._settling.orphans_reported()
        for place in answer.unchanged:
            if keys[place].version == request.versions[place]:  # else it has another by now
                keys[place].keep(asked_at)
        for place in answer.wanted:
            self._stores.give_up(keys[place])
        for grant in answer.grants:
            store = self._stores.by_key_id.get(grant.key_id)
            if store is not None:
                store.take(grant, asked_at)
        for key_id in answer.ended_key_ids:
            ended = self._stores.by_key_id.get(key_id)
            if ended is not None:
                self._stores.forget(ended.digest)
        for granted in answer.leases:
            leases[granted.lease_id].renew(granted, asked_at)


def _due(active: Iterable[LeaseStore], now: float) -> dict[str, Lease]:
    """Return the leases that are to be renewed, by their ids."""
    return {
        lease.lease_id: lease
        for store in active
        for lease in store.leases
        if now > lease.renew_after and (lease.open or lease.free)
    }


def _aged(active: Iterable[LeaseStore], now: float) -> Iterable[Reservation]:
    """Return the reservations that auth should know of, should this process vanish."""
    for store in active:
        for reservation in store.open.values():
            if now - (reservation.reported_at or reservation.made_at) > _REPORT_S:
                yield reservation


def _open(reservation: Reservation) -> quota_pb2.OpenReservation:
    return quota_pb2.OpenReservation(so_far=reservation.report_of())


def _orphaned(reservation_id: str) -> quota_pb2.OpenReservation:
    return quota_pb2.OpenReservation(so_far=quota_pb2.Settlement(reservation_id=reservation_id))
