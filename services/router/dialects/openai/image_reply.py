"""From the contract's events to OpenAI's images: one object, or a stream of partial and completed images."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from google.api import httpbody_pb2

from moa.common.v1 import media_pb2, usage_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from services.catalogue import Model
from services.common import vendor_fields
from services.common.dialects import OPENAI
from services.common.errors import ContentPolicy, MoaError, error_of
from services.common.reencode import as_format
from services.common.store import Links, Store, object_name
from services.router.dialects.openai import carried
from services.router.dialects.openai.image_request import Wanted
from services.router.dialects.reply import encode, sse_body
from services.router.operations.image import ImageAnswer

EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif"}


class LinkedImages:
    """Puts made images into the store and gives links to them."""

    def __init__(self, store: Store, links: Links) -> None:
        self._store = store
        self._links = links

    async def link(self, image: media_pb2.ImageData, account_id: str, request_id: str) -> str:
        """Store an image and return its link. Raises StorageFailed."""
        name = object_name(account_id, EXTENSIONS.get(image.mime_type, "bin"))
        await self._store.put(name, image.data, content_type=image.mime_type, metadata={"request-id": request_id})
        return self._links.make(name)


_AS_BYTES: Final = ("gpt-image-", "chatgpt-image-")
"""How models are called that answer with bytes where their callers say nothing: their owner's clients expect it."""
_MOST_WORDS: Final = 500
_WORDS_SHOWN: Final = {"background": ("opaque", "transparent"), "quality": ("low", "medium", "high", "xhigh", "max")}
"""What OpenAI's published type of a whole answer can say; it has no word for a choice that was the model's own."""
_IN_ANSWERS: Final = {"standard": "medium", "hd": "high"}
"""Qualities of requests that answers call otherwise."""


