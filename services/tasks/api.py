"""moa.task.v1 for gRPC callers, and its typed REST bindings."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.json_format import MessageToJson

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from services.common import idempotency
from services.common.errors import InvalidField
from services.common.limits.fields import demands_of
from services.common.rpc import call as calls
from services.quota_client.tags import tags_of
from services.tasks import reply
from services.tasks.domain.task import Task
from services.tasks.operations import Operations, Order

_PAGE: Final = 50
_MOST: Final = 200
_WITHOUT_PROMPT: Final = frozenset(
    number
    for number, demands in demands_of(GenerateImageRequest.DESCRIPTOR.fields_by_name["operation"]).items()
    if "prompt" not in demands.fields
)
"""Operations whose input image says all: a variation, an upscaling, …"""

# Streaming handlers are coroutines that call `context.write`; the stubs know only generators, hence the `override`
# ignores.


class TaskServicer(task_service_pb2_grpc.TaskServiceServicer):
    """Answers callers of the task contract."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def CreateTask(
        self, request: task_service_pb2.CreateTaskRequest, context: Any
    ) -> task_service_pb2.CreateTaskResponse:
        """Create a task."""
        key, who = await self._operations.caller(context)
        order = _order(request, idempotency_key(context))
        tags = tags_of(context.invocation_metadata() or ())
        task = await self._operations.create(key, who, order, request_id=calls.current().request_id, tags=tags)
        note(task)
        return task_service_pb2.CreateTaskResponse(task=await self._operations.shown(task))

    async def GetTask(self, request: task_service_pb2.GetTaskRequest, context: Any) -> task_service_pb2.GetTaskResponse:
        """Return a task."""
        _, who = await self._operations.caller(context)
        task = await self._operations.get(who, request.id)
        return task_service_pb2.GetTaskResponse(task=await self._operations.shown(task))

    async def ListTasks(
        self, request: task_service_pb2.ListTasksRequest, context: Any
    ) -> task_service_pb2.ListTasksResponse:
        """List tasks."""
        _, who = await self._operations.caller(context)
        size = min(_MOST, request.page_size or _PAGE)
        page, token = await self._operations.page(who, state=request.state, token=request.page_token, size=size)
        return task_service_pb2.ListTasksResponse(tasks=[shown for _, shown in page], next_page_token=token)

    async def WatchTask(self, request: task_service_pb2.WatchTaskRequest, context: Any) -> None:  # type: ignore[override]
        """Follow a task."""
        _, who = await self._operations.caller(context)
        task = await self._operations.get(who, request.id)
        async for events in self._operations.watch(task.id, request.after_sequence):
            if events:
                await context.write(task_service_pb2.WatchTaskResponse(events=events))

    async def StreamTask(self, request: task_service_pb2.StreamTaskRequest, context: Any) -> None:  # type: ignore[override]
        """Follow a task as server-sent events."""
        _, who = await self._operations.caller(context)
        task = await self._operations.get(who, request.id)
        after = request.after_sequence or last_event_id(context)
        if task.ended and task.last_sequence <= after:
            # By the specification of event streams, 204 tells the reader not to come back.
            await reply.with_status(context, 204)
            return
        async for events in self._operations.watch(task.id, after):
            await context.write(reply.sse_body(b"".join(map(_frame, events)) or reply.STILL_THERE))

    async def CancelTask(
        self, request: task_service_pb2.CancelTaskRequest, context: Any
    ) -> task_service_pb2.CancelTaskResponse:
        """End a task."""
        _, who = await self._operations.caller(context)
        task = await self._operations.cancel(who, request.id)
        return task_service_pb2.CancelTaskResponse(task=await self._operations.shown(task))

    async def ResumeTask(
        self, request: task_service_pb2.ResumeTaskRequest, context: Any
    ) -> task_service_pb2.ResumeTaskResponse:
        """Go on with a task whose outputs could not be stored."""
        key, who = await self._operations.caller(context)
        task = await self._operations.resume(key, who, request.id, request_id=calls.current().request_id)
        note(task)
        return task_service_pb2.ResumeTaskResponse(task=await self._operations.shown(task))


def _order(request: task_service_pb2.CreateTaskRequest, key: str) -> Order:
    kind = request.work.WhichOneof("work")
    if kind != "image":
        raise InvalidField("work.image is required; desks are styled by POST /v1/generate", param="work")
    image = request.work.image
    if not image.prompt.strip() and image.operation not in _WITHOUT_PROMPT:
        raise InvalidField("prompt is required", param="work.image.prompt")
    return Order(
        work=request.work,
        dialect="native",
        model=image.model,
        provider=image.provider,
        images=image.count,
        webhook_url=request.webhook_url,
        deadline_s=request.deadline.ToMilliseconds() / 1000 if request.HasField("deadline") else None,
        idempotency_key=key,
    )


def idempotency_key(context: Any) -> str:
    """Return the call's idempotency key; empty when it has none. Raises InvalidField for one that is too long."""
    return idempotency.key_in(context.invocation_metadata() or ())


def last_event_id(context: Any) -> int:
    """Return the number of the last event that a reader who comes back has seen; 0 when it says nothing of ours."""
    text = header(context, "last-event-id")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def header(context: Any, wanted: str) -> str:
    """Return a header of the call; empty when it has none."""
    for name, value in context.invocation_metadata() or ():
        if name == wanted and isinstance(value, str):
            return value.strip()
    return ""


def note(task: Task) -> None:
    """Put a task on the call's log line."""
    calls.current().fields.update(account=task.account_id, task=task.id, provider=task.provider, model=task.model)


def _frame(event: task_pb2.TaskEvent) -> bytes:
    data = MessageToJson(event, preserving_proto_field_name=True, indent=None)
    return f"id: {event.sequence}\nevent: {event.WhichOneof('event')}\ndata: {data}\n\n".encode()
