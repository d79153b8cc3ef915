"""Books settlements in the background: batched, retried, remembered in a journal until auth has them.

The first after a quiet while is booked at once; then a batch follows every half second, or when it is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2, quota_service_pb2, quota_service_pb2_grpc
from services.common import logs
from services.common.cancelling import cancel_and_wait
from services.common.credential import Credential
from services.common.isolate import note_failure
from services.common.rpc.client import metadata
from services.quota_client._journal import Journal, Left

_log = logs.get("settling")

EVERY_S: Final = 0.5
"""How far batches of settlements are apart: what auth and its database take for one hardly grows with it."""
_SOON_S: Final = 0.05
"""How long more is waited for after a quiet while, and by who has no journal."""
_BATCH: Final = 500
_CALL_S: Final = 10.0
_LONGEST_PAUSE_S: Final = 1.0
_WORTH_COMPACTING_BYTES: Final = 256 * 1024
_LONGEST_REST_S: Final = 60.0


LOOKED_S: Final = 1.0
"""How often it is tried whether a disk that was full has room again."""


class Recording(NamedTuple):
    """Whether what requests consume can be recorded here."""

    fault: str = ""
    """Why the journal cannot be written; empty: it can. What is consumed is booked all the same while auth answers."""
    refuses: bool = False
    """Whether requests are refused: what they consumed could be neither booked nor kept."""


class _Unbooked(NamedTuple):
    """A settlement that auth could neither book nor refuse."""

    pause_s: float
    until: float


_DUE: Final = _Unbooked(0.5, 0.0)


DEFERRED_S: Final = 8.0
"""Longer than a backend waits with its word on a call that was left (`abandoned.AFTER_S`), and sends it."""

Known = Callable[[quota_pb2.Amount, usage_pb2.Usage], None]
"""Hears what was charged, and the consumption in detail."""


class Settling:
    """Takes settlements and returns, and sees them booked.

    Args:
        folder: Where journals lie; None: nothing survives this process but what was booked.
        holder: This process's name, unique.
        deferred_s: How long a backend's word on a call that was left is waited for.
        every_s: How far batches are apart, where a journal keeps what waits.
    """

    def __init__(
        self,
        stub: quota_service_pb2_grpc.QuotaServiceAsyncStub,
        *,
        service_token: Credential,
        folder: Path | None,
        holder: str,
        deferred_s: float = DEFERRED_S,
        every_s: float = EVERY_S,
    ) -> None:
        self._stub = stub
        self._token, self._request_id = service_token, f"settle-{holder}"
        self._journal = Journal(folder, holder) if folder else None
        self._pending: dict[str, quota_pb2.Settlement] = {}
        self._unbooked: dict[str, _Unbooked] = {}
        self._returns: dict[str, tuple[quota_pb2.LeaseReturn, float]] = {}
        self._open: dict[str, None] = {}
        self._left: list[tuple[Left, set[str]]] = []
        self._kept: list[Left] = []
        self._unreported = False
        self._failing = False
        self._failed_at = -math.inf
        """When auth was last asked in vain."""
        self._deferred: dict[str, tuple[asyncio.TimerHandle, Known]] = {}
        self._returns_first = False
        self._known: dict[str, Known] = {}
        """Who hears what was booked of a reservation deferred, once it is."""
        self._deferred_s = deferred_s
        self._every_s = every_s if folder else _SOON_S
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        """Set when no more is waited for: there is a batch, or quota that others may need."""
        self._task: asyncio.Task[None] | None = None

    @property
    def overwhelmed(self) -> bool:
        """Whether what is consumed now could be neither booked nor kept: auth is away, and the journal's disk full."""
        return self._failing and self._journal is not None and self._journal.behind

    @property
    def recording(self) -> Recording:
        """Return whether what is consumed now can be recorded."""
        return Recording(self._journal.fault if self._journal is not None else "", self.overwhelmed)

    @property
    def waiting(self) -> int:
        """How many settlements auth does not have yet."""
        return len(self._pending)

    def start(self) -> list[str]:
        """Begin, with what earlier processes left; give the reservations that they left open."""
        opened: list[str] = []
        for left in self._journal.left() if self._journal else ():
            mine: set[str] = set()
            whole = True
            for serialized in left.settlements:
                try:
                    settlement = quota_pb2.Settlement.FromString(serialized)
                except DecodeError as error:
                    note_failure("journal", left.path.name, error)
                    whole = False
                    continue
                self._pending[settlement.reservation_id] = settlement
                mine.update((settlement.reservation_id, *settlement.further))
            opened.extend(reservation_id for reservation_id in left.opened if reservation_id not in mine)
            if whole:
                self._left.append((left, mine))
            else:
                # Another version wrote it: it is kept for one that can read it. What could be read is booked once.
                self._kept.append(left)
            _log.info("journal.replayed", settlements=len(mine), opened=len(left.opened))
        self._unreported = bool(opened)
        self._task = asyncio.create_task(self._run(), name="settling")
        if self._left or self._pending:
            self._wake.set()
        return opened

    def orphans_reported(self) -> None:
        """Note that auth knows of the reservations that earlier processes left open: their journals may go."""
        self._unreported = False
        self._wake.set()

    async def stop(self, within_s: float) -> None:
        """Book what is waiting, for `within_s` at most; the rest stays in the journal."""
        await cancel_and_wait(self._task)
        self._task = None
        for handle, _ in self._deferred.values():
            handle.cancel()
        self._deferred.clear()
        until = time.monotonic() + within_s
        while (self._pending or self._returns) and time.monotonic() < until:
            if not await self._flush() or self._unbooked:
                await asyncio.sleep(0.1)
        for left in (*self._kept, *(left for left, _ in self._left)):
            Journal.postpone(left)
        self._left, self._kept = [], []
        if self._journal:
            self._journal.close(keep=bool(self._pending or self._open))
            self._journal = None

    def opened(self, reservation_id: str) -> None:
        """Note that a reservation was made."""
        self._open[reservation_id] = None
        if self._journal:
            try:
                self._journal.opened(reservation_id)
            except OSError as error:
                self._unwritten(error)

    def settled(self, settlement: quota_pb2.Settlement, *, after_returns: bool = False) -> None:
        """Take a settlement: durable at once, booked soon; with `after_returns`, after what was given back before."""
        self._returns_first = self._returns_first or after_returns
        self._open.pop(settlement.reservation_id, None)
        if self._journal:
            try:
                self._journal.settled(settlement.SerializeToString())
            except OSError as error:
                # What is in memory is still booked.
                self._unwritten(error)
        self._pending[settlement.reservation_id] = settlement
        self._wake.set()
        if len(self._pending) >= _BATCH and self._due() >= _BATCH:
            self._hurry.set()

    def covered(self, names: Iterable[str]) -> None:
        """Note that further reservations are settled with their first, which names them."""
        for name in names:
            self._open.pop(name, None)

    def deferred(self, settlement: quota_pb2.Settlement, known: Known) -> None:
        """Take a settlement that counts only if nobody else books the reservation meanwhile; `known` hears what does.

        Not durable before its time: should this process end, the backend's word or the last report counts. While auth
        is away no word reaches it, so that the time is counted from when it was last asked in vain.
        """
        self._defer(settlement, known, self._deferred_s)

    def _defer(self, settlement: quota_pb2.Settlement, known: Known, wait_s: float) -> None:
        handle = asyncio.get_running_loop().call_later(wait_s, self._decided, settlement)
        self._deferred[settlement.reservation_id] = handle, known

    def _decided(self, settlement: quota_pb2.Settlement) -> None:
        wait_s = self._failed_at + self._deferred_s - time.monotonic()
        if wait_s > 0:
            self._defer(settlement, self._deferred[settlement.reservation_id][1], wait_s)
            return
        _, self._known[settlement.reservation_id] = self._deferred.pop(settlement.reservation_id)
        self.settled(settlement)
        self.covered(settlement.further)

    def failed(self) -> None:
        """Note that auth was asked in vain, by whoever asks it."""
        self._failed_at = time.monotonic()

    def released(self, reservation_id: str) -> None:
        """Note that nothing was consumed."""
        self._open.pop(reservation_id, None)
        if self._journal:
            try:
                self._journal.released(reservation_id)
            except OSError as error:
                self._unwritten(error)

    def _unwritten(self, error: OSError) -> None:
        """Note that the journal could not be written: its disk is looked at from now on."""
        _log.error("journal.failed", why=error.strerror)
        self._wake.set()

    def give_back(self, pieces: Iterable[tuple[quota_pb2.LeaseReturn, float]]) -> None:
        """Take pieces of leases to return, each with the time after which it is no use (its lease ended by itself)."""
        for piece, until in pieces:
            self._returns[piece.return_id] = (piece, until)
        if self._returns:
            self._wake.set()
            self._hurry.set()

    def unreturned(self, names: Iterable[str]) -> list[str]:
        """Return those of some returns that auth has not confirmed yet."""
        return [name for name in names if name in self._returns]

    async def flush_returns(self, names: Iterable[str]) -> None:
        """Return now what auth has not confirmed of these; what fails is tried again later.

        What is under way is sent once more: auth books it once, and answers when that is done.
        """
        pieces = [self._returns[name][0] for name in self.unreturned(names)]
        try:
            for start in range(0, len(pieces), _BATCH):
                await self._send(pieces[start : start + _BATCH])
        except grpc.aio.AioRpcError as failure:
            _log.warning("returns.postponed", code=failure.code().name)

    async def _run(self) -> None:
        pause_s = _SOON_S
        next_at = 0.0
        while True:
            await self._woken()
            if self._due() < _BATCH:
                await asyncio.sleep(_SOON_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(next_at - time.monotonic()):
                        await self._hurry.wait()
            self._hurry.clear()
            next_at = time.monotonic() + self._every_s
            if await self._flush():
                pause_s = _SOON_S
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
            if not self._pending and not self._returns:
                self._wake.clear()

    async def _woken(self) -> None:
        """Return when something is to be booked; until then look whether a full disk has room again."""
        while not self._wake.is_set():
            behind = self._journal is not None and self._journal.behind
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOKED_S if behind else None):
                    await self._wake.wait()
                    return
            self._catch_up()

    def _due(self) -> int:
        return len(self._pending) - len(self._unbooked)

    async def _flush(self) -> bool:
        try:
            if self._returns_first:
                await self._return()
                self._returns_first = False
            await self._settle()
            await self._return()
        except grpc.aio.AioRpcError as failure:
            _log.warning("settling.postponed", code=failure.code().name, waiting=len(self._pending))
            self._failing = True
            self.failed()
            self._catch_up()
            return False
        except Exception:
            # A bug must not end the only thing that books.
            _log.exception("settling.failed", waiting=len(self._pending))
            return False
        self._failing = False
        self._tidy()
        return True

    async def _settle(self) -> None:
        now = time.monotonic()
        due = (one for one in self._pending.values() if self._unbooked.get(one.reservation_id, _DUE).until <= now)
        batch = list(islice(due, _BATCH))
        if not batch:
            return
        request = quota_service_pb2.SettleRequest(settlements=batch)
        answer = await self._stub.Settle(request, metadata=metadata(self._token, self._request_id), timeout=_CALL_S)
        before = {known.reservation_id: known for known in answer.known}
        for reservation_id in (*answer.booked, *answer.refused):
            settlement = self._pending.pop(reservation_id, None)
            self._unbooked.pop(reservation_id, None)
            if settlement is not None and (known := self._known.pop(reservation_id, None)) is not None:
                stands = before.get(reservation_id, settlement)
                known(stands.charged, stands.usage)
        for settlement in batch:
            # Auth fails on this one alone: it waits, longer each time, and the others go on.
            if settlement.reservation_id in self._pending:
                pause_s = min(_LONGEST_REST_S, 2 * self._unbooked.get(settlement.reservation_id, _DUE).pause_s)
                self._unbooked[settlement.reservation_id] = _Unbooked(pause_s, now + pause_s)
        if answer.refused:
            _log.error("settlements.refused", reservations=list(answer.refused))

    async def _return(self) -> None:
        now = time.monotonic()
        self._returns = {name: item for name, item in self._returns.items() if item[1] > now}
        batch = [piece for piece, _ in islice(self._returns.values(), _BATCH)]
        if batch:
            await self._send(batch)

    async def _send(self, batch: Sequence[quota_pb2.LeaseReturn]) -> None:
        request = quota_service_pb2.ReturnLeasesRequest(returns=batch)
        await self._stub.ReturnLeases(request, metadata=metadata(self._token, self._request_id), timeout=_CALL_S)
        for piece in batch:
            self._returns.pop(piece.return_id, None)

    def _tidy(self) -> None:
        for left, mine in list(self._left) if not self._unreported else ():
            if mine.isdisjoint(self._pending):
                Journal.forget(left)
                self._left.remove((left, mine))
        journal = self._journal
        if journal and (journal.full or (not self._pending and journal.size > _WORTH_COMPACTING_BYTES)):
            self._compact(journal)
        else:
            self._catch_up()

    def _catch_up(self) -> None:
        """Write what a full disk did not take."""
        if self._journal and self._journal.behind:
            self._compact(self._journal)

    def _compact(self, journal: Journal) -> None:
        try:
            journal.compact([s.SerializeToString() for s in self._pending.values()], list(self._open))
        except OSError as error:
            # The old content stands.
            _log.error("journal.failed", why=error.strerror)
