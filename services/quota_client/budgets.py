"""Which requests count on a budget: the one meaning of its patterns and tag, for auth and whoever caches its grants."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from services.quota_client.permissions import matches


class Part(Protocol):
    """A part of what is asked for."""

    @property
    def provider(self) -> str:
        """Providers, by glob."""

    @property
    def model(self) -> str:
        """Models, by glob."""

    @property
    def tag(self) -> str:
        """A tag; empty: any request."""


def counts(part: Part, provider: str, model: str, tags: Collection[str]) -> bool:
    """Return whether a request counts that names a provider's model, as its caller asked for it, and has these tags."""
    return (
        (not part.tag or part.tag in tags)
        and matches(part.provider or "*", provider)
        and matches(part.model or "*", model)
    )
