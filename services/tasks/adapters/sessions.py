"""Sessions of the console: auth keeps them."""

from __future__ import annotations

from typing import Any

import grpc

from moa.quota.v1 import quota_service_pb2, quota_service_pb2_grpc
from services.common.credential import Credential
from services.common.errors import Unauthenticated
from services.common.rpc import call as calls
from services.common.rpc.client import ConnectionWatch, metadata
from services.common.rpc.status import error_from_rpc
from services.common.throttle import Throttle

_TIMEOUT_S = 5.0


class Sessions:
    """Asks auth whose a session is."""

    def __init__(self, auth: grpc.aio.Channel, *, service_token: Credential) -> None:
        self._connections = ConnectionWatch(auth)
        self._stub: Any = quota_service_pb2_grpc.QuotaServiceStub(auth)
        self._token = service_token
        self._wrong = Throttle(tries=20, every_s=3)

    async def account_of(self, token: str) -> str:
        """Return the account of a live session.

        Raises Unauthenticated, RateLimited after many wrong tokens from one address, Unavailable while auth is away.
        """
        request = quota_service_pb2.IdentifySessionRequest(session_token=token)
        sent = metadata(self._token, calls.current().request_id)
        await self._connections.returned()
        try:
            answer = await self._stub.IdentifySession(request, metadata=sent, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as failure:
            error = error_from_rpc(failure)
            if isinstance(error, Unauthenticated):
                self._wrong.check(calls.current().address)
            raise error from None
        return str(answer.account_id)
