"""The documented task API: `POST /api/image/gen`, `GET /api/task/query`, and its callback."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from google.api import httpbody_pb2

from moa.image.v1 import image_service_pb2
from moa.task.v1 import image_task_service_pb2, image_task_service_pb2_grpc, task_pb2
from services.common.body import parse
from services.common.errors import InvalidField
from services.common.rpc import call as calls
from services.common.store import Links
from services.quota_client.tags import tags_of
from services.tasks import reply
from services.tasks.api import idempotency_key, note
from services.tasks.dialects.media import image_of
from services.tasks.domain.task import Task
from services.tasks.operations import Operations, Order

MAX_REFERENCES: Final = 4


class ImageTaskBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /api/image/gen`."""

    model: str = ""
    prompt: str = ""
    images: list[str] | None = None
    callback_url: str | None = None


_DECODER: Final = msgspec.json.Decoder(ImageTaskBody)

_STATUS: Final = {
    task_pb2.TASK_STATE_SUBMITTED: "submitted",
    task_pb2.TASK_STATE_RUNNING: "in_progress",
    task_pb2.TASK_STATE_SUCCEEDED: "success",
    task_pb2.TASK_STATE_FAILED: "failed",
    # The document knows no cancelling; it ended without a result.
    task_pb2.TASK_STATE_CANCELLED: "failed",
}


def order_of(data: bytes, key: str) -> Order:
    """Read the body. Raises Malformed or InvalidField."""
    body = parse(data, _DECODER)
    if not body.prompt.strip():
        raise InvalidField("prompt is required", param="prompt")
    if not body.model:
        raise InvalidField("model is required", param="model")
    references = body.images or []
    if len(references) > MAX_REFERENCES:
        raise InvalidField(f"at most {MAX_REFERENCES} images", param="images")
    image = image_service_pb2.GenerateImageRequest(prompt=body.prompt, count=1)
    image.images.extend(image_of(text, param=f"images[{n}]") for n, text in enumerate(references))
    return Order(
        work=task_pb2.TaskWork(image=image),
        dialect="tasks",
        model=body.model,
        webhook_url=body.callback_url or "",
        webhook_param="callback_url",
        idempotency_key=key,
    )


def result_of(shown: task_pb2.Task) -> dict[str, Any]:
    """Return the document's object of a task's result."""
    message: str | None = None
    if shown.state == task_pb2.TASK_STATE_FAILED:
        message = reply.why(shown.error)
    elif shown.state == task_pb2.TASK_STATE_CANCELLED:
        message = "cancelled"
    succeeded = shown.state == task_pb2.TASK_STATE_SUCCEEDED
    return {
        "result": [{"image": output.link} for output in shown.outputs] if succeeded else None,
        "status": _status(shown),
        "task_id": shown.id,
        "consumed": f"{shown.consumed_micros // 1_000_000}.{shown.consumed_micros % 1_000_000:06d}",
        "status_reason": {"message": message},
    }


def callback(_task: Task, shown: task_pb2.Task, _links: Links) -> bytes:
    """Return the callback's body."""
    return reply.encode(result_of(shown))


def _status(shown: task_pb2.Task) -> str:
    if shown.state == task_pb2.TASK_STATE_PENDING:
        return "submitted" if shown.attempts else "pending"
    return _STATUS[shown.state]


class ImageTaskServicer(image_task_service_pb2_grpc.ImageTaskServiceServicer):
    """Creates image tasks."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def CreateImageTask(self, request: httpbody_pb2.HttpBody, context: Any) -> httpbody_pb2.HttpBody:
        """Create an image task."""
        key, who = await self._operations.caller(context)
        order = order_of(request.data, idempotency_key(context))
        tags = tags_of(context.invocation_metadata() or ())
        task = await self._operations.create(key, who, order, request_id=calls.current().request_id, tags=tags)
        note(task)
        return reply.json_body({"code": 0, "message": "ok", "data": {"task_id": task.id}})


class ImageTaskQueryServicer(image_task_service_pb2_grpc.ImageTaskQueryServiceServicer):
    """Shows image tasks."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def QueryImageTask(
        self, request: image_task_service_pb2.QueryImageTaskRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Return a task's state and result."""
        _, who = await self._operations.caller(context)
        if not request.task_id:
            raise InvalidField("task_id is required", param="task_id")
        shown = await self._operations.shown(await self._operations.get(who, request.task_id))
        data = {**result_of(shown), "created_at": reply.time_of(shown.created_at)}
        return reply.json_body({"code": 0, "message": "ok", "data": data})
