"""What the task service has for its dialects, and what each registers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moa.task.v1 import task_pb2
from services.common.dialects.registrations import Registration
from services.common.helper_process import HelperProcess
from services.common.store import Links
from services.tasks.adapters.batches import Batches
from services.tasks.adapters.files import Files
from services.tasks.adapters.upstream import Upstream
from services.tasks.domain.task import Task
from services.tasks.operations import Operations


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a dialect's servicer is made of."""

    operations: Operations
    upstream: Upstream
    """The router, and the desk service."""
    files: Files
    batches: Batches
    helper: HelperProcess
    links: Links
    desk_model: str
    """The image model that desks are made with."""


@dataclass(frozen=True, kw_only=True)
class TaskRegistration(Registration[Parts]):
    """A dialect of tasks.

    Args:
        kept_as: What stored tasks that were created in it have as their dialect; empty where it creates none.
        callback: Returns the JSON of a webhook that reports such a task, as stored and as shown.
    """

    kept_as: str = ""
    callback: Callable[[Task, task_pb2.Task, Links], bytes] | None = None
