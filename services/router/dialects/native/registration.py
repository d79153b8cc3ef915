"""The native API in the router."""

from __future__ import annotations

from typing import Final

import grpc

from moa.router.v1 import native_service_pb2, native_service_pb2_grpc
from services.common.dialects.registrations import Method, Registration
from services.router.dialects.native import answers, bodies
from services.router.dialects.native.servicer import NativeServicer
from services.router.dialects.parts import Parts


def _serve(server: grpc.aio.Server, parts: Parts) -> None:
    servicer = NativeServicer(parts.operations, parts.listing, parts.reading)
    native_service_pb2_grpc.add_NativeServiceServicer_to_server(servicer, server)


_IMAGES: Final = Method(reads=bodies.ImageBody, answers=answers.NativeImages, streams=True)

REGISTRATION: Final = Registration[Parts](
    contract=native_service_pb2.DESCRIPTOR,
    serve=_serve,
    methods={
        "NativeService.GenerateText": Method(reads=bodies.TextBody, answers=answers.NativeText, streams=True),
        "NativeService.CreateImage": _IMAGES,
        "NativeService.EditImage": _IMAGES,
    },
)
