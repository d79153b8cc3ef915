"""Azure OpenAI's images: OpenAI's image API behind deployment URLs.

https://learn.microsoft.com/azure/ai-services/openai/reference#image-generation
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import msgspec
from yarl import URL

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model, Provider
from services.providers.azure import entra, listing
from services.providers.credentials import Authority
from services.providers.http.client import Outgoing
from services.providers.image.base import Adapter, Call
from services.providers.openai import errors as openai_errors
from services.providers.openai import image as openai


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The provider's `options` in the catalogue."""

    api_version: str = "2025-04-01-preview"
    """The version of the API that is asked for."""
    login_url: str = "https://login.microsoftonline.com"
    """Where Entra tokens come from."""


def _options_of(provider: Provider) -> Options:
    return msgspec.convert(provider.options, Options)


def calls_from(request: GenerateImageRequest, model: Model, provider: Provider) -> list[Call]:
    """Return the requests. The deployment is the model's upstream name."""
    base = f"{provider.base_url.rstrip('/')}/openai/deployments/{quote(model.name, safe='')}/images/{{}}"
    url = f"{base}?api-version={_options_of(provider).api_version}"
    return openai.calls_to(url, request, model, name_model=False, documented=True)


def ignored(request: GenerateImageRequest, model: Model, provider: Provider) -> Sequence[str]:
    """Return the names of the vendor's fields that do not pass: Azure takes what OpenAI documents."""
    return openai.ignored_of(request, model, documented=True)


def authority(provider: Provider, environment: Mapping[str, str]) -> Authority:
    """Return the resource's key, or an Entra token (see `entra.authority` for what the credentials may name)."""
    return entra.authority(provider, environment, _options_of(provider).login_url, more=openai.HEADERS)


def check_request(provider: Provider) -> Outgoing:
    """Ask for the resource's models: it costs nothing and needs the key."""
    base = provider.base_url.rstrip("/")
    return Outgoing(URL(f"{base}/openai/models?api-version={_options_of(provider).api_version}"), b"", {}, "GET")


ADAPTER = Adapter(
    name="azure",
    options=Options,
    calls_from=calls_from,
    reader=openai.reader,
    error_from=openai_errors.error_from,
    authority=authority,
    request_id_header="apim-request-id",
    ignored=ignored,
    list_models=listing.list_models,
    check_request=check_request,
)
