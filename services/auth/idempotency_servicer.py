"""moa.idempotency.v1 over the answers that are kept."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from moa.idempotency.v1 import idempotency_service_pb2 as pb
from moa.idempotency.v1 import idempotency_service_pb2_grpc
from services.auth.adapters.answers import Answers, Asked
from services.common.errors import InvalidField
from services.common.idempotency import MOST_CHARS
from services.common.rpc import call as calls

_MAX_CLAIMS: Final = 10_000


class IdempotencyServicer(idempotency_service_pb2_grpc.IdempotencyServiceServicer):
    """Answers the other services."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    async def Claim(self, request: pb.ClaimRequest, context: Any) -> pb.ClaimResponse:
        """Claim a key."""
        if not request.account_id or not request.operation:
            raise InvalidField("a claim needs an account and an operation", param="account_id")
        if not 1 <= len(request.idempotency_key) <= MOST_CHARS:
            raise InvalidField(f"from 1 to {MOST_CHARS} characters", param="idempotency_key")
        asked = Asked(
            account_id=request.account_id,
            key_id=request.key_id,
            stranger=request.stranger,
            operation=request.operation,
            idempotency_key=request.idempotency_key,
            fingerprint=request.fingerprint,
            request_id=request.request_id,
            claim_id=_id(request.claim_id),
        )
        found = await self._answers.claim(asked)
        calls.current().fields.update(account=request.account_id, outcome=found.WhichOneof("outcome"))
        return found

    async def Renew(self, request: pb.RenewRequest, context: Any) -> pb.RenewResponse:
        """Renew claims."""
        if len(request.claim_ids) > _MAX_CLAIMS:
            raise InvalidField(f"at most {_MAX_CLAIMS} in one call", param="claim_ids")
        await self._answers.renew([_id(claim_id) for claim_id in request.claim_ids])
        renewed = pb.RenewResponse()
        renewed.expires_in.FromMilliseconds(int(self._answers.lease_s * 1000))
        return renewed

    async def Keep(self, request: pb.KeepRequest, context: Any) -> pb.KeepResponse:
        """Keep an answer."""
        claim_id = _id(request.claim_id)
        if request.WhichOneof("outcome") == "lost":
            await self._answers.lose(claim_id, request.lost)
        else:
            await self._answers.keep(claim_id, request.answer)
        return pb.KeepResponse()

    async def Free(self, request: pb.FreeRequest, context: Any) -> pb.FreeResponse:
        """Forget a claim."""
        await self._answers.free(_id(request.claim_id))
        return pb.FreeResponse()

    async def Read(self, request: pb.ReadRequest, context: Any) -> pb.ReadResponse:
        """Read an answer."""
        return pb.ReadResponse(answer=await self._answers.read(_id(request.claim_id)))


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidField("not a claim's id", param="claim_id") from None
