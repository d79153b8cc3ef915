"""Images of a server of one's own: OpenAI's protocol, as vLLM-Omni and SGLang speak it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import msgspec

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model, Provider
from services.providers.credentials import Authority, bearers, optional_secret
from services.providers.image.base import Call
from services.providers.openai import image as openai
from services.providers.server import discovery
from services.providers.server.address import api_of
from services.providers.server.text import check_request


def calls_from(request: GenerateImageRequest, model: Model, provider: Provider) -> list[Call]:
    """Return the requests to `/images/generations` or `/images/edits`."""
    return openai.calls_from(request, model, msgspec.structs.replace(provider, base_url=api_of(provider)))


def authority(provider: Provider, environment: Mapping[str, str]) -> Authority:
    """Return the bearer key, or nothing for a server that asks for none."""
    return bearers(optional_secret(provider, "api_key", environment), openai.HEADERS)


ADAPTER = dataclasses.replace(
    openai.ADAPTER,
    name="server",
    calls_from=calls_from,
    authority=authority,
    list_models=discovery.list_models,
    list_s=discovery.EVERY_S,
    check_request=check_request,
)
