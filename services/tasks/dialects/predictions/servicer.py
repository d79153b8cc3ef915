"""The predictions API's handlers."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from google.api import httpbody_pb2

from moa.quota.v1 import quota_pb2
from moa.task.v1 import prediction_service_pb2 as pb
from moa.task.v1 import prediction_service_pb2_grpc, task_pb2
from services.catalogue import Model
from services.common.body import parse
from services.common.errors import InvalidField, ModelNotFound, NotFound, PermissionDenied
from services.common.helper_process import HelperProcess
from services.common.large import LARGE_BYTES
from services.common.rpc import call as calls
from services.common.store import Links
from services.quota_client.tags import tags_of
from services.tasks import reply
from services.tasks.adapters.files import Files
from services.tasks.api import header, idempotency_key, last_event_id, note
from services.tasks.dialects.predictions import files as uploads
from services.tasks.dialects.predictions import paths
from services.tasks.dialects.predictions.render import KeptRequest, frames, prediction, stream_path
from services.tasks.domain.task import Task
from services.tasks.operations import Operations, Order
from services.tasks.ports import VerifiedKey

WAIT_S: Final = 60.0
"""How long an answer waits for a prediction's end at most, and by default."""
_PAGE: Final = 100
_EVENTS: Final = ("start", "output", "logs", "completed")
_WAIT: Final = re.compile(r"wait(?:\s*=\s*(\d+(?:\.\d+)?))?", re.ASCII)
_CLIENTS: Final = ("replicate-", "replicate/")
"""How the `User-Agent` of the public clients begins: `replicate-python/…`, `replicate-javascript/…`, `replicate/…`."""


class PredictionBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of a prediction's creation."""

    input: dict[str, Any] = {}
    version: str = ""
    model: str = ""
    webhook: str | None = None
    webhook_events_filter: list[str] | None = None
    stream: bool | None = None


_DECODER: Final = msgspec.json.Decoder(PredictionBody)


def wait_s(prefer: str, agent: str) -> float:
    """Tell how long the answer may wait, by the headers `Prefer` and `User-Agent`.

    The document's callers send no `Prefer` and expect to wait. The public clients (`replicate-python/1.0.7`) say when
    they want to; for `wait=False` they say nothing, and a wait would be none of their asking. Raises InvalidField for
    a time out of range.
    """
    for part in prefer.lower().split(","):
        choice = part.partition(";")[0].strip()
        if choice == "respond-async":
            return 0.0
        match = _WAIT.fullmatch(choice)
        if match and match[1] is not None:
            seconds = float(match[1])
            if not 1 <= seconds <= WAIT_S:
                raise InvalidField(f"Prefer: wait takes 1 to {WAIT_S:.0f} seconds", param="Prefer")
            return seconds
        if match:
            return WAIT_S
    return 0.0 if agent.lower().startswith(_CLIENTS) else WAIT_S


_LISTED: Final = "GET /v1/models lists the models that you may use"


class PredictionServicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers the documented predictions API.

    Args:
        operations: What can be done with tasks.
        files: What callers uploaded.
        helper: Where large uploads are read.
        links: Signs what is followed without a key, and knows where callers reach this gateway.
    """

    def __init__(self, operations: Operations, files: Files, helper: HelperProcess, links: Links) -> None:
        self._operations = operations
        self._files = files
        self._helper = helper
        self._links = links

    async def CreatePrediction(self, request: pb.CreatePredictionRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Create a prediction of the path's model."""
        key, who = await self._operations.caller(context)
        return await self._create(key, who, request.model_path, parse(request.body.data, _DECODER), context)

    async def CreateVersionPrediction(self, request: httpbody_pb2.HttpBody, context: Any) -> httpbody_pb2.HttpBody:
        """Create a prediction of the model that the body names."""
        key, who = await self._operations.caller(context)
        body = parse(request.data, _DECODER)
        path = body.model or paths.of_version(body.version)
        if not path:
            raise InvalidField("version or model is required", param="version")
        return await self._create(key, who, path, body, context)

    async def GetPrediction(self, request: pb.GetPredictionRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Return a prediction."""
        _, who = await self._operations.caller(context)
        return await self._shown(await self._operations.get(who, request.prediction_id))

    async def ListPredictions(self, request: pb.ListPredictionsRequest, context: Any) -> httpbody_pb2.HttpBody:
        """List predictions."""
        _, who = await self._operations.caller(context)
        page, token = await self._operations.page(who, dialect="predictions", token=request.cursor, size=_PAGE)
        following = f"{self._links.public_url}/v1/predictions?cursor={token}" if token else None
        results = [prediction(task, shown, self._links) for task, shown in page]
        return reply.json_body({"previous": None, "next": following, "results": results})

    async def CancelPrediction(self, request: pb.CancelPredictionRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Cancel a prediction; answers when it has ended, or after a few seconds."""
        _, who = await self._operations.caller(context)
        task = await self._operations.cancel(who, request.prediction_id)
        return await self._shown(await self._operations.until_end(who, task, 5.0))

    async def StreamPrediction(self, request: pb.StreamPredictionRequest, context: Any) -> None:  # type: ignore[override]
        """Follow a prediction."""
        task = await self._followed(request, context)
        after = last_event_id(context)
        if task.ended and task.last_sequence <= after:
            await reply.with_status(context, 204)
            return
        async for events in self._operations.watch(task.id, after):
            out = b"".join(map(frames, events)) if events else reply.STILL_THERE
            if out:
                await context.write(reply.sse_body(out))

    async def CreateFile(self, request: httpbody_pb2.HttpBody, context: Any) -> httpbody_pb2.HttpBody:
        """Keep a file for a day."""
        account_id = await self._owner(context)
        if len(request.data) > LARGE_BYTES:
            found = await self._helper.run(uploads.read, request.data, account_id, request.content_type)
        else:
            found = uploads.read(request.data, request.content_type)
        file = await self._files.create(
            account_id, found.data, found.info, filename=found.filename, metadata=found.metadata
        )
        await reply.with_status(context, 201)
        return reply.json_body(uploads.shown(file, self._links))

    async def ListFiles(self, request: pb.ListFilesRequest, context: Any) -> httpbody_pb2.HttpBody:
        """List files: all that an account may have are one page."""
        files = await self._files.list(await self._owner(context))
        results = [uploads.shown(file, self._links) for file in files]
        return reply.json_body({"previous": None, "next": None, "results": results})

    async def GetFile(self, request: pb.GetFileRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Return a file."""
        file = await self._files.get(await self._owner(context), request.file_id)
        return reply.json_body(uploads.shown(file, self._links))

    async def DeleteFile(self, request: pb.DeleteFileRequest, context: Any) -> httpbody_pb2.HttpBody:
        """Delete a file."""
        await self._files.delete(await self._owner(context), request.file_id)
        await reply.with_status(context, 204)
        return httpbody_pb2.HttpBody()

    async def _owner(self, context: Any) -> str:
        """Return whose files are meant. Raises PermissionDenied for a key that could use them for nothing."""
        _, who = await self._operations.caller(context)
        if not who.may(quota_pb2.OPERATION_TASK, "", ""):
            raise PermissionDenied("this key may not use tasks; use one that may, or permit this one tasks")
        return who.account_id

    async def _followed(self, request: pb.StreamPredictionRequest, context: Any) -> Task:
        if not request.signature:
            _, who = await self._operations.caller(context)
            return await self._operations.get(who, request.prediction_id)
        path = stream_path(request.prediction_id)
        self._links.check(path, expires=request.expires, signature=request.signature)
        return await self._operations.linked(request.prediction_id)

    async def _create(
        self, key: str, who: VerifiedKey, path: str, body: PredictionBody, context: Any
    ) -> httpbody_pb2.HttpBody:
        seconds = wait_s(header(context, "prefer"), header(context, "user-agent"))
        known = paths.find(path)
        request = paths.request_of(known, body.input)
        model = self._model(who, known, path)
        ignored = paths.fitted(known, request, body.input, model)
        order = Order(
            work=task_pb2.TaskWork(image=request),
            dialect="predictions",
            given=reply.encode(KeptRequest(path, _without_bytes(body.input))),
            model=model.id,
            provider=model.provider,
            images=request.count,
            webhook_url=body.webhook or "",
            webhook_events=_filter(body),
            webhook_param="webhook",
            idempotency_key=idempotency_key(context),
        )
        tags = tags_of(context.invocation_metadata() or ())
        task = await self._operations.create(key, who, order, request_id=calls.current().request_id, tags=tags)
        note(task)
        if seconds:
            task = await self._operations.until_end(who, task, seconds)
        await reply.with_status(context, 201, ("x-moa-ignored", ", ".join(ignored)))
        return await self._shown(task)

    def _model(self, who: VerifiedKey, known: paths.Path, path: str) -> Model:
        for name in known.names:
            try:
                return self._operations.model(who, name)
            except (ModelNotFound, NotFound):
                continue
        raise ModelNotFound(f"model {path[:200]} is not configured here; {_LISTED}", param="model")

    async def _shown(self, task: Task) -> httpbody_pb2.HttpBody:
        return reply.json_body(prediction(task, await self._operations.shown(task), self._links))


def _filter(body: PredictionBody) -> tuple[str, ...]:
    wanted = body.webhook_events_filter
    if wanted is None:
        return _EVENTS
    for event in wanted:
        if event not in _EVENTS:
            raise InvalidField(
                f"webhook_events_filter: one of {', '.join(_EVENTS)} is expected", param="webhook_events_filter"
            )
    return tuple(dict.fromkeys(wanted))


def _without_bytes(given: dict[str, Any]) -> dict[str, Any]:
    """Leave out images that were given as bytes: they are not shown again, and would be kept twice."""
    return {
        name: "data:" if isinstance(value, str) and value.startswith("data:") else value
        for name, value in given.items()
    }
