"""The Google dialect's handlers. For the `override` ignores see `dialects.native.servicer`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.api import httpbody_pb2

from moa.router.v1 import google_service_pb2, google_service_pb2_grpc
from services.common.dialects import GOOGLE
from services.common.errors import MoaError
from services.common.rpc.call import metadata_of
from services.router.dialects import reply
from services.router.dialects.event_stream import EventStream
from services.router.dialects.google import embeddings, listing, requests
from services.router.dialects.google.reply import ImageReply, TextReply
from services.router.dialects.reading import Body, Reading
from services.router.dialects.unknown import is_strict
from services.router.domain.caller import Caller
from services.router.domain.listing import Listing
from services.router.domain.operations import Operations
from services.router.operations.embedding import EmbeddingCall, embedded
from services.router.operations.image import ImageCall
from services.router.operations.text import TEXT, TextCall
from services.router.serving import begin, note


class GoogleServicer(google_service_pb2_grpc.GoogleServiceServicer):
    """Answers the Gemini API.

    Args:
        begin: Gives the caller of a call.
        reading: Reads bodies.
    """

    def __init__(
        self,
        operations: Operations,
        listing: Listing,
        *,
        begin: Callable[[Any], Caller] = begin,
        reading: Reading | None = None,
    ) -> None:
        self._operations = operations
        self._listing = listing
        self._caller = begin
        self._reading = reading or Reading()

    async def GenerateContent(
        self, request: google_service_pb2.GoogleServiceRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Answer a conversation, or make images."""
        caller = self._caller(context)
        name, given = listing.name_of(request.model), Body(request.body)
        del request
        strict = is_strict(metadata_of(context))
        rendered, ignored = await self._begin(name, given, caller, stream=False, strict=strict)
        async with rendered.answer as answer:
            note(answer, caller)
            while await rendered.advance():
                pass
            if isinstance(rendered, ImageReply):
                answer.usage.images = rendered.images
            body = reply.json_body(rendered.render(last=True))
            headers = reply.headers(answer, cost=answer.usage, ignored=ignored, dialect=GOOGLE)
            await context.send_initial_metadata(headers)
            rendered.delivered()
            return body

    async def StreamGenerateContent(  # type: ignore[override]
        self, request: google_service_pb2.GoogleServiceRequest, context: Any
    ) -> None:
        """The same in pieces."""
        caller = self._caller(context)
        pieces = _Events() if request.alt == "sse" else _Array()
        name, given = listing.name_of(request.model), Body(request.body)
        del request
        async with EventStream(context, GOOGLE, pieces.broken, sign=pieces.sign) as stream:
            strict = is_strict(metadata_of(context))
            rendered, ignored = await self._begin(name, given, stream.caller(caller), stream=True, strict=strict)
            async with rendered.answer as answer:
                note(answer, caller)
                await stream.begin(reply.headers(answer, ignored=ignored, dialect=GOOGLE))
                try:
                    more = True
                    while more:
                        more = await rendered.advance()
                        shown = rendered.render(last=not more)
                        if shown is not None:
                            await stream.write(pieces.of(shown, last=not more))
                            rendered.delivered()
                except MoaError as error:
                    # What came together with the failure stands.
                    shown = rendered.render(last=False)
                    if shown is not None:
                        await stream.write(pieces.of(shown, last=False))
                        rendered.delivered()
                    await stream.write(pieces.broken(error))

    async def CountTokens(
        self, request: google_service_pb2.GoogleServiceRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Count a prompt's tokens."""
        caller = self._caller(context)
        name, given = listing.name_of(request.model), Body(request.body)
        del request
        count = await self._operations.count_tokens(TEXT, await self._reading(requests.counted, given, name), caller)
        details = [{"modality": "TEXT", "tokenCount": count}]
        return reply.json_body({"totalTokens": count, "promptTokensDetails": details})

    async def EmbedContent(self, request: google_service_pb2.GoogleServiceRequest, context: Any) -> None:  # type: ignore[override]
        """Turn a text into a vector."""
        name, given = listing.name_of(request.model), Body(request.body)
        del request
        await self._embed(name, given, context, batch=False)

    async def BatchEmbedContents(self, request: google_service_pb2.GoogleServiceRequest, context: Any) -> None:  # type: ignore[override]
        """Turn texts into vectors."""
        name, given = listing.name_of(request.model), Body(request.body)
        del request
        await self._embed(name, given, context, batch=True)

    async def _embed(self, name: str, given: Body, context: Any, *, batch: bool) -> None:
        caller = self._caller(context)
        strict = is_strict(metadata_of(context))
        wanted, ignored = await self._reading(embeddings.read, given, name, batch=batch, strict=strict)
        async with await self._operations.begin(EmbeddingCall(wanted), caller) as answer:
            note(answer, caller)
            found = await embedded(answer)
            await context.send_initial_metadata(reply.headers(answer, cost=answer.usage, ignored=ignored))
            async for piece in embeddings.written(found, batch=batch):
                await context.write(reply.json_piece(piece))

    async def ListModels(
        self, request: google_service_pb2.GoogleServiceListModelsRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """List the models that the key may use."""
        page = await listing.page(self._listing, self._caller(context), request.page_size, request.page_token)
        return reply.json_body(page)

    async def GetModel(
        self, request: google_service_pb2.GoogleServiceGetModelRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        """Describe one model."""
        return reply.json_body(await listing.one(self._listing, self._caller(context), request.model))

    async def _begin(
        self, name: str, given: Body, caller: Caller, *, stream: bool, strict: bool
    ) -> tuple[TextReply | ImageReply, list[str]]:
        """Begin the answer that the model gives: text, or images. Give what renders it, and what was ignored."""
        unknown: MoaError | None = None
        makes = ""
        try:
            _, makes = self._operations.model(name, caller)
        except MoaError as error:
            # What is wrong with the body is told first.
            unknown = error
        asked = await self._reading(requests.asked, given, name, makes, stream=stream, strict=strict)
        if unknown is not None:
            raise unknown
        if asked.image is not None:
            images = await self._operations.begin(ImageCall(asked.image), caller)
            return ImageReply(images, caller.request_id), asked.ignored
        assert asked.text is not None
        thoughts = asked.text.reasoning.include
        text = await self._operations.begin(TextCall(asked.text, asked.prompt), caller)
        return TextReply(text, caller.request_id, thoughts=thoughts), asked.ignored


class _Events:
    """Server-sent events, as Google's dialect ends them."""

    sign = reply.sse_body(b"\n\n")
    """What is written in silences: Google's client for Python takes a comment for an answer that cannot be read, and
    passes over empty lines, which by the format are events without data."""

    def of(self, value: Any, *, last: bool) -> httpbody_pb2.HttpBody:
        """Return one event."""
        return reply.sse_body(reply.frame(value))

    def broken(self, error: MoaError) -> httpbody_pb2.HttpBody:
        """Return a failure as the last event."""
        return reply.sse_body(reply.failure(GOOGLE, error))


class _Array(_Events):
    """One JSON array, an element at a time."""

    sign = httpbody_pb2.HttpBody(content_type=reply.JSON, data=b"\n")
    """JSON's readers pass over white space, before the array as well."""

    def __init__(self) -> None:
        self._begun = False

    def broken(self, error: MoaError) -> httpbody_pb2.HttpBody:
        """Return a failure as the last element."""
        return self.of(GOOGLE.render(error), last=True)

    def of(self, value: Any, *, last: bool) -> httpbody_pb2.HttpBody:
        """Return one element, with the array's begin and end where they belong."""
        head = b",\r\n" if self._begun else b"["
        self._begun = True
        data = head + reply.encode(value) + (b"]" if last else b"")
        return httpbody_pb2.HttpBody(content_type=reply.JSON, data=data)
