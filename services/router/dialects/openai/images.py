"""OpenAI's images: `POST /v1/images/…` (platform.openai.com/docs/api-reference/images)."""

from __future__ import annotations

from typing import Any, Final

from google.api import httpbody_pb2

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.common.dialects import Dialect
from services.common.dialects.registrations import Method
from services.common.errors import MoaError
from services.common.rpc.call import metadata_of
from services.common.rpc.internals.batch import send_answer
from services.router.dialects import reply
from services.router.dialects.event_stream import EventStream
from services.router.dialects.methods import MethodSet
from services.router.dialects.openai import answers, image_bodies, image_reply, image_request
from services.router.dialects.openai.deployments import deployment
from services.router.dialects.parts import Parts
from services.router.dialects.reading import Body
from services.router.dialects.unknown import is_strict
from services.router.domain.caller import Caller
from services.router.operations.image import ImageCall
from services.router.serving import note


class ImagesServicer:
    """Makes images. For why its handlers are coroutines see `dialects.native.servicer`."""

    def __init__(self, parts: Parts, dialect: Dialect) -> None:
        self._operations, self._reading, self._dialect = parts.operations, parts.reading, dialect
        self._caller = parts.begin
        self._linked_images = image_reply.LinkedImages(parts.store, parts.links)

    async def CreateImage(self, request: httpbody_pb2.HttpBody, context: Any) -> None:
        """Make images from a prompt."""
        given = Body(request)
        del request
        await self._image(given, context, "generation")

    async def CreateImageEdit(self, request: httpbody_pb2.HttpBody, context: Any) -> None:
        """Change images."""
        given = Body(request)
        del request
        await self._image(given, context, "edit")

    async def CreateImageVariation(self, request: httpbody_pb2.HttpBody, context: Any) -> None:
        """Make images like one."""
        given = Body(request)
        del request
        await self._image(given, context, "variation")

    async def _image(self, given: Body, context: Any, kind: image_request.Kind) -> None:
        caller = self._caller(context)
        strict = is_strict(metadata_of(context))
        asked, wanted = await self._reading(
            image_request.request_from, given, given.content_type, kind, strict=strict, model=deployment(context)
        )
        if wanted.unnamed:
            asked.model = await self._operations.usual(ImageCall(asked), caller)
        if asked.quality or asked.style or asked.moderation or wanted.partial_images:
            model, _ = await self._operations.model(asked.model, caller)
            wanted.ignored.extend(image_request.drop_hints(asked, model, strict=strict))
        if wanted.partial_images:
            asked.preview_every = image_request.preview_every(model, wanted.partial_images)
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
            await send_answer(
                context, reply.headers(answer, cost=answer.usage, ignored=wanted.ignored), reply.json_body(body)
            )
            answer.delivered(images.count)

    async def _image_stream(
        self, asked: GenerateImageRequest, wanted: image_request.Wanted, caller: Caller, context: Any
    ) -> None:
        name = asked.model
        async with (
            EventStream(context, self._dialect, image_reply.broken, ignored=wanted.ignored) as stream,
            await self._operations.begin(ImageCall(asked), stream.caller(caller)) as answer,
        ):
            note(answer, caller)
            images = image_reply.Images(answer, wanted, self._linked_images, caller.request_id, asked=name)
            await stream.begin(reply.headers(answer, ignored=wanted.ignored))
            try:
                while (message := await answer.next()) is not None:
                    frames, finished = await images.frames(message)
                    if frames:
                        await stream.write(reply.sse_body(data=frames))
                    elif not message.events:
                        stream.heard()
                    answer.delivered(finished)
            except MoaError as error:
                # A failure of the gateway's own (the store, a broken file) is the stream's last event.
                await stream.write(image_reply.broken(error))


METHODS: Final = MethodSet(
    servicer=ImagesServicer,
    methods={
        "CreateImage": Method(reads=image_bodies.ImageBody, answers=answers.Images, streams=True),
        "CreateImageEdit": Method(reads=image_bodies.ImageBody, answers=answers.Images, streams=True, takes_form=True),
        "CreateImageVariation": Method(reads=image_bodies.ImageBody, answers=answers.Images, takes_form=True),
    },
    makes=("image",),
    fields={
        "image_data": "image",
        "count": "n",
        "width": "size",
        "height": "size",
        # What is to be done is the path; who can do it is the model's matter.
        "operation": "model",
        "images.data": "image_url",
        "images.mime_type": "image_url",
        "images.url": "image_url",
        "mask.data": "mask",
        "mask.mime_type": "mask",
        "mask.url": "mask",
    },
)
