"""Quota of requests that providers' batch APIs answer: one lease a pack, a reservation in it for each request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any, Final

import grpc

from moa.quota.v1 import quota_pb2, quota_service_pb2, quota_service_pb2_grpc
from moa.text.v1.text_pb2 import TextEvent
from services.catalogue import Watched
from services.common import logs
from services.common.clock import now_utc
from services.common.credential import Credential
from services.common.errors import MoaError
from services.common.rpc.client import metadata
from services.common.rpc.status import error_from_rpc
from services.quota_client.amounts import Amount, ReservationId, charge
from services.tasks.adapters.quota import HOLDER
from services.tasks.domain.provider_batch import Member, Pack

_log = logs.get("tasks.batch_quota")

_CALL_S: Final = 5.0
_MOST_LEASES: Final = 1000


class BatchQuota:
    """Holds quota, and knows what answers cost.

    Args:
        auth: The channel to the auth service.
        catalogue: The prices, and what part of them a batch costs.
        service_token: The credential between services.
        dialect: What requests are asked in, as reports call it.
    """

    def __init__(self, auth: grpc.aio.Channel, catalogue: Watched, *, service_token: Credential, dialect: str) -> None:
        self._stub: Any = quota_service_pb2_grpc.QuotaServiceStub(auth)
        self._catalogue = catalogue
        self._token = service_token
        self._dialect = dialect

    async def hold_requests(
        self, *, key_id: str, provider: str, model: str, needs: Sequence[Amount], tags: Sequence[str], request_id: str
    ) -> tuple[str, list[str]]:
        """Reserve quota; return the lease, and a reservation for each need. Both are empty where nothing is limited.

        Raises Unauthenticated, PermissionDenied, QuotaExhausted, NoCredit or Unavailable.
        """
        need = sum(needs, Amount())
        request = quota_service_pb2.AdmitRequest(
            key_id=key_id,
            holder=HOLDER,
            lasting=True,
            operation=quota_pb2.OPERATION_TEXT,
            provider=provider,
            model=model,
            need=need.message(),
            want=need.message(),
            tags=tags,
            budgets_known=True,
        )
        grant = (await self._called(self._stub.Admit, request, request_id)).grant
        lease = grant.lease.lease_id
        if not lease:
            return "", ["" for _ in needs]
        return lease, [str(ReservationId(lease, f"{number:x}", each)) for number, each in enumerate(needs, 1)]

    async def give_back_lease(self, lease_id: str, needs: Sequence[Amount], *, return_id: str) -> None:
        """Return what was reserved for nothing to the quota. What fails here ends with its lease."""
        if not lease_id:
            return
        amount = sum(needs, Amount()).message()
        back = quota_pb2.LeaseReturn(return_id=return_id, lease_id=lease_id, amount=amount)
        try:
            await self._called(
                self._stub.ReturnLeases, quota_service_pb2.ReturnLeasesRequest(returns=[back]), return_id
            )
        except MoaError as error:
            _log.info("return.failed", why=error.message)

    async def renew_leases(self, leases: Sequence[str]) -> None:
        """Keep leases alive. Raises MoaError."""
        for at in range(0, len(leases), _MOST_LEASES):
            some = leases[at : at + _MOST_LEASES]
            await self._called(self._stub.Refresh, quota_service_pb2.RefreshRequest(holder=HOLDER, lease_ids=some), "")

    def settlement(self, pack: Pack, member: Member, last: TextEvent) -> quota_pb2.Settlement:
        """Return what an answer came to, at the batch's price. `last`: its last event."""
        settlement = quota_pb2.Settlement(
            reservation_id=member.reservation_id,
            usage=last.finished.usage,
            operation=quota_pb2.OPERATION_TEXT,
            provider=pack.provider,
            model=pack.model,
            request_id=member.asked.request_id,
            dialect=self._dialect,
            tags=member.handed.tags,
        )
        charge(settlement, Amount.read(member.handed.need), self._cost(pack, last))
        settlement.ended_at.FromDatetime(now_utc())
        return settlement

    def _cost(self, pack: Pack, last: TextEvent) -> int | None:
        """Return what an answer costs, in nano-dollars, by the prices of when its pack was made; None: unknown."""
        began = None if pack.created_at is None else pack.created_at.astimezone(UTC).date()
        return self._catalogue.now.batch_cost_on(began)(last.finished.usage, pack.provider, pack.model)

    async def _called(self, method: Any, request: Any, request_id: str) -> Any:
        try:
            return await method(request, metadata=metadata(self._token, request_id), timeout=_CALL_S)
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None
