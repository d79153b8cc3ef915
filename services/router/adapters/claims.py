"""Idempotency keys and the answers under them, at the auth service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc

from moa.idempotency.v1 import idempotency_service_pb2 as pb
from moa.idempotency.v1 import idempotency_service_pb2_grpc
from services.common import logs
from services.common.cancelling import cancel_and_wait
from services.common.credential import Credential
from services.common.errors import MoaError
from services.common.rpc.client import metadata
from services.common.rpc.status import error_from_rpc

_log = logs.get("claims")

_TIMEOUT_S: Final = 10.0
_MOST_RENEWED: Final = 10_000


class Claims:
    """Claims keys for this router, and renews what it has claimed while it works.

    Args:
        auth: The channel to the auth service.
        service_token: The internal credential.
    """

    def __init__(self, auth: grpc.aio.Channel, *, service_token: Credential) -> None:
        self._stub = idempotency_service_pb2_grpc.IdempotencyServiceStub(auth)
        self._token = service_token
        self._held: set[str] = set()
        self._renewing: asyncio.Task[None] | None = None

    async def claim(self, request: pb.ClaimRequest) -> pb.ClaimResponse:
        """Claim a key, or return what has become of it. Raises MoaError."""
        claimed: pb.ClaimResponse = await self._call(self._stub.Claim, request)
        return claimed

    @asynccontextmanager
    async def renewed(self, begun: pb.Begun) -> AsyncIterator[None]:
        """Renew a claim until the block ends."""
        self._held.add(begun.claim_id)
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(begun.expires_in.ToMilliseconds() / 3000))
        try:
            yield
        finally:
            self._held.discard(begun.claim_id)

    async def keep(self, claim_id: str, answer: pb.StoredAnswer) -> None:
        """Keep a claim's answer. Raises MoaError."""
        await self._call(self._stub.Keep, pb.KeepRequest(claim_id=claim_id, answer=answer.SerializeToString()))

    async def lose(self, claim_id: str, reason: pb.LostReason.ValueType) -> None:
        """Note that the answer cannot be kept. Raises MoaError."""
        await self._call(self._stub.Keep, pb.KeepRequest(claim_id=claim_id, lost=reason))

    async def free(self, claim_id: str) -> None:
        """Give a claim back: nothing was charged for it. Raises MoaError."""
        await self._call(self._stub.Free, pb.FreeRequest(claim_id=claim_id))

    async def read(self, claim_id: str) -> pb.StoredAnswer:
        """Return an answer. Raises NotFound where it is gone."""
        result: pb.ReadResponse = await self._call(self._stub.Read, pb.ReadRequest(claim_id=claim_id))
        return pb.StoredAnswer.FromString(result.answer)

    async def aclose(self) -> None:
        """End the renewals."""
        await cancel_and_wait(self._renewing)

    async def _renew(self, every_s: float) -> None:
        """Renew what is held every so often; end when nothing is."""
        while True:
            await asyncio.sleep(every_s)
            if not self._held:
                self._renewing = None
                return
            held = list(self._held)
            for at in range(0, len(held), _MOST_RENEWED):
                try:
                    await self._call(self._stub.Renew, pb.RenewRequest(claim_ids=held[at : at + _MOST_RENEWED]))
                except MoaError as error:
                    # The lease outlasts two of these.
                    _log.warning("claims.not_renewed", why=error.message)

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, metadata=metadata(self._token, ""), timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None
