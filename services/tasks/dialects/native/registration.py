"""The native API in the task service."""

from __future__ import annotations

from typing import Final

import grpc

from moa.task.v1 import task_service_pb2, task_service_pb2_grpc
from services.common.dialects.registrations import Method
from services.common.rereading import rereading
from services.tasks.api import TaskServicer
from services.tasks.dialects.native import render
from services.tasks.dialects.parts import Parts, TaskRegistration


def _serve(server: grpc.aio.Server, parts: Parts) -> None:
    task_service_pb2_grpc.add_TaskServiceServicer_to_server(rereading(TaskServicer(parts.operations)), server)


REGISTRATION: Final = TaskRegistration(
    contract=task_service_pb2.DESCRIPTOR,
    serve=_serve,
    methods={
        "TaskService.CreateTask": Method(creates_task=True),
        "TaskService.StreamTask": Method(streams=True),
    },
    kept_as="native",
    callback=render.callback,
)
