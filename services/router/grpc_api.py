"""The public gRPC API: the same operations, typed. For the `override` ignores see `dialects.native.servicer`."""

from __future__ import annotations

from typing import Any

from moa.embedding.v1 import embedding_service_pb2, embedding_service_pb2_grpc
from moa.image.v1 import image_service_pb2, image_service_pb2_grpc
from moa.router.v1 import catalog_service_pb2, catalog_service_pb2_grpc
from moa.text.v1 import text_service_pb2, text_service_pb2_grpc
from services.catalogue import Catalogue, Model
from services.common.rpc.whole import whole_text
from services.router.dialects import reply
from services.router.dialects.reading import Reading
from services.router.domain.answer import image_started, text_started
from services.router.domain.embeddings import Embeddings
from services.router.domain.listing import Listing
from services.router.domain.operations import Operations
from services.router.serving import begin, note


class TextServicer(text_service_pb2_grpc.TextServiceServicer):
    """Text, for gRPC callers."""

    def __init__(self, operations: Operations, reading: Reading | None = None) -> None:
        self._operations = operations
        self._reading = reading or Reading()

    async def GenerateText(self, request: text_service_pb2.GenerateTextRequest, context: Any) -> None:  # type: ignore[override]
        """Answer a conversation."""
        caller = begin(context)
        prompt = await self._reading.prompt_of(request)
        async with await self._operations.generate_text(request, caller, prompt) as answer:
            note(answer, caller)
            await context.send_initial_metadata(reply.headers(answer))
            await context.write(text_started(answer.model))
            while (message := await answer.next()) is not None:
                await context.write(message)

    async def GenerateWholeText(
        self, request: text_service_pb2.GenerateWholeTextRequest, context: Any
    ) -> text_service_pb2.GenerateWholeTextResponse:
        """Answer a conversation in one message."""
        return await whole_text(self.GenerateText, request, context)

    async def CountTokens(
        self, request: text_service_pb2.CountTokensRequest, context: Any
    ) -> text_service_pb2.CountTokensResponse:
        """Count a prompt's tokens."""
        count = await self._operations.count_tokens(request, begin(context))
        return text_service_pb2.CountTokensResponse(prompt_tokens=count)


class ImageServicer(image_service_pb2_grpc.ImageServiceServicer):
    """Images, for gRPC callers."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def GenerateImage(self, request: image_service_pb2.GenerateImageRequest, context: Any) -> None:  # type: ignore[override]
        """Make images."""
        caller = begin(context)
        async with await self._operations.generate_image(request, caller) as answer:
            note(answer, caller)
            await context.send_initial_metadata(reply.headers(answer))
            await context.write(image_started(answer.model))
            while (message := await answer.next()) is not None:
                await context.write(message)
                answer.delivered(sum(event.HasField("image") for event in message.events))


class EmbeddingServicer(embedding_service_pb2_grpc.EmbeddingServiceServicer):
    """Embeddings, for gRPC callers."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings

    async def EmbedTexts(
        self, request: embedding_service_pb2.EmbedTextsRequest, context: Any
    ) -> embedding_service_pb2.EmbedTextsResponse:
        """Embed texts."""
        return await self._embeddings.embed(request, begin(context))


_KINDS = {
    "text": catalog_service_pb2.MODEL_KIND_TEXT,
    "image": catalog_service_pb2.MODEL_KIND_IMAGE,
}


class CatalogServicer(catalog_service_pb2_grpc.CatalogServiceServicer):
    """The catalogue, for gRPC callers."""

    def __init__(self, listing: Listing, catalogue: Any) -> None:
        self._listing = listing
        self._catalogue = catalogue

    async def ListModels(
        self, request: catalog_service_pb2.ListModelsRequest, context: Any
    ) -> catalog_service_pb2.ListModelsResponse:
        """List models."""
        models = await self._listing.models(begin(context), provider=request.provider)
        return catalog_service_pb2.ListModelsResponse(models=[await self._message(m) for m in models])

    async def GetModel(
        self, request: catalog_service_pb2.GetModelRequest, context: Any
    ) -> catalog_service_pb2.GetModelResponse:
        """Describe one model."""
        model = await self._listing.model(begin(context), request.model)
        return catalog_service_pb2.GetModelResponse(model=await self._message(model))

    async def _message(self, model: Model) -> catalog_service_pb2.Model:
        catalogue: Catalogue = self._catalogue()
        found = await self._listing.readiness(model)
        return catalog_service_pb2.Model(
            id=model.id,
            provider=model.provider,
            kind=_KINDS[catalogue.providers[model.provider].makes],
            aliases=model.aliases,
            capabilities=sorted(model.capabilities),
            context_tokens=model.context_tokens,
            max_output_tokens=model.max_output_tokens,
            status=found.get("status", ""),
            loading_percent=found.get("percent"),
            status_detail=found.get("detail", ""),
        )
