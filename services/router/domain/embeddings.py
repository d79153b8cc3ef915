"""Embed texts for callers: the model, the quota, and who computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from moa.embedding.v1 import embedding_service_pb2
from moa.quota.v1 import quota_pb2
from services.catalogue import Catalogue, Model
from services.common import limits
from services.common.errors import MoaError, ModelNotFound
from services.router.domain.caller import Caller
from services.router.domain.operations import Admission
from services.router.domain.ports import Booking

_SPECIAL_TOKENS = 4
"""At most so many are put around a text."""


class Encoders(Protocol):
    """Whoever computes the vectors."""

    async def embed(
        self, request: embedding_service_pb2.EmbedTextsRequest, model: Model, caller: Caller, reserved: Booking
    ) -> embedding_service_pb2.EmbedTextsResponse:
        """Embed texts."""


class Embeddings:
    """The operation, over the catalogue as it is at each request.

    Args:
        catalogue: Gives the catalogue as it is now.
        admission: Verifies keys and lends quota.
        encoders: Computes the vectors.
    """

    def __init__(self, *, catalogue: Callable[[], Catalogue], admission: Admission, encoders: Encoders) -> None:
        self._catalogue = catalogue
        self._admission = admission
        self._encoders = encoders

    async def embed(
        self, request: embedding_service_pb2.EmbedTextsRequest, caller: Caller
    ) -> embedding_service_pb2.EmbedTextsResponse:
        """Embed texts; charged as tokens of text, by the model's own count, when the vectors are here.

        Raises MoaError; then, and when the caller leaves, nothing is charged.
        """
        if caller.own_key:
            raise ModelNotFound(f"unknown embedding model {request.model[:200]!r}", param="model")
        model = self._catalogue().find_embedding(request.model)
        limits.check(request)
        bound = sum(_bound(text, model) for text in request.texts)
        reserved = await self._admission.reserve(
            caller.key,
            operation=quota_pb2.OPERATION_TEXT,
            provider=model.provider,
            model=model.id,
            tokens=bound,
            min_tokens=bound,
            request_id=caller.request_id,
        )
        request.model = model.full_id
        try:
            answer = await self._encoders.embed(request, model, caller, reserved)
        except MoaError:
            reserved.release()
            raise
        except BaseException:
            reserved.annul()
            raise
        reserved.settle(usage=answer.usage, provider=model.provider, model=model.id)
        return answer


def _bound(text: str, model: Model) -> int:
    """Return how many tokens a text has at most: one a byte, and no more than the model reads."""
    most = len(text.encode()) + _SPECIAL_TOKENS
    return min(most, model.context_tokens) if model.context_tokens else most
