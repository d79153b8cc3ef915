"""Quota of tasks: reserved at creation, kept while the task waits, settled once when it succeeds.

The reservation's id lies with the task, and what must be booked lies in an outbox that the task's last transaction
fills; so whoever dies, it is booked once: auth books an id once, however often it is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import grpc

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.quota.v1 import quota_pb2, quota_service_pb2, quota_service_pb2_grpc
from services.catalogue import Watched
from services.common import logs
from services.common.credential import Credential
from services.common.errors import MoaError, Unavailable
from services.common.isolate import each_isolated, note_failure
from services.common.rpc.client import ConnectionWatch, metadata
from services.common.rpc.status import error_from_rpc
from services.quota_client.amounts import Amount, ReservationId
from services.tasks.adapters.carrying import CreditsToCarry
from services.tasks.adapters.database import Database

_log = logs.get("tasks.quota")

HOLDER: Final = "tasks"
"""Who holds the leases: all task processes together, so that any of them renews any task's."""
_CALL_S: Final = 5.0
_PAGE: Final = 1000
_RENEW_LOCK: Final = 0x6D6F6172  # "moar"


@dataclass(frozen=True, slots=True)
class QuotaHold:
    """Quota that is set aside for a task."""

    account_id: str
    key_id: str
    lease_id: str
    reservation_id: str
    amount: Amount
    price_unknown: bool = False
    """Whether nobody knows what its images cost, in dollars."""


class Owed(NamedTuple):
    """Whether anything is to be booked; false where nothing is."""

    bookings: bool
    """What ended tasks owe."""
    credits: bool
    """What the release before counted of credits (`carrying`)."""

    def __bool__(self) -> bool:
        return any(self)


