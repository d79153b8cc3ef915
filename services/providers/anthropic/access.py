"""How Anthropic is asked for anything: by an API key, in one version of its API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from yarl import URL

from services.catalogue import Provider
from services.providers.credentials import JSON_HEADERS, Authority, HeaderKeys, keys_of, secret
from services.providers.http.client import Outgoing

_HEADERS: Final = {**JSON_HEADERS, "anthropic-version": "2023-06-01"}
"""The next version, 2026-10-21, takes no sampling, not even for models that have it."""


def authority(provider: Provider, environment: Mapping[str, str]) -> Authority:
    """Return the API key."""
    return HeaderKeys("x-api-key", keys_of(secret(provider, "api_key", environment)), _HEADERS)


def check_request(provider: Provider) -> Outgoing:
    """Ask for one model of the list: it costs nothing and needs the key."""
    return Outgoing(URL(f"{provider.base_url.rstrip('/')}/v1/models?limit=1"), b"", {}, "GET")
