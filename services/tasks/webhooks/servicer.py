"""moa.task.v1.WebhookService."""

from __future__ import annotations

from typing import Any, Final

from moa.task.v1 import webhook_service_pb2 as pb
from moa.task.v1 import webhook_service_pb2_grpc
from services.common import page_tokens
from services.common.errors import PermissionDenied
from services.common.rpc.keys import SESSION_PREFIX, key_of
from services.common.signing import OVERLAP, Secrets
from services.tasks.adapters.outbox import Delivery, Outbox
from services.tasks.adapters.sessions import Sessions
from services.tasks.operations import Operations

_PAGE: Final = 50
_MOST: Final = 200


class WebhookServicer(webhook_service_pb2_grpc.WebhookServiceServicer):
    """Answers accounts about their webhooks."""

    def __init__(self, operations: Operations, sessions: Sessions, outbox: Outbox, secrets: Secrets) -> None:
        self._operations = operations
        self._sessions = sessions
        self._outbox = outbox
        self._secrets = secrets

    async def ListDeliveries(self, request: pb.ListDeliveriesRequest, context: Any) -> pb.ListDeliveriesResponse:
        """List deliveries."""
        _, who = await self._operations.caller(context)
        before = page_tokens.number(request.page_token)
        result, following = await self._outbox.page(
            who.account_id,
            task_id=request.task_id,
            state=request.state,
            before=before,
            size=min(_MOST, request.page_size or _PAGE),
        )
        return pb.ListDeliveriesResponse(
            deliveries=map(_message, result), next_page_token="" if following is None else str(following)
        )

    async def Redeliver(self, request: pb.RedeliverRequest, context: Any) -> pb.RedeliverResponse:
        """Deliver again."""
        _, who = await self._operations.caller(context)
        return pb.RedeliverResponse(
            delivery=_message(await self._outbox.redeliver(who.account_id, request.delivery_id))
        )

    async def GetWebhookSecret(self, request: pb.GetWebhookSecretRequest, context: Any) -> pb.GetWebhookSecretResponse:
        """Return the secret."""
        account_id = await self._owner(context)
        generation, _ = await self._outbox.generation(account_id)
        return pb.GetWebhookSecretResponse(key=self._secrets.secret(account_id, generation))

    async def RotateWebhookSecret(
        self, request: pb.RotateWebhookSecretRequest, context: Any
    ) -> pb.RotateWebhookSecretResponse:
        """Change the secret."""
        account_id = await self._owner(context)
        generation, rotated_at = await self._outbox.rotate(account_id)
        answer = pb.RotateWebhookSecretResponse(key=self._secrets.secret(account_id, generation))
        answer.previous_until.FromDatetime(rotated_at + OVERLAP)
        return answer

    async def _owner(self, context: Any) -> str:
        """Return the account of the caller, who is logged in or has a key.

        Raises PermissionDenied for a key that does not manage it: who holds the secret can pose as us.
        """
        token = key_of(context.invocation_metadata() or ())
        if token.startswith(SESSION_PREFIX):
            return await self._sessions.account_of(token)
        _, who = await self._operations.caller(context)
        if not who.manages_account:
            raise PermissionDenied(
                "this key lacks the scope `account`, without which it sees no secret of the account: use one that was"
                " made with `manages: [SCOPE_ACCOUNT]`, or do this logged in"
            )
        return who.account_id


def _message(delivery: Delivery) -> pb.Delivery:
    result = pb.Delivery(
        id=delivery.id,
        task_id=delivery.task_id,
        event=delivery.event,
        url=delivery.url,
        state=delivery.state,
        attempts=delivery.attempts,
        last_status=delivery.last_status,
        last_error=delivery.last_error,
    )
    result.created_at.FromDatetime(delivery.created_at)
    if delivery.state == pb.DELIVERY_STATE_PENDING:
        result.next_attempt_at.FromDatetime(delivery.next_at)
    if delivery.delivered_at is not None:
        result.delivered_at.FromDatetime(delivery.delivered_at)
    return result
