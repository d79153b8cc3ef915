"""What a webhook's body is: the object of the dialect in which its task was created."""

from __future__ import annotations

from moa.task.v1 import task_pb2
from services.common.store import Links
from services.tasks.dialects import desk, native, predictions, tasks
from services.tasks.domain.task import Task


def body_of(task: Task, shown: task_pb2.Task, links: Links) -> bytes:
    """Return the JSON that reports a task as it is now."""
    if task.dialect == "tasks":
        return tasks.callback(shown)
    if task.dialect == "desk":
        return desk.callback(task, shown)
    if task.dialect == "predictions":
        return predictions.callback(task, shown, links)
    return native.callback(shown)
