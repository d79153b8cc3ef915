"""What the operator's pages need of auth, and what this router tells it of targets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import grpc

from moa.operator.v1 import operator_store_service_pb2 as pb
from moa.operator.v1 import operator_store_service_pb2_grpc
from services.common import logs
from services.common.beats import until_beat_s
from services.common.credential import Credential
from services.common.rpc import call as calls
from services.common.rpc.client import metadata
from services.common.rpc.status import error_from_rpc
from services.router.traffic import TRAFFIC, Traffic

EVERY_S: Final = 5.0
"""How often is reported what was seen since."""
WAIT_S: Final = 5.0

R = TypeVar("R")
_log = logs.get("traffic")


class OperatorStore:
    """Asks auth for the operator, and reports traffic.

    Args:
        auth: The channel to the auth service.
        service_token: The internal credential.
        holder: What this process is called.
        traffic: What is reported.
    """

    def __init__(
        self, auth: grpc.aio.Channel, *, service_token: Credential, holder: str, traffic: Traffic = TRAFFIC
    ) -> None:
        self._stub: Any = operator_store_service_pb2_grpc.OperatorStoreServiceStub(auth)
        self._token = service_token
        self._holder = holder
        self._traffic = traffic

    async def authorize(self, credential: str, *, changes: bool) -> str:
        """Return the account of the administrator who calls. Raises MoaError for everyone else."""
        address = calls.current().address
        request = pb.AuthorizeOperatorRequest(credential=credential, address=address, changes=changes)
        answer: pb.AuthorizeOperatorResponse = await self._asked(self._stub.AuthorizeOperator, request)
        return answer.account_id

    async def audit(self, actor: str, act: str, *details: str) -> None:
        """Note what an administrator did. Raises MoaError."""
        await self._asked(self._stub.AuditOperation, pb.AuditOperationRequest(actor=actor, act=act, details=details))

    async def stored_keys(self) -> pb.ListProviderKeysResponse:
        """Return what is stored of providers' keys, without values. Raises MoaError."""
        return await self._asked(self._stub.ListProviderKeys, pb.ListProviderKeysRequest())

    async def traffic(self, seconds: int) -> pb.ReadTrafficResponse:
        """Return what all routers saw; what this one saw last is reported before. Raises MoaError."""
        await self.report()
        return await self._asked(self._stub.ReadTraffic, pb.ReadTrafficRequest(seconds=seconds))

    async def run(self) -> None:
        """Report again and again, until cancelled."""
        while True:
            await asyncio.sleep(until_beat_s(EVERY_S))
            await self.report()

    async def report(self) -> None:
        """Report what was seen since the last report; what does not arrive is reported with the next."""
        report = self._traffic.report(self._holder)
        if report is None:
            return
        try:
            await self._stub.ReportTraffic(report, metadata=metadata(self._token, "traffic"), timeout=WAIT_S)
        except grpc.aio.AioRpcError as error:
            self._traffic.unsent(report)
            _log.info("traffic.not_reported", code=error.code().name)
        except asyncio.CancelledError:
            self._traffic.unsent(report)
            raise

    async def _asked(self, method: Callable[..., Awaitable[R]], request: Any) -> R:
        request_id = calls.current().request_id
        try:
            return await method(request, metadata=metadata(self._token, request_id), timeout=WAIT_S)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from None
