"""The documented desk styling API: `POST /v1/generate`, `GET /v1/result/{task_id}`, health, info, and its webhook."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
from google.api import httpbody_pb2

from moa.desk.v1 import desk_pb2, desk_service_pb2
from moa.task.v1 import desk_task_service_pb2, desk_task_service_pb2_grpc, task_pb2
from services.common.body import parse
from services.common.dialects import DESK
from services.common.errors import InvalidField, Malformed, MoaError, error_of
from services.common.rpc import call as calls
from services.common.store import Links
from services.quota_client.tags import tags_of
from services.tasks import reply
from services.tasks.adapters.upstream import Upstream
from services.tasks.api import idempotency_key, note
from services.tasks.dialects.media import image_of
from services.tasks.domain.task import Task
from services.tasks.operations import Operations, Order

MAX_SIDE: Final = 8192
"""The document's limit: sides of this size and more are refused."""

_SKIPPED: Final = {
    desk_pb2.SKIP_REASON_NOT_A_DESK: "not_a_desk",
    desk_pb2.SKIP_REASON_SYNTHESIS_FAILED: "synthesis_failed",
}


class DeskTaskBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/generate`."""

    initial_image_url: str | None = None
    image_url: str | None = None
    prompt: str | None = None
    negative_prompt: str = ""
    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    height: int = 1024
    width: int = 1024
    seed: int | None = None
    webhook_url: str | None = None


_DECODER: Final = msgspec.json.Decoder(DeskTaskBody)


def order_of(data: bytes, key: str, *, model: str) -> Order:
    """Read the body. Raises Malformed, or InvalidField with the document's sentence."""
    body = parse(data, _DECODER)
    url = body.initial_image_url or body.image_url or ""
    if not (url if body.prompt is None else body.prompt.strip()):
        raise Malformed("Prompt must not be empty.", param="prompt")
    _check_numbers(body)
    if url:
        image_of(url, param="initial_image_url")
    desk = desk_service_pb2.StyleDeskRequest(
        initial_image_url=url,
        prompt=body.prompt or "",
        negative_prompt=body.negative_prompt,
        num_inference_steps=body.num_inference_steps,
        guidance_scale=body.guidance_scale,
        height=body.height,
        width=body.width,
        seed=body.seed,
    )
    return Order(
        work=task_pb2.TaskWork(desk=desk),
        dialect="desk",
        given=url.encode() if not url.startswith("data:") else b"",
        model=model,
        webhook_url=body.webhook_url or "",
        idempotency_key=key,
    )


def _check_numbers(body: DeskTaskBody) -> None:
    if not math.isfinite(body.guidance_scale):
        raise InvalidField("Guidance scale must be a number.", param="guidance_scale")
    if body.guidance_scale < 0:
        raise InvalidField("Guidance scale cannot be negative.", param="guidance_scale")
    if body.guidance_scale > 50:
        raise InvalidField("Guidance scale must be at most 50.", param="guidance_scale")
    if not 1 <= body.num_inference_steps <= 150:
        raise InvalidField("Number of inference steps must be 1 to 150.", param="num_inference_steps")
    for name, side in (("Height", body.height), ("Width", body.width)):
        if not 8 <= side < MAX_SIDE:
            raise InvalidField(f"{name} must be at least 8 and below {MAX_SIDE}.", param=name.lower())
    if body.seed is not None and not -(2**63) <= body.seed < 2**63:
        raise InvalidField("Seed must fit 64 bits.", param="seed")


def result_of(task: Task, shown: task_pb2.Task) -> dict[str, Any]:
    """Return the document's object of a task: while it runs, and when it has ended."""
    if shown.state == task_pb2.TASK_STATE_SUCCEEDED:
        return _done(task, shown)
    if shown.state == task_pb2.TASK_STATE_FAILED:
        return {"status": "failed", **DESK.render(error_of(shown.error))}
    if shown.state == task_pb2.TASK_STATE_CANCELLED:
        return {"status": "failed", "error_code": "CANCELLED", "message": "The task was cancelled."}
    results: dict[str, Any] = {"status": "processing"}
    if shown.HasField("progress"):
        progress = shown.progress
        results["stage"] = progress.stage
        if progress.steps:
            results |= {"step": progress.step, "steps": progress.steps}
        if progress.HasField("eta"):
            results["eta_s"] = round(progress.eta.ToMilliseconds() / 1000, 3)
        if progress.preview_link:
            results["preview"] = progress.preview_link
    return results


def _done(task: Task, shown: task_pb2.Task) -> dict[str, Any]:
    results: dict[str, Any] = {
        "status": "done",
        "initial_image_url": task.given.decode() or None,
        "processed_image_url": shown.outputs[0].link if shown.outputs else None,
    }
    if shown.desk.skipped:
        results["skipped"] = _SKIPPED[shown.desk.skipped]
    # Items' names are of a closed set, none of which is a field's name.
    for item in shown.desk.items:
        results[item.name] = [_offer(offer) for offer in item.offers]
    return results


def _offer(offer: desk_pb2.Offer) -> dict[str, str]:
    return {
        "title": offer.title,
        "price": f"{offer.price_won}원",
        "mall": offer.mall,
        "category3": offer.category3,
        "category4": offer.category4,
        "link": offer.link,
        "image": offer.image,
    }


def callback(task: Task, shown: task_pb2.Task, _links: Links) -> bytes:
    """Return the webhook's body: the result, with the task's id and the image's link."""
    link = shown.outputs[0].link if shown.outputs else None
    return reply.encode({**result_of(task, shown), "task_id": shown.id, "image_url": link})


class DeskTaskServicer(desk_task_service_pb2_grpc.DeskTaskServiceServicer):
    """Answers the documented desk API.

    Args:
        operations: What can be done with tasks.
        upstream: The desk service, for health and info.
        model: The image model that desks are made with.
    """

    def __init__(self, operations: Operations, upstream: Upstream, *, model: str) -> None:
        self._operations = operations
        self._upstream = upstream
        self._model = model

    async def CreateDeskTask(self, request: httpbody_pb2.HttpBody, context: Any) -> httpbody_pb2.HttpBody:
        """Begin to style a desk."""
        key, who = await self._operations.caller(context)
        order = order_of(request.data, idempotency_key(context), model=self._model)
        tags = tags_of(context.invocation_metadata() or ())
        task = await self._operations.create(key, who, order, request_id=calls.current().request_id, tags=tags)
        note(task)
        await reply.with_status(context, 202)
        return reply.json_body({"task_id": task.id, "status": "queued"})

    async def GetDeskResult(
        self, request: desk_task_service_pb2.GetDeskResultRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Return a task's state and result."""
        _, who = await self._operations.caller(context)
        task = await self._operations.get(who, request.id)
        return reply.json_body(result_of(task, await self._operations.shown(task)))

    async def CheckDeskHealth(
        self, request: desk_task_service_pb2.CheckDeskHealthRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Tell how every part is: 503 when one is down that no desk can be made without."""
        parts: dict[str, dict[str, str]] = {"tasks": {"status": "ok"}}
        whole = True
        try:
            await self._operations.healthy()
        except MoaError as error:
            whole = False
            parts["tasks"] = {"status": "down", "detail": error.message}
        try:
            health = await self._upstream.desk_health()
        except MoaError as error:
            whole = False
            parts["desk"] = {"status": "down", "detail": error.message}
        else:
            parts["desk"] = {"status": "ok"}
            for part in health.dependencies:
                whole = whole and (part.healthy or part.optional)
                status = "ok" if part.healthy else "not_configured" if part.not_configured else "down"
                parts[part.name] = {"status": status, **({"detail": part.detail} if part.detail else {})}
        if not whole:
            await reply.with_status(context, 503)
        well = all(part["status"] in ("ok", "not_configured") for part in parts.values())
        status = "ok" if well else "degraded" if whole else "down"
        return reply.json_body({"status": status, "dependencies": parts})

    async def GetDeskInfo(
        self, request: desk_task_service_pb2.GetDeskInfoRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Tell what the pipeline runs with."""
        info = await self._upstream.desk_info()
        return reply.json_body(
            {
                "version": info.version,
                "model": info.model,
                "lora": info.lora or None,
                "resolution": {"width": info.width, "height": info.height},
                "defaults": {
                    "num_inference_steps": info.num_inference_steps,
                    "guidance_scale": info.guidance_scale,
                    "height": info.height,
                    "width": info.width,
                },
                "items": list(info.items),
            }
        )
