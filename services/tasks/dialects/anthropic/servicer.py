"""The handlers of `/v1/messages/batches` (docs.anthropic.com/en/api/creating-message-batches)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

from google.api import httpbody_pb2

from moa.quota.v1 import quota_pb2
from moa.task.v1 import message_batch_service_pb2 as pb
from moa.task.v1 import message_batch_service_pb2_grpc
from services.common.errors import InvalidField, NotFound, PermissionDenied
from services.common.helper_process import HelperProcess
from services.common.large import LARGE_BYTES
from services.common.rpc import call as calls
from services.common.store import Links
from services.tasks import metrics, reply
from services.tasks.adapters.batches import Batches
from services.tasks.dialects.anthropic import bodies
from services.tasks.domain.batch import CANCELED, Batch
from services.tasks.operations import Operations
from services.tasks.ports import VerifiedKey

JSONL: Final = "application/x-jsonl"
PATH: Final = "/v1/messages/batches"
BATCH_KEY: Final = "moa-batch"
"""The header by which a caller says how its batch is answered: where a provider has a batch API, by that, which is
cheaper and may take a day (`provider`, the default), or as its requests would be alone (`ordinary`)."""
_PROVIDER, _ORDINARY = "provider", "ordinary"
_PAGE: Final = 20
_MOST: Final = 1000
_SENT: Final = ("anthropic-beta", "anthropic-version", "moa-tags", "moa-parameters", "moa-fallback")
"""Headers of the creation that count for each of its requests."""


class MessageBatchServicer(message_batch_service_pb2_grpc.MessageBatchServiceServicer):
    """Answers Anthropic's Message Batches API.

    Args:
        operations: Verifies keys.
        batches: Where batches are.
        helper: Where large bodies are read.
        links: Knows where callers reach this gateway.
        has_batches: Returns whether a provider is asked for batches.
    """

    def __init__(
        self,
        operations: Operations,
        batches: Batches,
        helper: HelperProcess,
        links: Links,
        *,
        has_batches: Callable[[], bool],
    ) -> None:
        self._has_batches = has_batches
        self._operations = operations
        self._batches = batches
        self._helper = helper
        self._links = links

    async def CreateMessageBatch(self, request: httpbody_pb2.HttpBody, context: Any) -> httpbody_pb2.HttpBody:
        """Create a batch."""
        who = await self._caller(context)
        if len(request.data) > LARGE_BYTES:
            requests = await self._helper.run(bodies.read, request.data, who.account_id)
        else:
            requests = bodies.read(request.data)
        may_be_handed = _may_be_handed(context.invocation_metadata() or ()) and self._has_batches()
        given = [pair for pair in context.invocation_metadata() or () if pair[0] in _SENT and isinstance(pair[1], str)]
        headers = [text for pair in given for text in pair]
        batch = await self._batches.create(who.account_id, who.key_id, requests, headers, may_be_handed=may_be_handed)
        metrics.CREATED.labels("anthropic").inc()
        return self._body(batch)

    async def ListMessageBatches(self, request: pb.ListMessageBatchesRequest, context: Any) -> httpbody_pb2.HttpBody:
        """List batches."""
        who = await self._caller(context)
        limit = _limit(request.limit)
        page, has_more = await self._batches.page(
            who.account_id, after=request.after_id, before=request.before_id, limit=limit
        )
        ends = (page[0].id, page[-1].id) if page else (None, None)
        data = [self._shown(batch) for batch in page]
        return reply.json_body({"data": data, "has_more": has_more, "first_id": ends[0], "last_id": ends[1]})

    async def GetMessageBatch(self, request: pb.GetMessageBatchRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Return a batch."""
        who = await self._caller(context)
        return self._body(await self._batches.get(who.account_id, request.message_batch_id))

    async def CancelMessageBatch(self, request: pb.CancelMessageBatchRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Begin no more of a batch's requests."""
        who = await self._caller(context)
        return self._body(await self._batches.cancel(who.account_id, request.message_batch_id))

    async def DeleteMessageBatch(self, request: pb.DeleteMessageBatchRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Delete a batch."""
        who = await self._caller(context)
        await self._batches.delete(who.account_id, request.message_batch_id)
        return reply.json_body({"id": request.message_batch_id, "type": "message_batch_deleted"})

    async def GetMessageBatchResults(self, request: pb.GetMessageBatchResultsRequest, context: Any) -> None:  # type: ignore[override]
        """Return a batch's results."""
        who = await self._caller(context)
        batch = await self._batches.get(who.account_id, request.message_batch_id)
        if batch.ended_at is None:
            raise NotFound("the batch has no results yet; ask for them when its processing_status is ended")
        async for page in self._batches.results(batch.id):
            lines = b"".join(_line(*each) for each in page)
            await context.write(httpbody_pb2.HttpBody(content_type=JSONL, data=lines))

    async def _caller(self, context: Any) -> VerifiedKey:
        """Return whose batches are meant. Raises PermissionDenied for a key that may ask no model for text."""
        _, who = await self._operations.caller(context)
        calls.current().fields["account"] = who.account_id
        if not who.may(quota_pb2.OPERATION_TEXT, "", ""):
            raise PermissionDenied("this key may ask no model for text; use one that may")
        return who

    def _body(self, batch: Batch) -> httpbody_pb2.HttpBody:
        calls.current().fields["batch"] = batch.id
        return reply.json_body(self._shown(batch))

    def _shown(self, batch: Batch) -> dict[str, Any]:
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": batch.status,
            "request_counts": {
                "processing": batch.processing,
                "succeeded": batch.succeeded,
                "errored": batch.errored,
                "canceled": batch.canceled,
                "expired": batch.expired,
            },
            "ended_at": _time(batch.ended_at),
            "created_at": _time(batch.created_at),
            "expires_at": _time(batch.expires_at),
            "archived_at": None,
            "cancel_initiated_at": _time(batch.cancelled_at),
            "results_url": f"{self._links.public_url}{PATH}/{batch.id}/results" if batch.ended_at else None,
        }


def _may_be_handed(metadata: Iterable[tuple[str, str | bytes]]) -> bool:
    """Return whether a provider's batch API may answer requests. Raises InvalidField for a word that is not known."""
    for name, value in metadata:
        if name == BATCH_KEY:
            if value not in (_ORDINARY, _PROVIDER):
                raise InvalidField(f"{BATCH_KEY} is {_PROVIDER} or {_ORDINARY}", param=BATCH_KEY)
            return value == _PROVIDER
    return True


def _limit(text: str) -> int:
    if not text:
        return _PAGE
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= _MOST):
        raise InvalidField(f"limit: a number from 1 to {_MOST} is expected", param="limit")
    return int(text[:9])


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _line(custom_id: str, state: int, result: bytes | None) -> bytes:
    """Return a request's result as a line."""
    if result is None:
        result = b'{"type":"canceled"}' if state == CANCELED else b'{"type":"expired"}'
    return b'{"custom_id":%b,"result":%b}\n' % (reply.encode(custom_id), result)
