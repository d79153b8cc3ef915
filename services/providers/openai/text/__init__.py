"""OpenAI's chat protocol: OpenAI itself, and vLLM, SGLang, Ollama, llama.cpp, DeepSeek, OpenRouter and the like."""

from __future__ import annotations

from collections.abc import Mapping

from services.catalogue import Provider
from services.providers.counts import count_of
from services.providers.credentials import JSON_HEADERS, Authority, HeaderKeys, keys_of, optional_secret
from services.providers.http.client import Outgoing
from services.providers.openai import listing
from services.providers.openai.errors import error_from
from services.providers.openai.text.carried import VENDOR
from services.providers.openai.text.count import count_request_from
from services.providers.openai.text.read import reader
from services.providers.openai.text.request import Options, options_of, request_from, url_of
from services.providers.text.base import Adapter


def authority(provider: Provider, environment: Mapping[str, str]) -> Authority:
    """Return the bearer key, or nothing for a server that asks for none."""
    options_of(provider)
    keys = keys_of(optional_secret(provider, "api_key", environment))
    return HeaderKeys("Authorization", [f"Bearer {key}" for key in keys], JSON_HEADERS)


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
    custom_tools=True,
    caches=True,
    list_models=listing.list_models,
    check_request=check_request,
    count_request_from=count_request_from,
    count_from=count_of("input_tokens"),
)
