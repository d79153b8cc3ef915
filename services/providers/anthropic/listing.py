"""The models that Anthropic lists (platform.claude.com/docs/en/api/models/list)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from msgspec import Raw, Struct
from yarl import URL

from services.catalogue import ListedModel, Provider
from services.providers.http.client import Outgoing
from services.providers.listing import Steps, entries, read, whole

_PAGE: Final = 1000
"""The most that a page may have."""
_WORDS: Final = {"image_input": "vision", "structured_outputs": "json_schema", "thinking": "reasoning"}


class _Model(Struct):
    id: str
    created_at: Any = None
    max_input_tokens: Any = None
    max_tokens: Any = None
    capabilities: Any = None


class _Page(Struct):
    data: list[Raw]
    has_more: bool = False
    last_id: str | None = None


def list_models(provider: Provider) -> Steps:
    """List the models, page by page."""
    found: list[ListedModel] = []
    url = URL(f"{provider.base_url.rstrip('/')}/v1/models").with_query(limit=str(_PAGE))
    while True:
        page = read((yield Outgoing(url, b"", {}, "GET")), _Page)
        found += map(_listed, entries(page.data, _Model))
        if not page.has_more or not page.last_id:
            return found
        url = url.update_query(after_id=page.last_id)


def _listed(model: _Model) -> ListedModel:
    return ListedModel(
        id=model.id,
        makes="text",
        created=_seconds(model.created_at),
        context_tokens=whole(model.max_input_tokens),
        max_output_tokens=whole(model.max_tokens),
        capabilities=frozenset(_supported(model.capabilities, is_true=True)),
        lacks=frozenset(_supported(model.capabilities, is_true=False)),
    )


def _supported(capabilities: Any, *, is_true: bool) -> Iterator[str]:
    """Yield the abilities of which the list says that they are there, or are not."""
    for theirs, word in _WORDS.items():
        flag = capabilities.get(theirs) if isinstance(capabilities, dict) else None
        if isinstance(flag, dict) and flag.get("supported") is is_true:
            yield word


def _seconds(text: Any) -> int:
    """Return a time in seconds; 0 for what is none."""
    try:
        return whole(datetime.fromisoformat(text).timestamp())
    except (TypeError, ValueError, OverflowError):
        return 0
