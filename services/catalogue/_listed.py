"""What a provider itself lists: whoever learns of models (`services.providers`) tells it in these records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

MOST_LISTED: Final = 5000
"""How many models of a provider's list are taken; the longest lists there are have some hundreds."""


class ListedModel(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One model of a provider's list, with what the list says of it; what is not set is not known."""

    id: str
    """The provider's own name."""
    upstream: str = ""
    """The provider's own name where it is no id, like a file's path, and `id` is made of it; empty: the id."""
    makes: str = ""
    """What it makes, as catalogue rows of providers say it."""
    base: str = ""
    """Which model it is, where `id` names a deployment or an inference profile of it."""
    created: int = 0
    """When it was released, in seconds since 1970."""
    context_tokens: int = 0
    """Longest prompt and answer together."""
    max_output_tokens: int = 0
    """Longest answer."""
    capabilities: frozenset[str] = frozenset()
    """What it can do, in the catalogue's words."""
    lacks: frozenset[str] = frozenset()
    """What it is known not to do."""


class Listed(Struct, frozen=True, kw_only=True):
    """A provider's list."""

    models: Mapping[str, ListedModel]
    """By id, in the provider's order."""
    version: str = ""
    """Changes with the list."""
    unavailable: str = ""
    """Why it does not answer, where it did not when it was asked last: what it listed before stands."""
