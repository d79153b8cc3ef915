"""A task as a prediction: the object that the public clients parse, and its event stream."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from moa.task.v1 import task_pb2
from services.common.store import Links
from services.tasks import reply
from services.tasks.domain.task import Task

_STATUS: Final = {
    task_pb2.TASK_STATE_PENDING: "starting",
    task_pb2.TASK_STATE_SUBMITTED: "starting",
    task_pb2.TASK_STATE_RUNNING: "processing",
    task_pb2.TASK_STATE_SUCCEEDED: "succeeded",
    task_pb2.TASK_STATE_FAILED: "failed",
    task_pb2.TASK_STATE_CANCELLED: "canceled",
}


class KeptRequest(msgspec.Struct):
    """What is kept of a prediction's request, to be shown again."""

    path: str
    input: dict[str, Any]


_GIVEN: Final = msgspec.json.Decoder(KeptRequest)


def stream_path(task_id: str) -> str:
    """Return the path at which a prediction is followed."""
    return f"/v1/predictions/{task_id}/stream"


def prediction(task: Task, shown: task_pb2.Task, links: Links) -> dict[str, Any]:
    """Return a prediction object."""
    given = (
        _GIVEN.decode(task.given) if task.dialect == "predictions" else KeptRequest(f"{task.provider}/{task.model}", {})
    )
    base = f"{links.public_url}/v1/predictions/{shown.id}"
    metrics: dict[str, Any] = {}
    if shown.HasField("started_at") and shown.HasField("ended_at"):
        metrics["predict_time"] = round(
            (shown.ended_at.ToDatetime() - shown.started_at.ToDatetime()).total_seconds(), 6
        )
    return {
        "id": shown.id,
        "model": given.path,
        "version": f"{shown.provider}/{shown.model}",
        "status": _STATUS[shown.state],
        "input": given.input,
        "output": [output.link for output in shown.outputs] or None,
        "error": reply.why(shown.error) if shown.HasField("error") else None,
        "logs": logs_of(shown.progress) if shown.HasField("progress") else "",
        "metrics": metrics,
        "created_at": reply.time_of(shown.created_at),
        "started_at": reply.time_of(shown.started_at) if shown.HasField("started_at") else None,
        "completed_at": reply.time_of(shown.ended_at) if shown.HasField("ended_at") else None,
        "data_removed": False,
        # Clients follow the stream's link without their key.
        "urls": {"get": base, "cancel": f"{base}/cancel", "stream": links.signed(stream_path(shown.id))},
    }


def logs_of(progress: task_pb2.TaskProgress) -> str:
    """Write progress as the clients read it from logs: `  45%|####      | 9/20`."""
    if not progress.steps or progress.stage not in ("diffusion", "synthesis"):
        return f"{progress.stage}\n"
    part = min(1.0, progress.step / progress.steps)
    bar = ("#" * round(part * 10)).ljust(10)
    return f"{part * 100:3.0f}%|{bar}| {progress.step}/{progress.steps}\n"


def frames(event: task_pb2.TaskEvent) -> bytes:
    """Return what of an event shows in the stream: `output`, `logs`, `error`, `done`."""
    kind = event.WhichOneof("event")
    results: list[tuple[str, str]] = []
    if kind == "output":
        results.append(("output", event.output.link))
    elif kind == "progress":
        results.append(("logs", logs_of(event.progress).rstrip("\n")))
    elif kind == "failed":
        results.append(("error", reply.encode({"detail": reply.why(event.failed.error)}).decode()))
        results.append(("done", '{"reason": "error"}'))
    elif kind == "cancelled":
        results.append(("done", '{"reason": "canceled"}'))
    elif kind == "succeeded":
        results.append(("done", "{}"))
    return b"".join(f"event: {name}\nid: {event.sequence}\ndata: {data}\n\n".encode() for name, data in results)


def callback(task: Task, shown: task_pb2.Task, links: Links) -> bytes:
    """Return a webhook's body."""
    return reply.encode(prediction(task, shown, links))
