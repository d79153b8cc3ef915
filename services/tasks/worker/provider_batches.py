"""The worker of what is handed to providers' batch APIs: packs requests, hands them over, and takes their results.

A pack is written, with the quota that pays for it, before anybody is asked; the provider's id of it before it counts
as there. A worker that dies between the two leaves a pack of which it is not known whether the provider has it: it is
looked for there before it is handed over again. Each result is kept with its settlement in one transaction, once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import msgspec

from moa.batch.v1.provider_batch_service_pb2 import ReadProviderBatchResponse as Result
from moa.common.v1 import error_pb2
from moa.quota.v1 import quota_pb2
from moa.text.v1.text_pb2 import TextEvent
from services.common import errors, logs
from services.common.cancelling import CLEANING_S, cancel_and_wait
from services.common.errors import (
    Internal,
    MoaError,
    ModelNotFound,
    NotFound,
    Unavailable,
    UpstreamBroken,
    error_of,
    passes,
)
from services.quota_client.amounts import Amount
from services.tasks import metrics
from services.tasks.adapters.database import BATCHES, REST_S, Notices, steadily, wait
from services.tasks.adapters.provider_batches import ProviderBatches
from services.tasks.adapters.provider_client import ProviderClient
from services.tasks.domain import retry
from services.tasks.domain.batch import CANCELED, ERRORED, EXPIRED, SUCCEEDED
from services.tasks.domain.provider_batch import MAKING, Asked, Member, Pack, Undecided, bounded, new_id

_log = logs.get("tasks.provider_batches")

_LOOK_S: Final = 1.0
_AGAIN_S: Final = 5.0
_UNDECIDED_S: Final = 30.0
"""How long after it could not be told whether a provider has a pack that is asked again."""
_BEAT_S: Final = 5.0
_AT_ONCE: Final = 8
"""How many requests are prepared at once."""
_EXHAUSTED: Final = frozenset((error_pb2.REASON_QUOTA_EXHAUSTED, error_pb2.REASON_NO_CREDIT))
_encode: Final = msgspec.json.Encoder().encode


class Router(Protocol):
    """What the router does before and after an answer. Both raise MoaError."""

    async def prepare(self, asked: Asked) -> Any:
        """Return how a request is handed over: `moa.batch.v1.PrepareMessageResponse`."""

    async def render(self, member: Member, events: list[TextEvent]) -> bytes:
        """Return the message of an answer, as JSON."""


class Paying(Protocol):
    """Who holds quota, and knows what answers cost. `hold_requests` raises MoaError."""

    async def hold_requests(
        self, *, key_id: str, provider: str, model: str, needs: Sequence[Amount], tags: Sequence[str], request_id: str
    ) -> tuple[str, list[str]]:
        """Reserve quota; return the lease and a reservation for each need."""

    async def give_back_lease(self, lease_id: str, needs: Sequence[Amount], *, return_id: str) -> None:
        """Return what was reserved for nothing to the quota."""

    async def renew_leases(self, leases: Sequence[str]) -> None:
        """Keep leases alive."""

    def settlement(self, pack: Pack, member: Member, last: TextEvent) -> quota_pb2.Settlement:
        """Return what an answer came to."""


@dataclass(slots=True)
class _Decision:
    """What was decided of some requests."""

    ordinary: list[int]
    """Places of those that are asked for as any other."""
    is_put_off: bool = False
    """Whether of some it could not be told now."""

    def failed(self, places: Sequence[int], *, may_pass: bool) -> None:
        """Note requests that cannot be handed over, or not now."""
        if may_pass:
            self.is_put_off = True
        else:
            self.ordinary += places


class ProviderBatchWorker:
    """Packs requests and looks after packs, until it is stopped.

    Args:
        kept: Where batches and packs are.
        router: Prepares requests, and makes messages of answers.
        provider: Who is asked.
        paying: Who holds quota.
        notices: Come when something can be claimed.
        render: Returns an error as results show it, by its request's id.
        hands_over: Whether new requests are handed over; those that were before are looked after in any case.
    """

    def __init__(
        self,
        kept: ProviderBatches,
        router: Router,
        provider: ProviderClient,
        paying: Paying,
        notices: Notices,
        render: Callable[[MoaError, str], Any],
        *,
        hands_over: bool = True,
    ) -> None:
        self._hands_over = hands_over
        self._kept = kept
        self._router = router
        self._provider = provider
        self._paying = paying
        self._notices = notices
        self._render = render
        self._held: dict[str, Pack] = {}
        self._open = asyncio.Event()
        """Whether anything is undecided or handed over, as it was looked at last."""

    async def run(self) -> None:
        """Work until cancelled."""
        beating = asyncio.create_task(self._beat(), name="provider_batches.beat")
        try:
            with self._notices.listening(BATCHES) as rung:
                while True:
                    rung.clear()
                    await wait(rung, await self._round())
        finally:
            await cancel_and_wait(beating, again_s=CLEANING_S)

    async def _round(self) -> float:
        """Do what is to be done now; return how long to wait for a ring."""
        try:
            if not await self._kept.waits():
                self._open.clear()
                return REST_S
            self._open.set()
            while await self.decide():
                pass
            await self.tend()
        except Unavailable:
            pass
        except Exception:
            # A bug must not end the only thing of this process that hands requests over.
            _log.exception("provider_batches.round_failed")
        return _LOOK_S

    async def _beat(self) -> None:
        """Keep the leases of packs, and of the quota that pays for them."""
        while True:
            await self._open.wait()
            await asyncio.sleep(_BEAT_S)
            try:
                if held := list(self._held.values()):
                    await self._kept.renew(held)
                if leases := await self._kept.leases():
                    await self._paying.renew_leases(leases)
            except MoaError:
                continue
            except Exception:
                _log.exception("provider_batches.beat_failed")

    # Packing.

    async def decide(self) -> bool:
        """Decide how some requests of a batch are answered; return whether there were any. Raises Unavailable."""
        found = await self._kept.undecided()
        if found is None:
            return False
        decision = _Decision(list(found.unreadable))
        if found.is_full or not self._hands_over:
            decision.ordinary += [asked.place for asked in found.requests]
        else:
            for (provider, model), members in (await self._prepared(found, decision)).items():
                for some in bounded(members):
                    await self._make(found, provider, model, some, decision)
        pause_s = _AGAIN_S if decision.is_put_off else 0.0
        await steadily(lambda: self._kept.decided(found, decision.ordinary, pause_s=pause_s))
        return True

    async def _prepared(self, found: Undecided, decision: _Decision) -> dict[tuple[str, str], list[Member]]:
        """Return who is asked for which requests, and note the places of the others.

        A request that is refused is asked for as any other, which tells why. What cannot be told now stays undecided.
        """
        limit = asyncio.Semaphore(_AT_ONCE)

        async def prepared(asked: Asked) -> Any:
            async with limit:
                try:
                    return await self._router.prepare(asked)
                except MoaError as error:
                    return error

        results = await asyncio.gather(*(prepared(asked) for asked in found.requests))
        members: dict[tuple[str, str], list[Member]] = defaultdict(list)
        for asked, result in zip(found.requests, results, strict=True):
            if isinstance(result, MoaError):
                decision.failed([asked.place], may_pass=isinstance(result, Unavailable))
            elif not result.provider:
                decision.ordinary.append(asked.place)
            else:
                members[result.provider, result.model].append(Member(asked, result))
        return members

    async def _make(
        self, found: Undecided, provider: str, model: str, members: Sequence[Member], decision: _Decision
    ) -> None:
        """Make a pack of requests, as many as the quota has room for, and hand it over."""
        needs = [Amount.read(each.handed.need) for each in members]
        pack_id = new_id()
        tags = [tag for tag in members[0].handed.tags if all(tag in each.handed.tags for each in members)]
        try:
            lease, reservations = await self._paying.hold_requests(
                key_id=found.key_id, provider=provider, model=model, needs=needs, tags=tags, request_id=pack_id
            )
        except MoaError as error:
            if error.reason in _EXHAUSTED and len(members) > 1:
                half = len(members) // 2
                for some in (members[:half], members[half:]):
                    await self._make(found, provider, model, some, decision)
            elif error.reason in _EXHAUSTED:
                await self._kept.refuse(members[0].asked, self._errored(error, members[0].asked))
            else:
                decision.failed([each.asked.place for each in members], may_pass=passes(error))
            return
        pack = Pack(pack_id, found.batch_id, provider, model, len(members), lease, fence=1)
        reserved = [replace(each, reservation_id=name) for each, name in zip(members, reservations, strict=True)]
        with self._leased(pack):
            if not await self._kept.add(found, pack, reserved):
                await self._paying.give_back_lease(lease, needs, return_id=f"{pack_id}.unused")
                return
            metrics.HANDED.labels(provider).inc(len(members))
            await self._hand_over(pack, [(each.asked.place, each.handed.request) for each in members])

    async def _hand_over(self, pack: Pack, requests: Sequence[tuple[int, Any]]) -> None:
        """Hand a pack over that its provider does not have."""
        try:
            batch_id, refused = await self._provider.create(pack, requests)
        except MoaError as error:
            _log.warning("pack.not_handed_over", pack=pack.id, provider=pack.provider, why=error.message[:200])
            if passes(error):
                await self._kept.later(pack, retry.pause_s(error, pack.looks + 1, _AGAIN_S))
            else:
                await self._dissolve(pack)
            return
        if not batch_id:
            await self._dissolve(pack)
            return
        await steadily(lambda: self._kept.submitted(pack, batch_id))
        _log.info("pack.handed_over", pack=pack.id, provider=pack.provider, upstream_batch=batch_id)
        if refused:
            await self._kept.release(pack, [place for place, _ in requests if pack.custom_id(place) in refused])

    async def _dissolve(self, pack: Pack) -> None:
        """Have a pack's requests asked for as any other."""
        await self._kept.release(pack)
        await self._kept.close(pack)

    # Looking after packs.

    async def tend(self) -> None:
        """Look at the packs whose time it is. Raises Unavailable."""
        packs = await self._kept.due()
        await asyncio.gather(*(self._tended(pack) for pack in packs))

    async def _tended(self, pack: Pack) -> None:
        with self._leased(pack):
            try:
                await (self._recover(pack) if pack.state == MAKING else self._look(pack))
            except MoaError as error:
                _log.warning("pack.not_tended", pack=pack.id, provider=pack.provider, why=error.message[:200])
                with contextlib.suppress(MoaError):
                    # What the provider has is not asked for twice while it may still tell.
                    if pack.is_late or isinstance(error, NotFound | ModelNotFound):
                        await self._dissolve(pack)
                    else:
                        await self._kept.later(pack, max(error.retry_after_s or 0, pack.look_again_s))
            except Exception:
                _log.exception("pack.failed", pack=pack.id)
                with contextlib.suppress(MoaError):
                    await self._kept.later(pack, _UNDECIDED_S)

    async def _recover(self, pack: Pack) -> None:
        """Find out whether the provider has a pack, and hand it over where it does not. Raises MoaError."""
        batch_id, unsure = await self._provider.find(pack, await self._kept.known_ids(pack.provider))
        if batch_id:
            _log.info("pack.adopted", pack=pack.id, provider=pack.provider, upstream_batch=batch_id)
            await self._kept.submitted(pack, batch_id)
            return
        if unsure:
            await self._kept.later(pack, _UNDECIDED_S)
            return
        if pack.is_cancelled or pack.is_late:
            await self._dissolve(pack)
            return
        requests, lost = [], []
        for member in await self._kept.members(pack):
            prepared = await self._router.prepare(member.asked) if member.asked.body else None
            if prepared is None or (prepared.provider, prepared.model) != (pack.provider, pack.model):
                lost.append(member.asked.place)
            else:
                requests.append((member.asked.place, prepared.request))
        if lost:
            await self._kept.release(pack, lost)
        if requests:
            await self._hand_over(pack, requests)
        else:
            await self._kept.close(pack)

    async def _look(self, pack: Pack) -> None:
        """Take the results of a pack that has ended. Raises MoaError."""
        if (pack.is_cancelled or pack.is_late) and not pack.cancel_sent:
            # One that has ended meanwhile cannot be cancelled, which its provider may refuse.
            with contextlib.suppress(MoaError):
                await self._provider.cancel(pack)
            await self._kept.cancel_sent(pack)
        if not await self._provider.has_ended(pack):
            await self._kept.later(pack, pack.look_again_s)
            return
        waiting = {pack.custom_id(each.asked.place): each for each in await self._kept.members(pack)}
        results: AsyncIterator[Result] = self._provider.results(pack, list(waiting.values()))
        async for result in results:
            if (member := waiting.pop(result.custom_id, None)) is not None:
                await self._take(pack, member, result)
        # Of what the provider says nothing it has answered nothing.
        if pack.is_cancelled:
            for member in waiting.values():
                await self._end(pack, member, CANCELED, None)
        else:
            await self._kept.release(pack, [each.asked.place for each in waiting.values()])
        await self._kept.close(pack)
        self._notices.notify(BATCHES)

    async def _take(self, pack: Pack, member: Member, result: Result) -> None:
        """Keep a result. What was answered is charged, whatever becomes of its message. Raises MoaError."""
        settlement = None
        if result.outcome == Result.OUTCOME_SUCCEEDED:
            settlement = self._paying.settlement(pack, member, result.events[-1])
            state, kept = await self._answered(member, result)
        elif result.outcome == Result.OUTCOME_ERRORED:
            error = error_of(result.error)
            if passes(error) and await self._kept.again(pack, member):
                metrics.RETRIED.labels(errors.word(error.reason)).inc()
                return
            state, kept = ERRORED, self._errored(error, member.asked)
        else:
            is_cancelled = pack.is_cancelled and result.outcome == Result.OUTCOME_CANCELED
            state, kept = CANCELED if is_cancelled else EXPIRED, None
        await self._end(pack, member, state, kept, settlement)

    async def _end(self, pack: Pack, member: Member, state: int, kept: bytes | None, settlement: Any = None) -> None:
        if await steadily(lambda: self._kept.end(pack, member, state, kept, settlement)):
            metrics.BATCHED.labels("succeeded" if state == SUCCEEDED else "errored").inc()

    async def _answered(self, member: Member, result: Result) -> tuple[int, bytes]:
        """Return the state and the result of a request that was answered. Raises MoaError where that may pass."""
        try:
            if not member.asked.body:
                raise Internal("the batch's request can be read no more: the operator's key for it is gone")
            message = await self._router.render(member, list(result.events))
        except MoaError as error:
            if passes(error) and not isinstance(error, UpstreamBroken):
                raise
            return ERRORED, self._errored(error, member.asked)
        return SUCCEEDED, b'{"type":"succeeded","message":%b}' % message

    def _errored(self, error: MoaError, asked: Asked) -> bytes:
        return bytes(_encode({"type": "errored", "error": self._render(error, asked.request_id)}))

    @contextlib.contextmanager
    def _leased(self, pack: Pack) -> Any:
        """Have a pack's lease renewed meanwhile."""
        self._held[pack.id] = pack
        try:
            yield
        finally:
            self._held.pop(pack.id, None)
