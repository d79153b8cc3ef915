"""Where a server's API stands: a base URL is given with `/v1` or without."""

from __future__ import annotations

from functools import lru_cache

from services.catalogue import Provider


@lru_cache(maxsize=1024)
def root_of(base_url: str) -> str:
    """Return a server's address without a version."""
    return base_url.rstrip("/").removesuffix("/v1").rstrip("/")


def api_of(provider: Provider) -> str:
    """Return the address that OpenAI's paths stand under."""
    return f"{root_of(provider.base_url)}/v1"
