"""What a webhook's body is: the object of the dialect in which its task was created."""

from __future__ import annotations

from moa.task.v1 import task_pb2
from services.common.dialects.registrations import registrations
from services.common.store import Links
from services.tasks import dialects
from services.tasks.dialects.native import render
from services.tasks.dialects.parts import TaskRegistration
from services.tasks.domain.task import Task

_CALLBACKS = {each.kept_as: each.callback for each in registrations(dialects, TaskRegistration) if each.callback}


def body_of(task: Task, shown: task_pb2.Task, links: Links) -> bytes:
    """Return the JSON that reports a task as it is now."""
    return _CALLBACKS.get(task.dialect, render.callback)(task, shown, links)
