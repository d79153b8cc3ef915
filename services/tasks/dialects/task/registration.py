"""The documented task API in the task service: creation and query, which word a bad key differently."""

from __future__ import annotations

from typing import Final

import grpc

from moa.task.v1 import image_task_service_pb2, image_task_service_pb2_grpc
from services.common.dialects.registrations import Method
from services.common.rereading import rereading
from services.tasks.dialects.parts import Parts, TaskRegistration
from services.tasks.dialects.task.servicer import ImageTaskBody, ImageTaskQueryServicer, ImageTaskServicer, callback


def _serve(server: grpc.aio.Server, parts: Parts) -> None:
    creating, query = ImageTaskServicer(parts.operations), rereading(ImageTaskQueryServicer(parts.operations))
    image_task_service_pb2_grpc.add_ImageTaskServiceServicer_to_server(creating, server)
    image_task_service_pb2_grpc.add_ImageTaskQueryServiceServicer_to_server(query, server)


REGISTRATION: Final = TaskRegistration(
    contract=image_task_service_pb2.DESCRIPTOR,
    serve=_serve,
    methods={"ImageTaskService.CreateImageTask": Method(reads=ImageTaskBody, creates_task=True)},
    kept_as="tasks",
    callback=callback,
)
