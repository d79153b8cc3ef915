"""The models that the Gemini API lists. https://ai.google.dev/api/models#method:-models.list"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Raw, Struct
from yarl import URL

from services.catalogue import ListedModel, Provider
from services.providers.http.client import Outgoing
from services.providers.listing import Steps, entries, read, whole

_PAGE: Final = 1000
"""The most that a page may have."""
_REASONS: Final = frozenset({"reasoning"})


class _Model(Struct, rename="camel"):
    name: str
    input_token_limit: Any = None
    output_token_limit: Any = None
    supported_generation_methods: tuple[str, ...] = ()
    thinking: bool = False


class _Page(Struct, rename="camel"):
    models: list[Raw] = []
    next_page_token: str = ""


def list_models(provider: Provider) -> Steps:
    """List the models, page by page."""
    found: list[ListedModel] = []
    url = URL(f"{provider.base_url.rstrip('/')}/models").with_query(pageSize=str(_PAGE))
    while True:
        page = read((yield Outgoing(url, b"", {}, "GET")), _Page)
        found += map(_listed, entries(page.models, _Model))
        if not page.next_page_token:
            return found
        url = url.update_query(pageToken=page.next_page_token)


def _listed(model: _Model) -> ListedModel:
    name = model.name.removeprefix("models/")
    return ListedModel(
        id=name,
        makes=_makes(name, model.supported_generation_methods),
        context_tokens=whole(model.input_token_limit),
        max_output_tokens=whole(model.output_token_limit),
        capabilities=_REASONS if model.thinking else frozenset(),
    )


def _makes(name: str, methods: tuple[str, ...]) -> str:
    if "embedContent" in methods:
        return "embedding"
    if "generateContent" in methods:
        return "image" if "-image" in name else "text"
    if "predict" in methods:
        return "image"
    return "other" if methods else ""
