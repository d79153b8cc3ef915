"""Azure OpenAI's embeddings: OpenAI's protocol behind deployment URLs.

https://learn.microsoft.com/azure/ai-services/openai/reference#embeddings
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from yarl import URL

from moa.embedding.v1.embedding_service_pb2 import EmbedTextsRequest
from services.catalogue import Model, Provider
from services.providers.azure import entra, listing
from services.providers.credentials import JSON_HEADERS, Authority
from services.providers.embedding.base import Adapter, Call
from services.providers.http.client import Outgoing
from services.providers.openai import embedding as openai
from services.providers.openai.errors import error_from
from services.providers.openai.text.request import url_of


class Options(openai.Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The provider's `options` in the catalogue: OpenAI's, and Azure's own."""

    api_version: str = "2024-10-21"
    """The version of the API that is asked for."""
    login_url: str = "https://login.microsoftonline.com"
    """Where Entra tokens come from; sovereign clouds have their own."""


def _options_of(provider: Provider) -> Options:
    return msgspec.convert(provider.options, Options)


def calls_from(request: EmbedTextsRequest, model: Model, provider: Provider) -> list[Call]:
    """Return the requests. The deployment is the model's upstream name."""
    options = _options_of(provider)
    path = f"/openai/deployments/{quote(model.name, safe='')}/embeddings?api-version={options.api_version}"
    return openai.calls_to(url_of(provider.base_url, path), request, model, options, {})


def authority(provider: Provider, environment: Mapping[str, str]) -> Authority:
    """Return the resource's key, or an Entra token (see `entra.authority` for what the credentials may name)."""
    return entra.authority(provider, environment, _options_of(provider).login_url, more=JSON_HEADERS)


def check_request(provider: Provider) -> Outgoing:
    """Ask for the resource's models: it costs nothing and needs the key."""
    base = provider.base_url.rstrip("/")
    return Outgoing(URL(f"{base}/openai/models?api-version={_options_of(provider).api_version}"), b"", {}, "GET")


ADAPTER = Adapter(
    name="azure",
    options=Options,
    calls_from=calls_from,
    answer_from=openai.answer_from,
    error_from=error_from,
    authority=authority,
    request_id_header="apim-request-id",
    list_models=listing.list_models,
    check_request=check_request,
)
