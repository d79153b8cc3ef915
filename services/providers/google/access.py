"""How Google is asked for anything: with an API key, the operator's or a caller's own."""

from __future__ import annotations

from collections.abc import Mapping

from yarl import URL

from services.catalogue import Provider
from services.providers.credentials import JSON_HEADERS, Authority, HeaderKeys, keys_of, secret
from services.providers.http.client import Outgoing


def authority(provider: Provider, environment: Mapping[str, str]) -> Authority:
    """Return the API key."""
    return HeaderKeys("x-goog-api-key", keys_of(secret(provider, "api_key", environment)), JSON_HEADERS)


def caller_authority(key: str) -> Authority:
    """Sign with a caller's own key."""
    return HeaderKeys("x-goog-api-key", [key], JSON_HEADERS)


def check_request(provider: Provider) -> Outgoing:
    """Ask for one model of the list: it costs nothing and needs the key."""
    return Outgoing(URL(f"{provider.base_url.rstrip('/')}/models?pageSize=1"), b"", {}, "GET")
