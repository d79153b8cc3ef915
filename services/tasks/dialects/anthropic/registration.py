"""Anthropic's Message Batches API in the task service."""

from __future__ import annotations

from typing import Final

import grpc

from moa.task.v1 import message_batch_service_pb2, message_batch_service_pb2_grpc
from services.common.dialects import ANTHROPIC
from services.common.dialects.registrations import Method
from services.common.rereading import rereading
from services.tasks.dialects.anthropic.asking import Messages
from services.tasks.dialects.anthropic.bodies import BatchBody
from services.tasks.dialects.anthropic.servicer import MessageBatchServicer
from services.tasks.dialects.parts import Batched, Parts, TaskRegistration


def _serve(server: grpc.aio.Server, parts: Parts) -> None:
    servicer = MessageBatchServicer(
        parts.operations, parts.batches, parts.helper, parts.links, has_batches=parts.has_batches
    )
    message_batch_service_pb2_grpc.add_MessageBatchServiceServicer_to_server(rereading(servicer), server)


REGISTRATION: Final = TaskRegistration(
    contract=message_batch_service_pb2.DESCRIPTOR,
    batched=Batched(dialect=ANTHROPIC, asks=Messages),
    serve=_serve,
    methods={
        "MessageBatchService.CreateMessageBatch": Method(reads=BatchBody),
        "MessageBatchService.CancelMessageBatch": Method(is_paid=False),
    },
)
