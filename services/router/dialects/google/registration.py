"""The Google dialect in the router."""

from __future__ import annotations

from typing import Any, Final

import grpc

from moa.router.v1 import google_service_pb2, google_service_pb2_grpc
from services.common.dialects.registrations import Method, Registration
from services.router.dialects.google import answers, bodies, embeddings
from services.router.dialects.google.servicer import GoogleServicer
from services.router.dialects.parts import Parts


def _serve(server: grpc.aio.Server, parts: Parts) -> None:
    servicer = GoogleServicer(parts.operations, parts.listing, begin=parts.begin, reading=parts.reading)
    google_service_pb2_grpc.add_GoogleServiceServicer_to_server(servicer, server)


REGISTRATION: Final = Registration[Parts](
    contract=google_service_pb2.DESCRIPTOR,
    serve=_serve,
    methods={
        "GoogleService.GenerateContent": Method(
            reads=bodies.GenerateContentBody, answers=answers.GenerateContentResponse
        ),
        "GoogleService.StreamGenerateContent": Method(
            reads=bodies.GenerateContentBody, answers=list[dict[str, Any]], streams=True
        ),
        "GoogleService.CountTokens": Method(reads=bodies.CountBody, answers=answers.TokenCount, is_paid=False),
        "GoogleService.EmbedContent": Method(reads=embeddings.EmbedBody, answers=answers.EmbedContentResponse),
        "GoogleService.BatchEmbedContents": Method(
            reads=embeddings.BatchBody, answers=answers.BatchEmbedContentsResponse
        ),
        "GoogleService.ListModels": Method(answers=answers.GoogleModels),
        "GoogleService.GetModel": Method(answers=answers.GoogleModel),
    },
)
