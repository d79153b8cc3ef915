"""The deployments of an Azure OpenAI resource, which are what may be asked for there.

Later versions of the data plane list the models that could be deployed, which is something else; this one lists
deployments by the same key. Where a resource no longer knows it, its deployments are asked for by their names all the
same. https://learn.microsoft.com/azure/ai-services/openai/reference
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw, Struct
from yarl import URL

from services.catalogue import ListedModel, Provider
from services.providers.http.client import Outgoing
from services.providers.listing import Steps, entries, read, whole

_VERSION: Final = "2023-03-15-preview"
_OTHERS: Final = {
    "embedding": "embedding",
    "image": "image",
    "dall-e": "image",
    **dict.fromkeys(("whisper", "tts", "transcribe", "realtime", "audio"), "audio"),
    "sora": "video",
}
"""What models make beside text, by a part of their name."""


class _Deployment(Struct):
    id: str
    model: str = ""
    status: str = "succeeded"
    created_at: object = None


class _List(Struct):
    data: list[Raw]


def list_models(provider: Provider) -> Steps:
    """List the deployments that are ready."""
    url = URL(f"{provider.base_url.rstrip('/')}/openai/deployments?api-version={_VERSION}")
    body = yield Outgoing(url, b"", {}, "GET")
    return [
        ListedModel(
            id=deployment.id,
            base=deployment.model,
            makes=next((made for part, made in _OTHERS.items() if part in deployment.model), "text"),
            created=whole(deployment.created_at),
        )
        for deployment in entries(read(body, _List).data, _Deployment)
        if deployment.status == "succeeded"
    ]
