"""Azure OpenAI, with a resource key or an Entra token: chats behind deployment URLs, and where a row says so responses.

https://learn.microsoft.com/azure/ai-services/openai/reference
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import quote

import msgspec
from yarl import URL

from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model, Provider
from services.providers.azure import entra, listing
from services.providers.credentials import Authority
from services.providers.http.client import Outgoing
from services.providers.openai import text as openai
from services.providers.openai.errors import error_from
from services.providers.openai.responses import request as responses_request
from services.providers.openai.text.carried import VENDOR
from services.providers.openai.text.request import Options, body_from, url_of
from services.providers.text.base import Adapter
from services.providers.text.ignored import Ignored

_encode: Final = msgspec.json.Encoder().encode


class AzureOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The provider's `options` in the catalogue: OpenAI's, and Azure's own."""

    api_version: str = "2024-10-21"
    """The version of the API that is asked for."""
    passes: Literal["all", "documented"] = "documented"
    login_url: str = "https://login.microsoftonline.com"
    """Where Entra tokens come from; sovereign clouds have their own."""


def options_of(provider: Provider) -> AzureOptions:
    """Read the provider's options. Raises msgspec.ValidationError for a bad one."""
    return msgspec.convert(provider.options, AzureOptions)


def request_from(request: GenerateTextRequest, model: Model, provider: Provider, ignored: Ignored) -> Outgoing:
    """Return the HTTP request for a chat, by the API that its row names. The deployment is the model's name."""
    options = options_of(provider)
    if model.limits.method == "responses":
        # Azure's next-generation paths, which have no versions: the deployment stands in the body.
        body = responses_request.body_from(request, model, options.system_role, ignored)
        return Outgoing(url_of(provider.base_url, "/openai/v1/responses"), _encode(body), {})
    path = f"/openai/deployments/{quote(model.name, safe='')}/chat/completions?api-version={options.api_version}"
    return Outgoing(url_of(provider.base_url, path), _encode(body_from(request, model, options, ignored)), {})


def authority(provider: Provider, environment: Mapping[str, str]) -> Authority:
    """Return the resource's key, or an Entra token (see `entra.authority` for what the credentials may name)."""
    return entra.authority(provider, environment, options_of(provider).login_url)


def check_request(provider: Provider) -> Outgoing:
    """Ask for the resource's models: it costs nothing and needs the key."""
    base = provider.base_url.rstrip("/")
    url = URL(f"{base}/openai/models?api-version={options_of(provider).api_version}")
    return Outgoing(url, b"", {}, "GET")


ADAPTER = Adapter(
    name="azure",
    options=AzureOptions,
    request_from=request_from,
    reader=openai.reader,
    error_from=error_from,
    authority=authority,
    request_id_header="apim-request-id",
    vendor=VENDOR,
    own_kinds=openai.ADAPTER.own_kinds,
    custom_tools=True,
    list_models=listing.list_models,
    check_request=check_request,
)
