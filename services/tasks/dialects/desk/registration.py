"""The documented desk API in the task service."""

from __future__ import annotations

from typing import Final

import grpc

from moa.task.v1 import desk_task_service_pb2, desk_task_service_pb2_grpc
from services.common.dialects.registrations import Method
from services.common.rereading import rereading
from services.tasks.dialects.desk.servicer import DeskTaskBody, DeskTaskServicer, callback
from services.tasks.dialects.parts import Parts, TaskRegistration


def _serve(server: grpc.aio.Server, parts: Parts) -> None:
    servicer = DeskTaskServicer(parts.operations, parts.upstream, model=parts.desk_model)
    desk_task_service_pb2_grpc.add_DeskTaskServiceServicer_to_server(rereading(servicer), server)


REGISTRATION: Final = TaskRegistration(
    contract=desk_task_service_pb2.DESCRIPTOR,
    serve=_serve,
    methods={
        "DeskTaskService.CreateDeskTask": Method(reads=DeskTaskBody, creates_task=True),
        "DeskTaskService.CheckDeskHealth": Method(needs_key=False, degrades=True),
        "DeskTaskService.GetDeskInfo": Method(needs_key=False),
    },
    kept_as="desk",
    callback=callback,
)
