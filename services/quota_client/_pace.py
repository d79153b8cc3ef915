"""The pace that accounts and keys must keep: what of it this process may do, leased from auth as quota is.

A request of a paced key begins without a call while this process may begin one and has a slot for it to run in. What
it was allowed and does not use goes back within moments, and a slot of few as soon as its request has ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Final

import grpc

from moa.quota.v1 import quota_pb2, quota_service_pb2, quota_service_pb2_grpc
from services.common.credential import Credential
from services.common.rpc.client import metadata
from services.quota_client._part import exact_of
from services.quota_client._share import ACTIVE_S, Share, begin
from services.quota_client.amounts import NOTHING, Amount

CALL_S: Final = 2.0
"""How long an answer is waited for; then this process goes on alone, more carefully."""
_BATCH: Final = 1000
_KEEP_S: Final = 120.0
_PAUSES_S: Final = (0.05, 0.1, 0.3, 0.0)
"""After which a request that found no slot asks again; none: at once."""


class Paces:
    """The shares of this process.

    Args:
        stub: Auth.
        service_token: The internal credential.
        holder: This process's name, unique.
    """

    def __init__(
        self, stub: quota_service_pb2_grpc.QuotaServiceAsyncStub, *, service_token: Credential, holder: str
    ) -> None:
        self._stub = stub
        self._token, self._request_id = service_token, ""
        self._holder = holder
        self._shares: dict[str, Share] = {}
        self._spare: dict[str, Share] = {}
        """Those that have slots to give back."""
        self._returning: asyncio.Task[None] | None = None

    def of(self, grant: quota_pb2.Grant, lane: tuple[str, ...] = ()) -> tuple[Share, ...]:
        """Return the paces that bind a key, and what it asks for of some budgets; none for most."""
        found = []
        for subject, what, pace in (
            (grant.account_id, "this account", grant.pace),
            (grant.counts_as or grant.key_id, "this key", grant.key_pace),
            (grant.bound_by, "this key's maker", grant.bound_pace),
            (grant.team_id, "this team", grant.team_pace),
            *(
                (budget.budget_id, f"the budget {budget.name}".rstrip(), budget.pace)
                for budget in grant.budgets
                if budget.budget_id in lane
            ),
        ):
            if not pace.ListFields():
                continue
            share = self._shares.get(subject)
            if share is None:
                share = self._shares[subject] = Share(subject, what, time.monotonic(), self._ended)
            share.key_id, share.what = grant.key_id, what
            share.limit(pace)
            found.append(share)
        return tuple(found)

    def upstream(self, name: str, pace: quota_pb2.Pace) -> Share:
        """Return the share of a provider's key, by its name, with the pace that is known of it now."""
        subject = f"upstream:{name}"
        share = self._shares.get(subject)
        if share is None:
            share = self._shares[subject] = Share(subject, "this provider", time.monotonic(), self._ended)
        if share.upstream is None or share.upstream != pace:
            share.upstream = pace
            share.limit(pace)
        return share

    def known_upstream(self, name: str) -> Share | None:
        """Return the share of a provider's key; None where it was not used of late."""
        return self._shares.get(f"upstream:{name}")

    async def enter(self, shares: Sequence[Share], need: Amount = NOTHING) -> None:
        """Begin a request that may come to so much; the caller sees to `Share.end`.

        Raises RateLimited, or Unavailable while what is counted exactly cannot be asked for.
        """
        first = shares[0]
        first.waiting += 1
        try:
            async with AsyncExitStack() as stack:
                for share in shares:
                    await stack.enter_async_context(share.lock)
                await self._entered(shares, need)
        finally:
            first.waiting -= 1
            for share in shares:
                if share.keeps_too_many:
                    self._ended(share)

    async def grow(self, shares: Sequence[Share], more: Amount) -> None:
        """Set more aside for a request that runs, of what is counted exactly. Raises RateLimited, Unavailable."""
        async with AsyncExitStack() as stack:
            for share in shares:
                await stack.enter_async_context(share.lock)
            grown: list[Share] = []
            for share in shares:
                now = time.monotonic()
                if not share.grow(now, more):
                    await self._ask([share], [share.need_more(more)], need=None)
                    if not share.grow(time.monotonic(), more):
                        for one in grown:
                            one.changed(exact_of(more), NOTHING)
                        raise share.lacks(time.monotonic(), exact_of(more))
                grown.append(share)

    async def _entered(self, shares: Sequence[Share], need: Amount) -> None:
        for pause_s in _PAUSES_S:
            now = time.monotonic()
            lacking = [share for share in shares if not share.ready(now, need)]
            if not lacking:
                begin(shares, now, need)
                return
            await self._ask(lacking, [share.need(need) for share in lacking], need=need)
            if pause_s and any(share.full for share in lacking):
                # Whose request has just ended elsewhere may be here before the word of it is at auth.
                await asyncio.sleep(pause_s)
                for share in lacking:
                    share.forget_refusal()
        # Requests that found room without asking took all of it.
        raise lacking[0].refusal(time.monotonic(), need)

    async def aclose(self) -> None:
        """Return when what is to go back has."""
        if self._returning is not None:
            await self._returning

    def _ended(self, share: Share) -> None:
        self._spare[share.subject] = share
        if self._returning is None:
            self._returning = asyncio.create_task(self._return(), name="slots")

    async def _return(self) -> None:
        """Return slots that others may need, one share after another, as long as there are any."""
        try:
            while self._spare:
                _, share = self._spare.popitem()
                async with share.lock:
                    if share.keeps_too_many:
                        await self._ask([share], [share.spare()], need=None)
        finally:
            self._returning = None

    def busy(self) -> bool:
        """Return whether any share runs something, or has something to renew or to return soon."""
        within = time.monotonic() - ACTIVE_S
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
                await self._ask([share for share, _ in batch], [need for _, need in batch], need=None)
        finally:
            for share, _ in due:
                share.lock.release()

    async def _ask(self, shares: Iterable[Share], needs: Iterable[quota_pb2.PaceNeed], *, need: Amount | None) -> None:
        asked_at = time.monotonic()
        request = quota_service_pb2.LeasePaceRequest(holder=self._holder, needs=needs)
        try:
            answer = await self._stub.LeasePace(
                request, metadata=metadata(self._token, self._request_id), timeout=CALL_S
            )
        except grpc.aio.AioRpcError:
            # Pace protects and is not money: who cannot ask goes on, more carefully.
            for share, need_of_it in zip(shares, request.needs, strict=True):
                share.alone(time.monotonic(), need_of_it)
            return
        told = {share.subject: share for share in answer.shares}
        for share in shares:
            if share.subject in told:
                share.take(told[share.subject], asked_at, need=need)
            else:
                # It has no limit any more. A key that ended is refused elsewhere.
                share.limit(quota_pb2.Pace())
