"""Have the inference service embed."""

from __future__ import annotations

import grpc

from moa.embedding.v1 import embedding_service_pb2, embedding_service_pb2_grpc
from services.catalogue import Model, Timeouts
from services.common.rpc import call as calls
from services.common.rpc.client import metadata
from services.common.rpc.reach import Reach
from services.common.rpc.status import error_from_rpc
from services.router.adapters.backends import GRACE_S
from services.router.domain.caller import Caller
from services.router.domain.ports import Booking

_TIMEOUT_S = Timeouts().first_token_s + GRACE_S


class InferenceEncoders:
    """The inference service's embedding models.

    Args:
        channel: To the inference service.
        service_token: The credential between services.
    """

    def __init__(self, channel: grpc.aio.Channel, *, service_token: str) -> None:
        self._reach = Reach(channel)
        self._stub = embedding_service_pb2_grpc.EmbeddingServiceStub(channel)
        self._token = service_token

    async def embed(
        self, request: embedding_service_pb2.EmbedTextsRequest, model: Model, caller: Caller, reserved: Booking
    ) -> embedding_service_pb2.EmbedTextsResponse:
        """Embed texts. Raises MoaError."""
        known = metadata(
            self._token,
            caller.request_id,
            (calls.ACCOUNT_KEY, reserved.account_id),
            (calls.PRIORITY_KEY, reserved.priority),
        )
        await self._reach.returned()
        try:
            answer: embedding_service_pb2.EmbedTextsResponse = await self._stub.EmbedTexts(
                request, metadata=known, timeout=_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None
        return answer
