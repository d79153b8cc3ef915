"""Google's Gemini API (`generativelanguage.googleapis.com`)."""

from __future__ import annotations

from collections.abc import Mapping

from yarl import URL

from services.common.catalogue import Provider
from services.common.http.client import Outgoing
from services.common.http.credentials import JSON_HEADERS, Authority, HeaderKeys, keys_of, secret
from services.providers.google.errors import error_from
from services.providers.google.text.read import count_from, reader
from services.providers.google.text.request import count_request_from, request_from
from services.providers.text.base import Adapter


def authority(provider: Provider, environment: Mapping[str, str]) -> Authority:
    """Return the API key."""
    return HeaderKeys("x-goog-api-key", keys_of(secret(provider, "api_key", environment)), JSON_HEADERS)


def caller_authority(key: str) -> Authority:
    """Sign with a caller's own key."""
    return HeaderKeys("x-goog-api-key", [key], JSON_HEADERS)


def check_request(provider: Provider) -> Outgoing:
    """Ask for one model of the list: it costs nothing and needs the key."""
    return Outgoing(URL(f"{provider.base_url.rstrip('/')}/models?pageSize=1"), b"", {}, "GET")


ADAPTER = Adapter(
    name="gemini",
    request_from=request_from,
    reader=reader,
    error_from=error_from,
    authority=authority,
    request_id_header="x-goog-request-id",
    count_request_from=count_request_from,
    count_from=count_from,
    check_request=check_request,
    caller_authority=caller_authority,
)
