"""The models that OpenAI, or a server of its protocol, lists.

https://platform.openai.com/docs/api-reference/models/list; servers of the protocol tell contexts beside: vLLM and
SGLang `max_model_len`, OpenRouter `context_length`, Groq `context_window`.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from yarl import URL

from services.catalogue import ListedModel, Provider
from services.providers.http.client import Outgoing
from services.providers.listing import Steps, read, whole


class _Model(Struct):
    id: str
    created: Any = None
    max_model_len: Any = None
    context_length: Any = None
    context_window: Any = None
    max_completion_tokens: Any = None


class _List(Struct):
    data: list[_Model]


def list_models(provider: Provider) -> Steps:
    """List the models."""
    body = yield Outgoing(URL(f"{provider.base_url.rstrip('/')}/models"), b"", {}, "GET")
    return [
        ListedModel(
            id=model.id,
            created=whole(model.created),
            context_tokens=whole(model.max_model_len or model.context_length or model.context_window),
            max_output_tokens=whole(model.max_completion_tokens),
        )
        for model in read(body, _List).data
    ]