def usage_of(usage: usage_pb2.Usage) -> dict[str, Any]:
    """Return the usage as OpenAI's images have it; zeros where the model counts no tokens."""
    given = {
        "image_tokens": usage.prompt_image_tokens,
        "text_tokens": usage.prompt_tokens - usage.prompt_image_tokens,
    }
    if usage.cached_tokens:
        given["cached_tokens"] = usage.cached_tokens
    results: dict[str, Any] = {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": given,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if usage.completion_image_tokens:
        results["output_tokens_details"] = {
            "image_tokens": usage.completion_image_tokens,
            "text_tokens": usage.completion_tokens - usage.completion_image_tokens,
        }
    return results


def _answers_bytes(model: Model, asked: str) -> bool:
    """Return whether the name that was asked for is one of a model that answers with bytes, whoever answers for it."""
    name = asked.rpartition("/")[2]
    return name.startswith(_AS_BYTES) or (model.id.startswith(_AS_BYTES) and name in model.aliases)


class Images:
    """Takes an answer's messages in, and renders what is made of them. `asked` is how the caller named the model."""

    def __init__(
        self, answer: ImageAnswer, wanted: Wanted, linked_images: LinkedImages, request_id: str, *, asked: str
    ) -> None:
        self._answer = answer
        self._wanted = wanted
        self._linked_images = linked_images
        self._request_id = request_id
        self._links = not _answers_bytes(answer.model, asked) if wanted.links is None else wanted.links
        self._words = ""
        self._made: dict[int, image_pb2.Image] = {}
        self._partial: dict[int, int] = {}
        self._beside: dict[str, Any] = {}
        self._beside_images: dict[int, dict[str, Any]] = {}
        """Of each image by its index."""
        self._created = int(time.time())

    @property
    def count(self) -> int:
        """How many images are in hand."""
        return len(self._made)

    async def take(self, message: image_service_pb2.GenerateImageResponse) -> None:
        """Take one message in. Raises MoaError for an error event."""
        for event in message.events:
            kind = event.WhichOneof("event")
            if kind == "error":
                raise error_of(event.error)
            if kind == "image":
                await self._keep(event)
            elif kind == "text":
                self._say(event.text.text)
            if event.HasField("vendor"):
                self._carry(event)

    def _carry(self, event: image_pb2.ImageEvent) -> None:
        """Keep fields of the vendor's own, for the answer and its images."""
        fields = carried.fields_of(event)
        vendor_fields.go_on(self._beside, fields.get("answer", {}))
        vendor_fields.go_on(self._beside_images.setdefault(event.index, {}), fields.get("image", {}))

    def _say(self, words: str) -> None:
        self._words = (self._words + words)[:_MOST_WORDS]

    def check_made(self) -> None:
        """Raise ContentPolicy, with what the model said instead, where it made no image."""
        if not self._made:
            words = f" and said: {self._words.strip()}" if self._words.strip() else ""
            raise ContentPolicy(f"the model made no image{words}", param="prompt")

    async def _keep(self, event: image_pb2.ImageEvent) -> None:
        self._made[event.index] = event.image
        image = await as_format(event.image.image, self._wanted.output_format, quality=self._wanted.compression)
        if image is not event.image.image:
            event.image.image.CopyFrom(image)

    async def object(self) -> dict[str, Any]:
        """Return the whole answer. Raises StorageFailed, and as `check_made`."""
        self.check_made()
        made = [self._made[index] for index in sorted(self._made)]
        data = await asyncio.gather(*(self._datum(image) for image in made))
        for index, datum in zip(sorted(self._made), data, strict=True):
            vendor_fields.merge(datum, self._beside_images.get(index, {}))
        results: dict[str, Any] = {"created": self._created, "data": data, "usage": self._usage()}
        form = self._form(made[0].image)
        results |= {name: value for name, value in form.items() if value in _WORDS_SHOWN.get(name, (value,))}
        vendor_fields.merge(results, self._beside)
        return results

    def _usage(self) -> dict[str, Any]:
        """Return the usage, with what the provider counts beside it."""
        results, beside = usage_of(self._answer.usage), self._beside.get("usage")
        vendor_fields.merge(results, beside if isinstance(beside, dict) else {})
        return results

    async def _datum(self, image: image_pb2.Image) -> dict[str, Any]:
        results: dict[str, Any]
        if self._links:
            account = self._answer.reservation.account_id
            results = {"url": await self._linked_images.link(image.image, account, self._request_id)}
        else:
            results = {"b64_json": image.image.data}
        if image.revised_prompt:
            results["revised_prompt"] = image.revised_prompt
        return results

    def _quality(self) -> str:
        """Return the quality that was asked for of the model."""
        pairs = (name.partition("=") for name in self._wanted.ignored)
        asked = next((value or "auto" for name, _, value in pairs if name == "quality"), self._wanted.quality)
        return _IN_ANSWERS.get(asked, asked)

    def _form(self, image: media_pb2.ImageData) -> dict[str, Any]:
        return {
            "background": self._wanted.background,
            "output_format": image.mime_type.removeprefix("image/"),
            "quality": self._quality(),
            "size": f"{image.width}x{image.height}",
        }

    async def frames(self, message: image_service_pb2.GenerateImageResponse) -> tuple[bytes, int]:
        """Render one message as events of the stream; give them and how many finished images they carry.

        Completed images are held until the answer's end, because each carries the usage.
        """
        out = bytearray()
        for event in message.events:
            kind = event.WhichOneof("event")
            if kind == "progress" and event.progress.HasField("preview"):
                out += await self._preview(event)
            elif kind == "image":
                await self._keep(event)
            elif kind == "error":
                out += _frame("error", OPENAI.render(error_of(event.error)))
            elif kind == "text":
                self._say(event.text.text)
            elif event.HasField("vendor"):
                self._carry(event)
            elif kind == "finished":
                self.check_made()
                out += await self._completed()
                return bytes(out), self.count
        return bytes(out), 0

    async def _preview(self, event: image_pb2.ImageEvent) -> bytes:
        number = self._partial.get(event.index, 0)
        if number >= self._wanted.partial_images:
            return b""
        self._partial[event.index] = number + 1
        image = await as_format(event.progress.preview, self._wanted.output_format or "png")
        return self._event("partial_image", image, {"partial_image_index": number})

    async def _completed(self) -> bytes:
        out = bytearray()
        for index in sorted(self._made):
            made = self._made[index]
            more = {**self._beside, **self._beside_images.get(index, {}), "usage": self._usage()}
            if self._wanted.links:
                more["url"] = (await self._datum(made))["url"]
            out += self._event("completed", made.image, more)
        return bytes(out)

    def _event(self, name: str, image: media_pb2.ImageData, more: dict[str, Any]) -> bytes:
        kind = f"image_{self._wanted.kind}.{name}"
        body = {"type": kind, "b64_json": image.data, "created_at": self._created}
        event = {**body, **self._form(image)}
        vendor_fields.merge(event, more)
        return _frame(kind, event)


def broken(error: MoaError) -> httpbody_pb2.HttpBody:
    """Render a failure of a stream that is no event of its answer."""
    return sse_body(data=_frame("error", OPENAI.render(error)))


def _frame(name: str, value: Any) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + encode(value) + b"\n\n"
