"""OpenAI's chats, and where a model's row says so its Responses API: OpenAI, vLLM, Ollama and the like."""

from __future__ import annotations

from collections.abc import Mapping

from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model, Provider
from services.providers.counts import count_of
from services.providers.credentials import Authority, bearers, optional_secret
from services.providers.http.client import Outgoing
from services.providers.openai import listing
from services.providers.openai.errors import error_from
from services.providers.openai.responses import fields
from services.providers.openai.responses import read as responses_read
from services.providers.openai.responses import request as responses_request
from services.providers.openai.text import read as chat_read
from services.providers.openai.text import request as chat_request
from services.providers.openai.text.batches import BATCHES
from services.providers.openai.text.carried import VENDOR
from services.providers.openai.text.count import count_request_from
from services.providers.openai.text.request import Options, options_of, url_of
from services.providers.text.base import Adapter, Reader
from services.providers.text.ignored import Ignored


def request_from(request: GenerateTextRequest, model: Model, provider: Provider, ignored: Ignored) -> Outgoing:
    """Return the HTTP request for a chat, by the API that the model's row names."""
    if model.limits.method == "responses":
        return responses_request.request_from(request, model, provider, ignored)
    return chat_request.request_from(request, model, provider, ignored)


def reader(request: GenerateTextRequest, model: Model, headers: Mapping[str, str]) -> Reader:
    """Make the reader of an answer, likewise."""
    if model.limits.method == "responses":
        return responses_read.reader(request, model, headers)
    return chat_read.reader(request, model, headers)


def authority(provider: Provider, environment: Mapping[str, str]) -> Authority:
    """Return the bearer key, or nothing for a server that asks for none."""
    options_of(provider)
    return bearers(optional_secret(provider, "api_key", environment))


def check_request(provider: Provider) -> Outgoing:
    """Ask for the list of models: it costs nothing and needs the key."""
    return Outgoing(url_of(provider.base_url, "/models"), b"", {}, "GET")


ADAPTER = Adapter(
    name="openai",
    options=Options,
    request_from=request_from,
    reader=reader,
    error_from=error_from,
    authority=authority,
    request_id_header="x-request-id",
    vendor=VENDOR,
    own_kinds=fields.own_kinds,
    custom_tools=True,
    caches=True,
    batches=BATCHES,
    list_models=listing.list_models,
    check_request=check_request,
    count_request_from=count_request_from,
    count_from=count_of("input_tokens"),
)
