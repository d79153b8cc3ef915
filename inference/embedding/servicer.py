"""`moa.embedding.v1.EmbeddingService` over the models of one's own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from inference.catalogued import find
from inference.fair import Flow
from inference.registry import Registry
from inference.shared_thread import SharedThread
from moa.common.v1 import usage_pb2
from moa.embedding.v1 import embedding_service_pb2, embedding_service_pb2_grpc
from moa.quota.v1 import quota_pb2
from services.catalogue import Model, Watched
from services.common.errors import InvalidField
from services.quota_client import AbandonedCalls

if TYPE_CHECKING:  # the engine imports torch, which must not delay the port
    from inference.embedding.engine import EmbeddingEngine
    from inference.embedding.queue import Request

MAX_TEXTS = 2048


class EmbeddingServicer(embedding_service_pb2_grpc.EmbeddingServiceServicer):
    """Embeds with catalogue models that this process loads.

    Args:
        catalogue: Which models there are.
        registry: Loads them.
        reading: Where texts are tokenized.
        abandoned: Books what callers owe who left; None: nobody does.
    """

    def __init__(
        self, catalogue: Watched, registry: Registry, reading: SharedThread, abandoned: AbandonedCalls | None = None
    ) -> None:
        self._abandoned = abandoned
        self._catalogue = catalogue
        self._registry = registry
        self._reading = reading

    async def EmbedTexts(
        self, request: embedding_service_pb2.EmbedTextsRequest, context: Any
    ) -> embedding_service_pb2.EmbedTextsResponse:
        """Embed texts."""
        model = find(self._catalogue, request.model, request.provider, "embedding")
        _check(request.texts)
        flow = Flow.of(dict(context.invocation_metadata() or ()))
        async with self._registry.use(model) as held:
            engine: EmbeddingEngine = held  # type: ignore[assignment]  # the builder gives this kind for these models
            asked = list(request.texts)
            reading = engine.read(asked, truncate=request.truncate)
            texts = await self._reading.do(reading, flow=flow, size=sum(map(len, asked)))
            vectors = await self._embedded(engine, engine.request(texts, flow), model, context)
            if request.HasField("dimensions"):
                vectors = [_shortened(each, request.dimensions, engine.encoder.normalises) for each in vectors]
        tokens = list(map(len, texts))
        return embedding_service_pb2.EmbedTextsResponse(
            embeddings=[
                embedding_service_pb2.Embedding(values=values, tokens=count)
                for values, count in zip(vectors, tokens, strict=True)
            ],
            model=model.id,
            usage=usage_pb2.Usage(prompt_tokens=sum(tokens), exact=True),
        )

    async def _embedded(
        self, engine: EmbeddingEngine, request: Request, model: Model, context: Any
    ) -> list[list[float]]:
        """Return the vectors; a caller who leaves before they are here owes what was read (docs/charging.md)."""
        try:
            return await engine.embed(request)
        except asyncio.CancelledError:
            if self._abandoned is not None and request.read:
                usage = usage_pb2.Usage(prompt_tokens=request.read, exact=True)
                self._abandoned.report(context, usage=usage, operation=quota_pb2.OPERATION_TEXT, model=model)
            raise


def _shortened(vector: list[float], dimensions: int, normalises: bool) -> list[float]:
    """Return the first numbers of a vector whose model was trained so that they mean the most (Matryoshka)."""
    if dimensions > len(vector):
        raise InvalidField(f"the model's vectors have {len(vector)} numbers; ask for fewer", param="dimensions")
    cut = vector[:dimensions]
    length = math.sqrt(sum(value * value for value in cut))
    return [value / length for value in cut] if normalises and length else cut


def _check(texts: Sequence[str]) -> None:
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise InvalidField(f"from 1 to {MAX_TEXTS} texts are embedded at once", param="texts")
    for at, text in enumerate(texts):
        if not text.strip():
            raise InvalidField("a text must not be empty", param=f"texts[{at}]")
