"""The OpenAI dialect's handlers. For the `override` ignores see `dialects.native.servicer`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from google.api import httpbody_pb2

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.router.v1 import openai_service_pb2, openai_service_pb2_grpc
from services.catalogue import Model
from services.common.dialects import OPENAI
from services.common.errors import MoaError
from services.common.rpc.call import metadata_of
from services.router.dialects import reply
from services.router.dialects.event_stream import EventStream
from services.router.dialects.google import listing as google
from services.router.dialects.openai import chat_reply, chat_request, embeddings, image_reply, image_request
from services.router.dialects.reading import Body, Reading
from services.router.dialects.unknown import is_strict
from services.router.domain.caller import Caller
from services.router.domain.listing import Listing
from services.router.domain.operations import Operations
from services.router.operations.embedding import EmbeddingCall, embedded
from services.router.operations.image import ImageCall
from services.router.operations.text import TextCall
from services.router.serving import begin, note

DEPLOYMENT_KEY: Final = "moa-deployment"
"""The header in which the edge tells the model of `/openai/deployments/{model}/…`."""


class OpenAIServicer(openai_service_pb2_grpc.OpenAIServiceServicer):
    """Answers OpenAI's REST API.

    Args:
        linked_images: Where images are put for those who want links.
        begin: Gives the caller of a call whose key may be a provider's (images, and what is Google's form).
        reading: Reads bodies.
    """

    def __init__(
        self,
        operations: Operations,
        listing: Listing,
        linked_images: image_reply.LinkedImages,
        *,
        begin: Callable[[Any], Caller] = begin,
        reading: Reading | None = None,
    ) -> None:
        self._operations = operations
        self._listing = listing
        self._linked_images = linked_images
        self._caller = begin
        self._reading = reading or Reading()

    async def CreateChatCompletion(self, request: httpbody_pb2.HttpBody, context: Any) -> None:  # type: ignore[override]
        """Answer a conversation."""
        caller = begin(context)
        given = Body(request, model=_deployment(context))
        del request
        strict = is_strict(metadata_of(context))
        (wanted, include_usage), prompt = await self._reading(chat_request.read, given, strict=strict)
        if not wanted.stream:
            async with await self._operations.begin(TextCall(wanted, prompt), caller) as answer:
                note(answer, caller)
                body = await chat_reply.whole(answer, caller.request_id)
                await context.send_initial_metadata(reply.headers(answer, cost=answer.usage, dialect=OPENAI))
                await context.write(reply.json_body(body))
            return
        async with (
            EventStream(context, OPENAI) as stream,
            await self._operations.begin(TextCall(wanted, prompt), stream.caller(caller)) as answer,
        ):
            note(answer, caller)
            await stream.begin(reply.headers(answer, dialect=OPENAI))
            chunks = chat_reply.Chunks(answer, caller.request_id, include_usage=include_usage)
            while (message := await answer.next()) is not None:
                if out := chunks.of(message):
                    await stream.write(reply.sse_body(out))
                elif not message.events:
                    stream.heard()

    async def CreateEmbedding(self, request: httpbody_pb2.HttpBody, context: Any) -> None:  # type: ignore[override]
        """Turn texts into vectors."""
        caller = self._caller(context)
        given = Body(request, model=_deployment(context))
        del request
        strict = is_strict(metadata_of(context))
        wanted, base64, ignored = await self._reading(embeddings.read, given, strict=strict)
        async with await self._operations.begin(EmbeddingCall(wanted), caller) as answer:
            note(answer, caller)
            found = await embedded(answer)
            await context.send_initial_metadata(reply.headers(answer, cost=answer.usage, ignored=ignored))
            async for piece in embeddings.written(found, answer.model.id, base64=base64):
                await context.write(reply.json_piece(piece))

    async def CreateImage(self, request: httpbody_pb2.HttpBody, context: Any) -> None:  # type: ignore[override]
        """Make images from a prompt."""
        given = Body(request)
        del request
        await self._image(given, context, "generation")

    async def CreateImageEdit(self, request: httpbody_pb2.HttpBody, context: Any) -> None:  # type: ignore[override]
        """Change images."""
        given = Body(request)
        del request
        await self._image(given, context, "edit")

    async def CreateImageVariation(self, request: httpbody_pb2.HttpBody, context: Any) -> None:  # type: ignore[override]
        """Make images like one."""
        given = Body(request)
        del request
        await self._image(given, context, "variation")

    async def _image(self, given: Body, context: Any, kind: image_request.Kind) -> None:
        caller = self._caller(context)
        strict = is_strict(metadata_of(context))
        asked, wanted = await self._reading(
            image_request.request_from, given, given.content_type, kind, strict=strict, model=_deployment(context)
        )
        if wanted.unnamed:
            asked.model = await self._operations.usual(ImageCall(asked), caller)
        if asked.quality or asked.style or asked.moderation or wanted.partial_images:
            model, _ = self._operations.model(asked.model, caller)
            wanted.ignored.extend(image_request.drop_hints(asked, model, strict=strict))
        if wanted.partial_images:
            asked.preview_every = _preview_every(model, wanted.partial_images)
        if wanted.stream:
            await self._image_stream(asked, wanted, caller, context)
            return
        name = asked.model  # it becomes that of who answers
        async with await self._operations.begin(ImageCall(asked), caller) as answer:
            note(answer, caller)
            images = image_reply.Images(answer, wanted, self._linked_images, caller.request_id, asked=name)
            while (message := await answer.next()) is not None:
                await images.take(message)
            body = await images.object()
            answer.usage.images = images.count
            await context.send_initial_metadata(reply.headers(answer, cost=answer.usage, ignored=wanted.ignored))
            await context.write(reply.json_body(body))
            answer.delivered(images.count)

    async def _image_stream(
        self, asked: GenerateImageRequest, wanted: image_request.Wanted, caller: Caller, context: Any
    ) -> None:
        name = asked.model
        async with (
            EventStream(context, OPENAI, image_reply.broken, ignored=wanted.ignored) as stream,
            await self._operations.begin(ImageCall(asked), stream.caller(caller)) as answer,
        ):
            note(answer, caller)
            images = image_reply.Images(answer, wanted, self._linked_images, caller.request_id, asked=name)
            await stream.begin(reply.headers(answer, ignored=wanted.ignored))
            try:
                while (message := await answer.next()) is not None:
                    frames, finished = await images.frames(message)
                    if frames:
                        await stream.write(reply.sse_body(frames))
                    elif not message.events:
                        stream.heard()
                    answer.delivered(finished)
            except MoaError as error:
                # A failure of the gateway's own (the store, a broken file) is the stream's last event.
                await stream.write(image_reply.broken(error))

    async def ListModels(
        self, request: openai_service_pb2.OpenAIServiceListModelsRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """List the models that the key may use; in Google's form for a caller with Google's key header."""
        if google.is_asked(context):
            page = await google.page(self._listing, self._caller(context), request.page_size, request.page_token)
            return reply.json_body(page)
        models = await self._listing.models(begin(context))
        return reply.json_body({"object": "list", "data": [await self._model(m) for m in models]})

    async def GetModel(
        self, request: openai_service_pb2.OpenAIServiceGetModelRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Describe one model; as ListModels."""
        if google.is_asked(context):
            return reply.json_body(await google.one(self._listing, self._caller(context), request.model))
        return reply.json_body(await self._model(await self._listing.model(begin(context), request.model)))

    async def _model(self, model: Model) -> dict[str, Any]:
        """Return a model as OpenAI does; one of the gateway's own with how far it is."""
        rendered: dict[str, Any] = {
            "id": model.id,
            "object": "model",
            "created": model.created,
            "owned_by": model.provider,
        }
        if model.aliases:
            rendered["aliases"] = list(model.aliases)
        return rendered | await self._listing.readiness(model)


def _deployment(context: Any) -> str:
    """Return the model that Azure's form of the path names; the edge has moved it to a header."""
    return next((str(value) for name, value in metadata_of(context) if name == DEPLOYMENT_KEY), "")


def _preview_every(model: Model, partial_images: int) -> int:
    """Return how many steps lie between previews, so that `partial_images` of them are spread over the work."""
    steps = int(model.defaults.get("steps", 20))
    return max(1, steps // (partial_images + 1))
