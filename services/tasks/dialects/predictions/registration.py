"""The documented predictions API in the task service."""

from __future__ import annotations

from typing import Final

import grpc

from moa.task.v1 import prediction_service_pb2, prediction_service_pb2_grpc
from services.common.dialects.registrations import Method
from services.common.rereading import rereading
from services.tasks.dialects.parts import Parts, TaskRegistration
from services.tasks.dialects.predictions.render import callback
from services.tasks.dialects.predictions.servicer import PredictionBody, PredictionServicer


def _serve(server: grpc.aio.Server, parts: Parts) -> None:
    servicer = PredictionServicer(parts.operations, parts.files, parts.helper, parts.links)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(rereading(servicer), server)


_CREATES: Final = Method(reads=PredictionBody, creates_task=True)

REGISTRATION: Final = TaskRegistration(
    contract=prediction_service_pb2.DESCRIPTOR,
    serve=_serve,
    methods={
        "PredictionService.CreatePrediction": _CREATES,
        "PredictionService.CreateVersionPrediction": _CREATES,
        "PredictionService.StreamPrediction": Method(streams=True),
    },
    kept_as="predictions",
    callback=callback,
)
