"""How the requests of a batch are asked of the router: as messages of Anthropic's API, by a grant of their key."""

from __future__ import annotations

from typing import Any, Final

import grpc
from google.api import httpbody_pb2

from moa.batch.v1 import batched_message_service_pb2 as pb
from moa.batch.v1.batched_message_service_pb2_grpc import BatchedMessageServiceStub
from moa.router.v1.anthropic_service_pb2_grpc import AnthropicServiceStub
from moa.text.v1.text_pb2 import TextEvent
from services.common import idempotency
from services.common.credential import Credential
from services.common.rpc.client import metadata
from services.common.rpc.status import error_from_rpc
from services.quota_client import grants
from services.tasks.domain.batch import Claimed
from services.tasks.domain.provider_batch import Asked, Member

_ANSWER_S: Final = 3600.0
"""How long a message may take."""
_STEP_S: Final = 60.0
"""How long the router may take before and after an answer."""


class Messages:
    """Asks the router for messages.

    Args:
        router: The channel to it.
        service_token: The credential between services.
    """

    def __init__(self, router: grpc.aio.Channel, service_token: Credential) -> None:
        self._messages: Any = AnthropicServiceStub(router)
        self._batched: Any = BatchedMessageServiceStub(router)
        self._token = service_token

    async def __call__(self, claimed: Claimed, params: bytes) -> bytes:
        """Return the message that answers a request with this body, as JSON. Raises MoaError.

        Cancelling it stops the work.
        """
        sent = self._sent(claimed, (idempotency.HEADER.lower(), claimed.idempotency_key))
        body = httpbody_pb2.HttpBody(content_type="application/json", data=params)
        call = self._messages.CreateMessage(body, metadata=sent, timeout=_ANSWER_S)
        pieces: list[bytes] = []
        try:
            while (piece := await call.read()) is not grpc.aio.EOF:
                pieces.append(piece.data)
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None
        finally:
            call.cancel()
        return b"".join(pieces)

    async def prepare(self, asked: Asked) -> pb.PrepareMessageResponse:
        """Return how a request is handed to a provider. Raises MoaError."""
        made: pb.PrepareMessageResponse = await self._done(
            self._batched.PrepareMessage, pb.PrepareMessageRequest(body=asked.body), asked
        )
        return made

    async def render(self, member: Member, events: list[TextEvent]) -> bytes:
        """Return the message of an answer, as JSON. Raises MoaError."""
        request = pb.RenderMessageRequest(
            body=member.asked.body, provider=member.handed.provider, model=member.handed.model, events=events
        )
        return bytes((await self._done(self._batched.RenderMessage, request, member.asked)).body)

    async def _done(self, method: Any, request: Any, asked: Asked) -> Any:
        try:
            return await method(request, metadata=self._sent(asked), timeout=_STEP_S)
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None

    def _sent(self, asked: Claimed | Asked, *more: tuple[str, str]) -> Any:
        acting = grants.ActingFor(account_id=asked.account_id, key_id=asked.key_id)
        key = ("x-api-key", grants.mint(self._token, acting))
        return metadata(self._token, asked.request_id, key, *more, *asked.sent_headers)
