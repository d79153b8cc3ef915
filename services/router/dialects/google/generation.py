"""Google's `:generateContent`, `:streamGenerateContent` and `:countTokens` (ai.google.dev/api/generate-content)."""

from __future__ import annotations

from typing import Any, Final

from google.api import httpbody_pb2

from moa.router.v1 import google_service_pb2
from moa.text.v1.text_pb2 import Sampling
from services.common import limits
from services.common.dialects import GOOGLE, Dialect
from services.common.dialects.registrations import Method
from services.common.errors import MoaError
from services.common.own_task import in_own_task
from services.common.rpc.call import metadata_of
from services.common.rpc.internals.batch import defer_headers
from services.router.dialects import reply
from services.router.dialects.event_stream import EventStream
from services.router.dialects.google import answers, bodies, listing, requests
from services.router.dialects.google.reply import ImageReply, TextReply
from services.router.dialects.methods import MethodSet
from services.router.dialects.parts import Parts
from services.router.dialects.reading import Body
from services.router.dialects.unknown import is_strict
from services.router.domain.caller import Caller
from services.router.operations.image import ImageCall
from services.router.operations.text import TEXT, TextCall
from services.router.serving import note


class GenerationServicer:
    """Answers conversations and makes images. For why handlers are coroutines see `dialects.native.servicer`."""

    def __init__(self, parts: Parts, dialect: Dialect) -> None:
        self._operations, self._reading, self._dialect = parts.operations, parts.reading, dialect
        self._caller = parts.begin

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
            headers = reply.headers(answer, cost=answer.usage, ignored=ignored, dialect=self._dialect)
            await defer_headers(context, headers)
            rendered.delivered()
            return body

    async def StreamGenerateContent(self, request: google_service_pb2.GoogleServiceRequest, context: Any) -> None:
        """The same in pieces."""
        caller = self._caller(context)
        pieces = _Events() if request.alt == "sse" else _Array()
        name, given = listing.name_of(request.model), Body(request.body)
        del request
        async with EventStream(context, self._dialect, pieces.broken, sign=pieces.sign) as stream:
            strict = is_strict(metadata_of(context))
            rendered, ignored = await self._begin(name, given, stream.caller(caller), stream=True, strict=strict)
            async with rendered.answer as answer:
                note(answer, caller)
                await stream.begin(reply.headers(answer, ignored=ignored, dialect=self._dialect))
                await in_own_task(_answer(rendered, stream, pieces))

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

    async def _begin(
        self, name: str, given: Body, caller: Caller, *, stream: bool, strict: bool
    ) -> tuple[TextReply | ImageReply, list[str]]:
        """Begin the answer that the model gives: text, or images. Give what renders it, and what was ignored."""
        unknown: MoaError | None = None
        makes = ""
        try:
            _, makes = await self._operations.model(name, caller)
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


async def _answer(rendered: TextReply | ImageReply, stream: EventStream, pieces: _Events) -> None:
    """Write an answer's responses as they come."""
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


class _Events:
    """Server-sent events, as Google's dialect ends them."""

    sign = reply.sse_body(data=b"\n\n")
    """What is written in silences: Google's client for Python takes a comment for an answer that cannot be read, and
    passes over empty lines, which by the format are events without data."""

    def of(self, value: Any, *, last: bool) -> httpbody_pb2.HttpBody:
        """Return one event."""
        return reply.sse_body(data=reply.frame(value))

    def broken(self, error: MoaError) -> httpbody_pb2.HttpBody:
        """Return a failure as the last event."""
        return reply.sse_body(data=reply.failure(GOOGLE, error))


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


_CONFIG: Final = "generationConfig"

METHODS: Final = MethodSet(
    servicer=GenerationServicer,
    methods={
        "GenerateContent": Method(reads=bodies.GenerateContentBody, answers=answers.GenerateContentResponse),
        "StreamGenerateContent": Method(reads=bodies.GenerateContentBody, answers=list[dict[str, Any]], streams=True),
        "CountTokens": Method(reads=bodies.CountBody, answers=answers.TokenCount, is_paid=False),
    },
    makes=("text", "image"),
    fields={
        # The system's message is none of the contents, so the contract's indices do not count them.
        "messages": "contents",
        "prompt": "contents",
        "images": "contents",
        "operation": "contents",
        "image_data": "contents",
        "n": f"{_CONFIG}.candidateCount",
        "count": f"{_CONFIG}.candidateCount",
        "candidates": f"{_CONFIG}.candidateCount",
        "max_tokens": f"{_CONFIG}.maxOutputTokens",
        **{name: f"{_CONFIG}.{word}" for name, word in limits.camel_settings(Sampling).items()},
        "stop": f"{_CONFIG}.stopSequences",
        "logprobs": f"{_CONFIG}.responseLogprobs",
        "top_logprobs": f"{_CONFIG}.logprobs",
        "response_format": f"{_CONFIG}.responseSchema",
        "reasoning": f"{_CONFIG}.thinkingConfig",
        "width": f"{_CONFIG}.imageConfig.imageSize",
        "height": f"{_CONFIG}.imageConfig.imageSize",
        "size": f"{_CONFIG}.imageConfig.imageSize",
        "quality": f"{_CONFIG}.imageConfig.imageSize",
        "aspect_ratio": f"{_CONFIG}.imageConfig.aspectRatio",
        **dict.fromkeys(
            ("tools.name", "tools.description", "tools.parameters_json", "tools.strict"), "functionDeclarations"
        ),
        "tool_choice": "toolConfig",
    },
)
