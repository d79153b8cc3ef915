"""The native API's handlers.

Streaming handlers are coroutines that call `context.write`: an async generator would be cleaned up in another task
when the client leaves.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from google.api import httpbody_pb2

from moa.image.v1 import image_service_pb2
from moa.router.v1 import native_service_pb2
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common.dialects import Dialect
from services.common.dialects.registrations import Method
from services.common.errors import PermissionDenied
from services.common.rpc.internals.batch import send_answer
from services.router.dialects import reply
from services.router.dialects.described import message_of
from services.router.dialects.event_stream import EventStream
from services.router.dialects.methods import MethodSet
from services.router.dialects.native import answers, bodies, image, text
from services.router.dialects.parts import Parts
from services.router.dialects.reading import Body
from services.router.domain.caller import Caller
from services.router.domain.prompt import Prompt
from services.router.operations.image import ImageCall
from services.router.operations.text import TextCall
from services.router.serving import begin, note


class NativeServicer:
    """Answers the documented native REST API."""

    def __init__(self, parts: Parts, dialect: Dialect) -> None:
        self._operations, self._reading, self._listing = parts.operations, parts.reading, parts.listing
        self._dialect = dialect

    async def ListProviders(
        self, request: native_service_pb2.ListProvidersRequest, context: Any
    ) -> native_service_pb2.ListProvidersResponse:
        """List the providers that the key may use and that are configured."""
        models = await self._listing.models(begin(context))
        return native_service_pb2.ListProvidersResponse(providers=dict.fromkeys(m.provider for m in models))

    async def ListProviderModels(
        self, request: native_service_pb2.ListProviderModelsRequest, context: Any
    ) -> native_service_pb2.ListProviderModelsResponse:
        """List a provider's models. Unknown provider 404; none of its models permitted 403."""
        models = await self._listing.models(begin(context), provider=request.provider)
        if not models:
            raise PermissionDenied(
                f"this key may not use provider {request.provider}; GET /providers lists those that it may",
                param="provider",
            )
        response = native_service_pb2.ListProviderModelsResponse(models=[m.id for m in models])
        for model in models:
            if result := await self._listing.readiness(model):
                response.states[model.id].CopyFrom(native_service_pb2.ModelReadiness(**result))
            response.facts[model.id].CopyFrom(await message_of(self._listing, model))
        return response

    async def GenerateText(self, request: httpbody_pb2.HttpBody, context: Any) -> None:
        """Answer a conversation."""
        caller = begin(context)
        given = Body(request)
        del request
        wanted, prompt = await self._reading(text.read, given)
        reasoning = wanted.reasoning.include
        if wanted.stream:
            await self._text_stream(wanted, caller, context, prompt, include_reasoning=reasoning)
            return
        async with await self._operations.begin(TextCall(wanted, prompt), caller) as answer:
            note(answer, caller)
            body = await text.whole(answer, include_reasoning=reasoning)
            await send_answer(context, reply.headers(answer, cost=answer.usage), reply.json_body(body))

    async def _text_stream(
        self,
        wanted: GenerateTextRequest,
        caller: Caller,
        context: Any,
        prompt: Prompt | None = None,
        *,
        include_reasoning: bool,
    ) -> None:
        async with (
            EventStream(context, self._dialect) as stream,
            await self._operations.begin(TextCall(wanted, prompt), stream.caller(caller)) as answer,
        ):
            note(answer, caller)
            await stream.begin(reply.headers(answer))
            await stream.answer(answer, text.Frames(answer, include_reasoning=include_reasoning).of)

    async def CreateImage(self, request: httpbody_pb2.HttpBody, context: Any) -> None:
        """Make images."""
        given = Body(request)
        del request
        await self._image(given, context, edit=False)

    async def EditImage(self, request: httpbody_pb2.HttpBody, context: Any) -> None:
        """Change or describe an image."""
        given = Body(request)
        del request
        await self._image(given, context, edit=True)

    async def _image(self, given: Body, context: Any, *, edit: bool) -> None:
        caller = begin(context)
        wanted = await self._reading(image.request_from, given, edit=edit)
        if edit:
            _, makes = await self._operations.model(wanted.model, caller, provider=wanted.provider)
            if makes == "text":
                await self._analyse(wanted, caller, context)
                return
        if wanted.stream:
            await self._image_stream(wanted, caller, context)
            return
        async with await self._operations.begin(ImageCall(wanted), caller) as answer:
            note(answer, caller)
            gathered = image.Reply(answer, wanted.prompt)
            while (message := await answer.next()) is not None:
                gathered.take(message, stream=False)
            answer.usage.images = gathered.count
            await send_answer(context, reply.headers(answer, cost=answer.usage), reply.json_body(gathered.object()))
            answer.delivered(gathered.count)

    async def _image_stream(self, wanted: image_service_pb2.GenerateImageRequest, caller: Caller, context: Any) -> None:
        async with (
            EventStream(context, self._dialect) as stream,
            await self._operations.begin(ImageCall(wanted), stream.caller(caller)) as answer,
        ):
            note(answer, caller)
            await stream.begin(reply.headers(answer))
            gathered = image.Reply(answer, wanted.prompt)
            await stream.answer(answer, partial(gathered.take, stream=True))
            if answer.succeeded:
                answer.delivered(gathered.count)

    async def _analyse(self, wanted: image_service_pb2.GenerateImageRequest, caller: Caller, context: Any) -> None:
        """Answer an edit that a model which makes text was asked for: it looks at the image and says."""
        asked, prompt = image.analysis_of(wanted), wanted.prompt
        if asked.stream:
            await self._text_stream(asked, caller, context, include_reasoning=False)
            return
        async with await self._operations.begin(TextCall(asked), caller) as answer:
            note(answer, caller)
            body = image.analysis_object(await text.whole(answer, include_reasoning=False), prompt)
            await send_answer(context, reply.headers(answer, cost=answer.usage), reply.json_body(body))


_IMAGES: Final = Method(reads=bodies.ImageBody, answers=answers.NativeImages, streams=True)

METHODS: Final = MethodSet(
    servicer=NativeServicer,
    methods={
        "ListProviders": Method(),
        "ListProviderModels": Method(),
        "GenerateText": Method(reads=bodies.TextBody, answers=answers.NativeText, streams=True),
        "CreateImage": _IMAGES,
        "EditImage": _IMAGES,
    },
    makes=("text", "image"),
)
