"""One picture of a response: the image operation behind it, step by step, as the response tells of it."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple

from msgspec.structs import replace

from moa.common.v1 import media_pb2, usage_pb2
from moa.image.v1 import image_pb2
from services.catalogue import today
from services.common.errors import ContentPolicy, MoaError, error_of
from services.common.reencode import as_format
from services.common.rpc import call as calls
from services.router import metrics
from services.router.dialects.responses.items import Json
from services.router.dialects.responses.picture_tool import Arguments, Offer
from services.router.domain.caller import Caller
from services.router.domain.operations import Operations
from services.router.operations.image import ImageAnswer, ImageCall

_MOST_WORDS: Final = 500
_GRADES: Final = {"standard": "medium", "hd": "high"}


class Step(NamedTuple):
    """What happened to a picture."""

    kind: Literal["begun", "generating", "partial", "made", "failed"]
    fields: Json | None = None
    """Of a partial picture its event's, of one that is made its item's."""
    error: MoaError | None = None
    usage: usage_pb2.Usage | None = None
    """Where it is made: what all pictures of the response consumed."""

    @property
    def events(self) -> tuple[Step, ...]:
        """As a message of an answer has them."""
        return (self,)


class Sign(NamedTuple):
    """A sign of life."""

    events: tuple[Step, ...] = ()


SIGN: Final = Sign()


class Painting:
    """Makes one picture. Whoever reads its steps to the last closes it, once the picture has been written.

    Args:
        arguments: What the model called the tool with.
        pictures: The conversation's, of which the last may be changed; the one that is made is added.
        usage: What earlier pictures of the response consumed; this one's is added.
    """

    def __init__(
        self,
        operations: Operations,
        caller: Caller,
        offer: Offer,
        arguments: Arguments,
        pictures: list[media_pb2.ImageInput],
        usage: usage_pb2.Usage,
    ) -> None:
        self._usage = usage
        self._operations, self._caller, self._offer = operations, caller, offer
        self._arguments, self._pictures = arguments, pictures
        self._answer: ImageAnswer | None = None
        self._steps: deque[Step] = deque([Step("begun")])
        self._begun = self._over = False
        self._partial = 0
        self._words = ""
        self._made: media_pb2.ImageData | None = None
        self._revised = ""
        self._action = "generate"
        self.failure = ""
        """Why there is no picture; empty where there is one."""

    @property
    def is_made(self) -> bool:
        """Whether the picture is there."""
        return self._made is not None and not self.failure

    async def next(self) -> Step | Sign | None:
        """Return the next step, or a sign of life; None after the last."""
        while not self._steps:
            if self._over:
                return None
            try:
                if not self._begun:
                    await self._begin()
                elif not await self._read():
                    return SIGN
            except MoaError as error:
                self._fail(error)
        return self._steps.popleft()

    async def _begin(self) -> None:
        self._begun = True
        request = self._offer.request(self._arguments, self._pictures)
        self._action = "edit" if request.operation == image_pb2.OPERATION_EDIT else "generate"
        answer = await self._operations.begin(ImageCall(request), replace(self._caller, began=time.perf_counter()))
        self._answer = await answer.__aenter__()
        _note(answer)
        self._steps.append(Step("generating"))

    async def _read(self) -> bool:
        """Take the operation's next message in; return whether it had anything to tell. Raises MoaError."""
        assert self._answer is not None
        message = await self._answer.next()
        for event in message.events if message is not None else ():
            kind = event.WhichOneof("event")
            if kind == "error":
                raise error_of(event.error)
            if kind == "progress" and event.progress.HasField("preview"):
                await self._preview(event.progress.preview)
            elif kind == "image":
                await self._keep(event.image)
            elif kind == "text":
                self._words = (self._words + event.text.text)[:_MOST_WORDS]
            elif kind == "finished":
                self._end()
        return bool(self._steps)

    async def _preview(self, preview: media_pb2.ImageData) -> None:
        wanted = self._offer.wanted
        if self._partial >= wanted.partial_images:
            return
        image = await as_format(preview, wanted.output_format or "png")
        fields = {"partial_image_index": self._partial, "partial_image_b64": image.data, **self._form(image)}
        self._partial += 1
        self._steps.append(Step("partial", fields))

    async def _keep(self, image: image_pb2.Image) -> None:
        if self._made is None:
            wanted = self._offer.wanted
            self._made = await as_format(image.image, wanted.output_format, quality=wanted.compression)
            self._revised = image.revised_prompt

    def _end(self) -> None:
        assert self._answer is not None
        if self._made is None:
            words = f" and said: {self._words.strip()}" if self._words.strip() else ""
            self._fail(ContentPolicy(f"the model made no image{words}", param="prompt"))
            return
        self._over = True
        self._pictures.append(media_pb2.ImageInput(data=self._made.data, mime_type=self._made.mime_type))
        made: Json = {"result": self._made.data, "revised_prompt": self._revised or self._arguments.prompt}
        self._usage.CopyFrom(summed(self._usage, self._answer.usage))
        self._steps.append(Step("made", {**made, "action": self._action, **self._form(self._made)}, usage=self._usage))

    def _fail(self, error: MoaError) -> None:
        self._over = True
        self._made = None
        self.failure = error.message
        self._steps.append(Step("failed", error=error))

    def _form(self, image: media_pb2.ImageData) -> Json:
        wanted = self._offer.wanted
        return {
            "background": wanted.background,
            "output_format": image.mime_type.removeprefix("image/"),
            "quality": _GRADES.get(wanted.quality, wanted.quality),
            "size": f"{image.width}x{image.height}",
        }

    def delivered(self) -> None:
        """Note that the picture has been written to the caller."""
        if self._answer is not None and self.is_made:
            self._answer.delivered(1)

    async def close(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """Stop the work, and settle. The arguments are why the call ended, as a context manager has them."""
        answer, self._answer = self._answer, None
        if answer is not None:
            await answer.__aexit__(kind, error, trace)


def summed(one: usage_pb2.Usage, other: usage_pb2.Usage) -> usage_pb2.Usage:
    """Return two consumptions together."""
    made = usage_pb2.Usage()
    for field in made.DESCRIPTOR.fields:
        if field.name != "exact":
            setattr(made, field.name, getattr(one, field.name) + getattr(other, field.name))
    made.exact = other.exact and (one.exact or not one.ByteSize())
    return made


def _note(answer: ImageAnswer) -> None:
    """Put who paints on the call's log line, and what it comes to into that and the metrics, beside the chat's."""
    call = calls.current()
    fields: dict[str, Any] = call.fields
    fields["image_model"] = answer.model.full_id

    def settled(consumed: usage_pb2.Usage) -> None:
        call.charged = call.charged or bool(consumed.images or consumed.prompt_tokens or consumed.completion_tokens)
        fields["images"] = fields.get("images", 0) + consumed.images
        cost = metrics.charged(answer.model, consumed, today(), team=answer.reservation.team_id)
        if cost is not None:
            fields["cost_usd"] = round(fields.get("cost_usd", 0.0) + cost, 8)

    answer.on_settled = settled
