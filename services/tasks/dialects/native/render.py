"""The task contract's own JSON, as webhooks carry it."""

from __future__ import annotations

from google.protobuf.json_format import MessageToJson

from moa.task.v1 import task_pb2
from services.common.store import Links
from services.tasks.domain.task import Task


def callback(_task: Task, shown: task_pb2.Task, _links: Links) -> bytes:
    """Return the task in proto JSON."""
    return MessageToJson(shown, preserving_proto_field_name=True, indent=None).encode()