class Quota:
    """The quota service, as tasks use it."""

    def __init__(
        self, auth: grpc.aio.Channel, database: Database, *, catalogue: Watched, service_token: Credential
    ) -> None:
        self._catalogue = catalogue
        self._connections = ConnectionWatch(auth)
        self._stub: quota_service_pb2_grpc.QuotaServiceAsyncStub = quota_service_pb2_grpc.QuotaServiceStub(auth)
        self._database = database
        self._carried = CreditsToCarry(database)
        self._token = service_token

    async def hold(
        self,
        *,
        provider: str,
        model: str,
        images: int,
        image: GenerateImageRequest,
        micro_credits: int,
        request_id: str,
        tags: Sequence[str] = (),
        api_key: str = "",
        key_id: str = "",
    ) -> QuotaHold:
        """Verify a key, or one that was verified before by its id, and reserve a task's images, and what they cost.

        Raises Unauthenticated, PermissionDenied, QuotaExhausted, NoCredit or Unavailable.
        """
        if micro_credits and not self._carried.is_complete and not await self._carried.complete():
            raise Unavailable("credits are being counted anew; try again", retry_after_s=1)
        price = self._catalogue.now.image_nano_usd(provider, model, image)
        need = Amount(
            images=images,
            nano_usd=images * (price or 0),
            micro_credits=micro_credits,
        ).of_request()
        request = quota_service_pb2.AdmitRequest(
            holder=HOLDER,
            lasting=True,
            operation=quota_pb2.OPERATION_TASK,
            provider=provider,
            model=model,
            need=need.message(),
            want=need.message(),
            tags=tags,
            budgets_known=True,
        )
        if key_id:
            request.key_id = key_id
        else:
            request.api_key = api_key
        answer = await self._called(self._stub.Admit, request, request_id, patient=True)
        grant = answer.grant
        lease = grant.lease.lease_id
        reservation = str(ReservationId(lease, "1", need)) if lease else ""
        hold = QuotaHold(grant.account_id, grant.key_id, lease, reservation, need, price is None)
        if lease and not Amount.read_lease(grant.lease.amount).covers(need):
            # An auth of the release before lends no credits.
            await self.give_back(hold, return_id=f"short.{lease}")
            raise Unavailable("credits cannot be reserved now; try again", retry_after_s=1)
        return hold

    async def renew(self) -> int:
        """Renew every open task's lease; forget those that auth does not know any more; give how many there were.

        Only one process does this at a time; the others find the lock taken and give 0.
        """
        count, after = 0, ""
        while True:
            async with self._database.transaction() as link:
                locked = await (await link.execute("select pg_try_advisory_xact_lock(%s)", (_RENEW_LOCK,))).fetchone()
                if not locked or not locked[0]:
                    return count
                result = await link.execute(
                    "select id, quota_lease from tasks.tasks where state < 4 and quota_lease is not null "
                    "and id > %s order by id limit %s",
                    (after, _PAGE),
                )
                leases = dict(await result.fetchall())
                if not leases:
                    return count
                alive = await self._renewed(list(leases.values()))
                lost = [task_id for task_id, lease in leases.items() if lease not in alive]
                if lost:
                    # Their workers reserve anew before they begin; what is made already is settled late.
                    await link.execute(
                        "update tasks.tasks set quota_lease = null, reservation_id = null "
                        "where id = any(%s) and state = 1 and not made",
                        (lost,),
                    )
            count += len(leases)
            after = max(leases)

    async def give_back(self, hold: QuotaHold, *, return_id: str) -> None:
        """Give back what a task that was not created after all had reserved. What fails here ends with its lease."""
        if not hold.lease_id:
            return
        back = quota_pb2.LeaseReturn(return_id=return_id, lease_id=hold.lease_id, amount=hold.amount.message())
        try:
            await self._called(
                self._stub.ReturnLeases, quota_service_pb2.ReturnLeasesRequest(returns=[back]), return_id
            )
        except MoaError as error:
            _log.info("return.failed", why=error.message)

    async def carry(self) -> int:
        """Book at auth what was counted of credits here; return how many entries were. Raises MoaError, as `flush`."""

        async def book(entries: Sequence[quota_service_pb2.CreditEntry]) -> set[int]:
            answer = await self._called(
                self._stub.CarryCredits, quota_service_pb2.CarryCreditsRequest(entries=entries), ""
            )
            return set(answer.entry_ids)

        return await self._carried.carry(book)

    async def flush(self) -> int:
        """Book what ended tasks owe; give how many were booked. Raises MoaError when auth is away; then try later."""
        async with self._database.transaction() as link:
            result = await link.execute(
                "select task_id, message, settles from tasks.quota_outbox where next_at <= now() "
                "order by next_at limit %s for update skip locked",
                (_PAGE,),
            )
            rows = await result.fetchall()
            if not rows:
                return 0
            done: set[str] = set()

            async def book(some: Sequence[tuple[str, bytes, bool]]) -> None:
                done.update(await self._booked(some))

            _, failed = await each_isolated(rows, book)
            for (task_id, *_), error in failed:
                note_failure("task quota", task_id, error)
            await link.execute("delete from tasks.quota_outbox where task_id = any(%s)", (list(done),))
            await link.execute(
                "update tasks.quota_outbox set attempts = attempts + 1, "
                "next_at = now() + least(60, 2 ^ least(attempts, 6)) * interval '1 s' where task_id = any(%s)",
                ([row[0] for row in rows if row[0] not in done],),
            )
        return len(done)

    async def owes(self) -> Owed:
        """Return what is still to be booked."""
        async with self._database.transaction() as link:
            result = await link.execute(
                "select exists (select 1 from tasks.quota_outbox), exists (select 1 from tasks.credits_to_carry)"
            )
            return Owed(*(await result.fetchone() or (False, False)))

    async def _booked(self, rows: Sequence[tuple[str, bytes, bool]]) -> set[str]:
        """Book rows of the outbox; give those that are done."""
        settlements = {name: quota_pb2.Settlement.FromString(message) for name, message, settles in rows if settles}
        returns = {name: quota_pb2.LeaseReturn.FromString(message) for name, message, settles in rows if not settles}
        done = await self._settled(settlements)
        if returns:
            message = quota_service_pb2.ReturnLeasesRequest(returns=returns.values())
            await self._called(self._stub.ReturnLeases, message, "")
            done |= returns.keys()
        return done

    async def _settled(self, settlements: dict[str, quota_pb2.Settlement]) -> set[str]:
        if not settlements:
            return set()
        message = quota_service_pb2.SettleRequest(settlements=settlements.values())
        answer = await self._called(self._stub.Settle, message, "")
        refused = set(answer.refused)
        for task_id, settlement in settlements.items():
            if settlement.reservation_id in refused:
                _log.error("settlement.refused", task=task_id, reservation=settlement.reservation_id)
        known = refused | set(answer.booked)
        return {task_id for task_id, s in settlements.items() if s.reservation_id in known}

    async def _renewed(self, leases: list[str]) -> set[str]:
        message = quota_service_pb2.RefreshRequest(holder=HOLDER, lease_ids=leases)
        answer = await self._called(self._stub.Refresh, message, "")
        return {lease.lease_id for lease in answer.leases}

    async def _called(self, method: Any, request: Any, request_id: str, *, patient: bool = False) -> Any:
        """Call auth. `patient`: wait while it is being started again; not where a transaction is open meanwhile."""
        pauses = [0.05, 0.2, 0.5]
        while True:
            if patient:
                await self._connections.returned()
            try:
                return await method(request, metadata=metadata(self._token, request_id), timeout=_CALL_S)
            except grpc.aio.AioRpcError as failure:
                error = error_from_rpc(failure)
                if not isinstance(error, Unavailable) or not pauses:
                    raise error from None
            await asyncio.sleep(pauses.pop(0))
