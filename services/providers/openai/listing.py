"""The models that OpenAI, or a server of its protocol, lists.

https://platform.openai.com/docs/api-reference/models/list; servers of the protocol tell contexts beside: vLLM and
SGLang `max_model_len`, OpenRouter `context_length`, Groq `context_window`.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Raw, Struct
from yarl import URL

from services.catalogue import ListedModel, Provider
from services.common.errors import UpstreamBroken
from services.providers.http.client import Outgoing
from services.providers.listing import Steps, entries, read, whole


class _Model(Struct):
    id: str
    created: Any = None
    max_model_len: Any = None
    context_length: Any = None
    context_window: Any = None
    max_completion_tokens: Any = None


class _List(Struct):
    data: list[Raw]


_SHAPES: Final[Any] = list[Raw] | _List
"""Together answers the bare entries."""


def list_models(provider: Provider) -> Steps:
    """List the models."""
    body = yield Outgoing(URL(f"{provider.base_url.rstrip('/')}/models"), b"", {}, "GET")
    page = read(body, _SHAPES)
    rows = page.data if isinstance(page, _List) else page
    if not rows and page is rows:
        raise UpstreamBroken("the provider's list of models cannot be read")
    return [
        ListedModel(
            id=model.id,
            created=whole(model.created),
            context_tokens=whole(model.max_model_len or model.context_length or model.context_window),
            max_output_tokens=whole(model.max_completion_tokens),
        )
        for model in entries(rows, _Model)
    ]
