"""Vectors of texts at a server of one's own: OpenAI's protocol."""

from __future__ import annotations

import dataclasses

import msgspec

from moa.embedding.v1.embedding_service_pb2 import EmbedTextsRequest
from services.catalogue import Model, Provider
from services.providers.embedding.base import Call
from services.providers.openai import embedding as openai
from services.providers.server import discovery
from services.providers.server.address import api_of
from services.providers.server.text import check_request


def calls_from(request: EmbedTextsRequest, model: Model, provider: Provider) -> list[Call]:
    """Return the requests."""
    return openai.calls_from(request, model, msgspec.structs.replace(provider, base_url=api_of(provider)))


ADAPTER = dataclasses.replace(
    openai.ADAPTER,
    name="server",
    calls_from=calls_from,
    list_models=discovery.list_models,
    list_s=discovery.EVERY_S,
    check_request=check_request,
)
