"""The pace that accounts and keys must keep: what of it this process may do, leased from auth as quota is.

A request of a paced key begins without a call while this process may begin one and has a slot for it to run in. What
it was allowed and does not use goes back within moments.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Final

import grpc

from moa.quota.v1 import quota_pb2, quota_service_pb2, quota_service_pb2_grpc
from services.common.errors import RateLimited
from services.common.rpc.client import metadata

_CALL_S: Final = 2.0
_BATCH: Final = 1000
_IDLE_S: Final = 2.0
_ACTIVE_S: Final = 10.0
_KEEP_S: Final = 120.0
_PEAK_S: Final = 1.0
_REFUSAL_S: Final = 0.25
_ALONE_S: Final = 5.0
_TRIES: Final = 4


class Share:
    """What this process may do of the pace of one account or key.

    Args:
        subject: The account's id or the key's.
        what: Which of the two it is, for people.
    """

    __slots__ = (
        "_alone_at",
        "_peak_at",
        "a_minute",
        "at_once",
        "free_starts",
        "holders",
        "key_id",
        "lock",
        "peak",
        "refused_until",
        "renew_after",
        "running",
        "slots",
        "slots_until",
        "starts",
        "subject",
        "used_at",
        "wait_until",
        "waiting",
        "what",
    )

    def __init__(self, subject: str, what: str, now: float) -> None:
        self.subject = subject
        self.what = what
        self.key_id = ""
        self.a_minute = 0
        self.at_once = 0
        self.starts = 0.0
        self.slots = 0
        self.slots_until = 0.0
        self.running = 0
        self.peak = 0
        self.holders = 1
        self.free_starts = 0
        self.used_at = now
        self.renew_after = 0.0
        self.refused_until = 0.0
        self.wait_until = 0.0
        self.waiting = 0
        self.lock = asyncio.Lock()
        self._peak_at = now
        self._alone_at = 0.0

    def ready(self, now: float) -> bool:
        """Return whether a request may begin; raise RateLimited where that was refused a moment ago."""
        if self._room(now):
            return True
        if now < self.refused_until:
            raise self.refusal(now)
        return False

    def begin(self, now: float) -> None:
        """Count a request that begins."""
        if self.a_minute:
            self.starts -= 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        self.used_at = now

    def end(self) -> None:
        """Count a request that ended."""
        self.running -= 1
        if self.at_once:
            # There is room again; a refusal for the rate's sake is asked about once more.
            self.refused_until = 0.0

    def refusal(self, now: float) -> RateLimited:
        """Return the refusal of a request that may not begin."""
        if self.at_once and self.running >= self.slots:
            return RateLimited(f"at most {self.at_once} requests at once for this {self.what}", retry_after_s=1)
        wait_s = max(self.wait_until - now, _REFUSAL_S)
        return RateLimited(f"at most {self.a_minute} requests a minute for this {self.what}", retry_after_s=wait_s)

    def take(self, told: quota_pb2.PaceShare, asked_at: float, *, began: bool) -> None:
        """Take over what auth gave; `began` tells whether a request waits for it."""
        lasts_s = told.expires_in.ToMilliseconds() / 1000
        self.starts += told.starts
        self.slots = told.slots
        self.slots_until = asked_at + lasts_s
        self.renew_after = asked_at + lasts_s / 4
        self.holders = max(1, told.holders)
        self.free_starts = told.free_starts
        self._alone_at = 0.0
        if began and not self._room(asked_at):
            wait_s = told.wait.ToMilliseconds() / 1000
            self.wait_until = asked_at + wait_s
            self.refused_until = asked_at + min(max(wait_s, _REFUSAL_S), 1.0)

    def _room(self, now: float) -> bool:
        return (not self.a_minute or self.starts >= 1) and (
            not self.at_once or (self.running < self.slots and now < self.slots_until)
        )

    def alone(self, now: float) -> None:
        """Go on while nobody can divide: with an equal part of the limit, as far as is known of others."""
        if self.at_once:
            self.slots = max(self.slots, math.ceil(self.at_once / self.holders))
            self.slots_until = now + _ALONE_S
        if self.a_minute:
            part = max(1.0, self.a_minute / self.holders)
            if self._alone_at:
                self.starts = min(part, self.starts + (now - self._alone_at) * part / 60)
            self._alone_at = now
            self.wait_until = now + max(0.0, 1 - self.starts) * 60 / part
        self.refused_until = now + _REFUSAL_S

    def due(self, now: float) -> quota_pb2.PaceNeed | None:
        """Return what there is to renew or return, which counts as gone from here on; None when there is nothing."""
        if now - self._peak_at > _PEAK_S:
            self._peak_at, self.peak = now, self.running
        idle_s = now - self.used_at
        returned = int(self.starts) if idle_s > _IDLE_S and not self._alone_at else 0
        spare = self.slots - max(self.running, self.peak)
        renews = now > self.renew_after and (self.running > 0 or idle_s < _ACTIVE_S)
        if not returned and spare <= 0 and not renews:
            return None
        self.starts -= returned
        self.slots = min(self.slots, max(self.running, self.peak))
        return quota_pb2.PaceNeed(
            key_id=self.key_id,
            subject=self.subject,
            returned_starts=returned,
            running=self.running,
            slots=self.slots,
            want_slots=self.slots,
        )

    def need(self) -> quota_pb2.PaceNeed:
        """Return what is needed for one more request, and what would spare the next ones a call."""
        return quota_pb2.PaceNeed(
            key_id=self.key_id,
            subject=self.subject,
            starts=0 if self.starts >= 1 else 1,
            want_starts=0 if self.starts >= 1 else max(self.waiting, self.a_minute),
            running=self.running,
            slots=self.running + 1,
            want_slots=max(self.running + self.waiting, self.at_once),
        )


class Paces:
    """The shares of this process.

    Args:
        stub: Auth.
        service_token: The internal credential.
        holder: This process's name, unique.
    """

    def __init__(self, stub: quota_service_pb2_grpc.QuotaServiceAsyncStub, *, service_token: str, holder: str) -> None:
        self._stub = stub
        self._metadata = metadata(service_token, "")
        self._holder = holder
        self._shares: dict[str, Share] = {}

    def of(self, grant: quota_pb2.Grant) -> tuple[Share, ...]:
        """Return the paces that bind a key; none for most."""
        found = []
        for subject, what, pace in (
            (grant.account_id, "account", grant.pace),
            (grant.counts_as or grant.key_id, "key", grant.key_pace),
            (grant.bound_by, "key's maker", grant.bound_pace),
        ):
            if not (pace.requests_per_minute or pace.concurrent_requests):
                continue
            share = self._shares.get(subject)
            if share is None:
                share = self._shares[subject] = Share(subject, what, time.monotonic())
            share.key_id = grant.key_id
            share.a_minute, share.at_once = pace.requests_per_minute, pace.concurrent_requests
            found.append(share)
        return tuple(found)

    async def enter(self, shares: Sequence[Share]) -> None:
        """Begin a request; the caller sees to `Share.end`. Raises RateLimited."""
        first = shares[0]
        first.waiting += 1
        try:
            async with AsyncExitStack() as stack:
                for share in shares:
                    await stack.enter_async_context(share.lock)
                await self._entered(shares)
        finally:
            first.waiting -= 1

    async def _entered(self, shares: Sequence[Share]) -> None:
        for _ in range(_TRIES):
            now = time.monotonic()
            lacking = [share for share in shares if not share.ready(now)]
            if not lacking:
                begin(shares, now)
                return
            await self._ask(lacking, [share.need() for share in lacking], began=True)
        # Requests that found room without asking took all of it.
        raise lacking[0].refusal(time.monotonic())

    def busy(self) -> bool:
        """Return whether any share runs something, or has something to renew or to return soon."""
        within = time.monotonic() - _ACTIVE_S
        return any(s.running or s.waiting or s.used_at > within for s in self._shares.values())

    async def round(self) -> None:
        """Renew what is in use, and return what is not."""
        now = time.monotonic()
        due: list[tuple[Share, quota_pb2.PaceNeed]] = []
        for share in list(self._shares.values()):
            if not share.running and not share.waiting and now - share.used_at > _KEEP_S:
                del self._shares[share.subject]
            elif not share.lock.locked() and (need := share.due(now)) is not None:
                # Nobody waits for it, so neither does this.
                await share.lock.acquire()
                due.append((share, need))
        try:
            for start in range(0, len(due), _BATCH):
                batch = due[start : start + _BATCH]
                await self._ask([share for share, _ in batch], [need for _, need in batch], began=False)
        finally:
            for share, _ in due:
                share.lock.release()

    async def _ask(self, shares: Iterable[Share], needs: Iterable[quota_pb2.PaceNeed], *, began: bool) -> None:
        asked_at = time.monotonic()
        request = quota_service_pb2.LeasePaceRequest(holder=self._holder, needs=needs)
        try:
            answer = await self._stub.LeasePace(request, metadata=self._metadata, timeout=_CALL_S)
        except grpc.aio.AioRpcError:
            # Pace protects and is not money: who cannot ask goes on, more carefully.
            for share in shares:
                share.alone(time.monotonic())
            return
        told = {share.subject: share for share in answer.shares}
        for share in shares:
            if share.subject in told:
                share.take(told[share.subject], asked_at, began=began)
            else:
                # It has no limit any more. A key that ended is refused elsewhere.
                share.a_minute = share.at_once = 0


def entered(shares: Sequence[Share], now: float) -> bool:
    """Begin a request if that needs no call, and tell so. Raises RateLimited where it was refused a moment ago."""
    for share in shares:
        if not share.ready(now):
            return False
    begin(shares, now)
    return True


def begin(shares: Iterable[Share], now: float) -> None:
    """Count a request that begins."""
    for share in shares:
        share.begin(now)
