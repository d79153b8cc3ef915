"""OpenAI's list of models: `GET /v1/models` (platform.openai.com/docs/api-reference/models)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from google.api import httpbody_pb2

from moa.router.v1 import openai_service_pb2
from services.catalogue import Model
from services.common.dialects import Dialect
from services.common.dialects.registrations import Method
from services.common.errors import InvalidField
from services.router.dialects import reply
from services.router.dialects.anthropic import answers as anthropic_answers
from services.router.dialects.anthropic import listing as anthropic
from services.router.dialects.google import answers as google_answers
from services.router.dialects.google import listing as google
from services.router.dialects.methods import MethodSet
from services.router.dialects.openai import answers
from services.router.dialects.parts import Parts
from services.router.serving import begin


class ModelsServicer:
    """Lists models."""

    def __init__(self, parts: Parts, dialect: Dialect) -> None:
        self._listing, self._caller = parts.listing, parts.begin

    async def ListModels(
        self, request: openai_service_pb2.OpenAIServiceListModelsRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """List the models that the key may use; in another vendor's form for a caller with that vendor's header."""
        if google.is_asked(context):
            page = await google.page(self._listing, self._caller(context), request.page_size, request.page_token)
            return await reply.tagged_body(context, page)
        if anthropic.is_asked(context):
            limit = request.limit if request.HasField("limit") else anthropic.PAGE
            listed = await anthropic.page(self._listing, begin(context), request.after_id, request.before_id, limit)
            return await reply.tagged_body(context, listed)
        models = await self._listing.models(begin(context))
        data = [await self._model(m) for m in page_of(models, request.after, request.limit, self._listing.name)]
        return await reply.tagged_body(context, {"object": "list", "data": data})

    async def GetModel(
        self, request: openai_service_pb2.OpenAIServiceGetModelRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Describe one model; as ListModels."""
        if google.is_asked(context):
            return reply.json_body(await google.one(self._listing, self._caller(context), request.model))
        if anthropic.is_asked(context):
            return reply.json_body(await anthropic.one(self._listing, begin(context), request.model))
        return reply.json_body(await self._model(await self._listing.model(begin(context), request.model)))

    async def _model(self, model: Model) -> dict[str, Any]:
        """Return a model as OpenAI does; one of the gateway's own with how far it is."""
        rendered: dict[str, Any] = {
            "id": self._listing.name(model),
            "object": "model",
            "created": model.created,
            "owned_by": model.provider,
        }
        if model.aliases:
            rendered["aliases"] = list(model.aliases)
        known = self._listing.described(model)
        rendered |= {
            "context_tokens": known.context_tokens,
            "max_output_tokens": known.max_output_tokens,
            "input_modalities": known.inputs,
            "output_modalities": known.outputs,
            "capabilities": known.capabilities,
            "prices": known.prices,
            "retires": known.retires,
            "successor": known.successor,
        }
        if known.loras:
            rendered["loras"] = known.loras
        return rendered | await self._listing.readiness(model)


def page_of(models: list[Model], after: str, limit: int, name: Callable[[Model], str]) -> list[Model]:
    """Return the models behind the one that is listed by an id, `limit` of them at most; 0: all."""
    if limit < 0:
        raise InvalidField("limit must not be negative", param="limit")
    start = 0
    if after:
        start = next((place for place, model in enumerate(models, 1) if after in (name(model), model.full_id)), 0)
        if not start:
            raise InvalidField("after is the id of none of the models", param="after")
    return models[start : start + limit] if limit else models[start:]


METHODS: Final = MethodSet(
    servicer=ModelsServicer,
    methods={
        # The path is Google's and Anthropic's too; the caller's header tells whose answer it is.
        "ListModels": Method(
            answers=answers.OpenAIModels | google_answers.GoogleModels | anthropic_answers.AnthropicModels
        ),
        "GetModel": Method(answers=answers.OpenAIModel | google_answers.GoogleModel | anthropic_answers.AnthropicModel),
    },
)
