"""Google's list of models: `GET /v1beta/models` (ai.google.dev/api/models)."""

from __future__ import annotations

from typing import Any, Final

from google.api import httpbody_pb2

from moa.router.v1 import google_service_pb2
from services.common.dialects import Dialect
from services.common.dialects.registrations import Method
from services.router.dialects import reply
from services.router.dialects.google import answers, listing
from services.router.dialects.methods import MethodSet
from services.router.dialects.parts import Parts


class ModelsServicer:
    """Lists models."""

    def __init__(self, parts: Parts, dialect: Dialect) -> None:
        self._listing, self._caller = parts.listing, parts.begin

    async def ListModels(
        self, request: google_service_pb2.GoogleServiceListModelsRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """List the models that the key may use."""
        page = await listing.page(self._listing, self._caller(context), request.page_size, request.page_token)
        return await reply.tagged_body(context, page)

    async def GetModel(
        self, request: google_service_pb2.GoogleServiceGetModelRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Describe one model."""
        return reply.json_body(await listing.one(self._listing, self._caller(context), request.model))


METHODS: Final = MethodSet(
    servicer=ModelsServicer,
    methods={"ListModels": Method(answers=answers.GoogleModels), "GetModel": Method(answers=answers.GoogleModel)},
)
