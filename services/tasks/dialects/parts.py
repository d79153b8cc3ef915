"""What the task service has for its dialects, and what each registers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from moa.task.v1 import task_pb2
from services.common.credential import Credential
from services.common.dialects import Dialect
from services.common.dialects.registrations import Registration
from services.common.errors import MoaError
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
    has_batches: Callable[[], bool]
    """Returns whether a provider is asked for batches."""


@dataclass(frozen=True, kw_only=True)
class Batched:
    """How the requests of a dialect's batches are asked and answered.

    Args:
        dialect: The dialect, which words their failures.
        asks: Makes what asks the router for them, over a channel to it, by the credential between services.
    """

    dialect: Dialect
    asks: Callable[[grpc.aio.Channel, Credential], Any]

    def render(self, error: MoaError, request_id: str) -> dict[str, Any]:
        """Return an error as results show it."""
        return self.dialect.render(error, request_id=request_id)


@dataclass(frozen=True, kw_only=True)
class TaskRegistration(Registration[Parts]):
    """A dialect of tasks.

    Args:
        batched: Its batches; None where it has none.
        kept_as: What stored tasks that were created in it have as their dialect; empty where it creates none.
        callback: Returns the JSON of a webhook that reports such a task, as stored and as shown.
    """

    batched: Batched | None = None
    kept_as: str = ""
    callback: Callable[[Task, task_pb2.Task, Links], bytes] | None = None
