"""The pipeline: fetch, look, compose, make, hand over, shop; each step an event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from moa.common.v1 import media_pb2, usage_pb2
from moa.desk.v1 import desk_pb2, desk_service_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from services.common.cancelling import cancel_and_wait
from services.common.errors import InvalidField, MoaError, detail_of, passes
from services.desk.domain import items, prompt

Request = desk_service_pb2.StyleDeskRequest
Event = desk_pb2.DeskEvent


@dataclass(frozen=True, slots=True)
class VisionResult:
    """What vision saw."""

    caption: str
    labels: Sequence[str]
    """The surest first."""
    is_desk: bool


class ImageFetcher(Protocol):
    """Reads callers' images."""

    async def image(self, url: str, account_id: str) -> media_pb2.ImageInput:
        """Return an image's bytes. Raises MoaError."""


class Vision(Protocol):
    """Looks at images."""

    async def look(self, image: media_pb2.ImageInput, labels: Sequence[str]) -> VisionResult:
        """Caption, find and judge. Raises MoaError."""


class Painter(Protocol):
    """Makes images; the router is one."""

    def paint(self, request: image_service_pb2.GenerateImageRequest) -> AsyncGenerator[image_pb2.ImageEvent, None]:
        """Return the events up to `finished`. Raises MoaError."""


class ShopSearch(Protocol):
    """Searches shops."""

    async def search(self, name: str) -> list[desk_pb2.Offer]:
        """Return offers, the cheapest first. Raises MoaError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How new images are made."""

    model: str
    lora: str = ""
    lora_scale: float = 1.0
    trigger: str = ""
    """The adapter's trigger word."""
    words: str = prompt.STYLE
    strength: float = 0.6
    max_side: int = 1024
    """Longer sides are scaled down to it, for models that were made for less."""
    steps: int = 50
    guidance_scale: float = 7.5
    most_items: int = 8
    offers: int = 3
    pause_s: float = 0.5


class Pipeline:
    """Runs the pipeline, over whoever does each part."""

    def __init__(
        self, *, style: Style, fetch: ImageFetcher, vision: Vision, painter: Painter, shops: ShopSearch
    ) -> None:
        self._style = style
        self._fetch = fetch
        self._vision = vision
        self._painter = painter
        self._shops = shops

    async def run(self, request: Request) -> AsyncGenerator[Event, None]:
        """Return the events, the last of which is `finished`. Raises MoaError where nothing can be answered."""
        seen, image = None, None
        if request.initial_image_url:
            yield _stage(desk_pb2.STAGE_FETCH)
            image = await self._fetch.image(request.initial_image_url, request.account_id)
            yield _stage(desk_pb2.STAGE_VISION)
            seen = await self._vision.look(image, list(items.ITEMS))
            kinds = items.kinds_of(seen.labels)[: self._style.most_items]
            yield Event(seen=desk_pb2.Seen(caption=seen.caption, objects=kinds, is_desk=seen.is_desk))
        elif request.prompt.strip():
            kinds = items.named_in(request.prompt)[: self._style.most_items]
        else:
            raise InvalidField("an image or a prompt is required", param="prompt")
        finished = desk_pb2.Finished(usage=usage_pb2.Usage(exact=True))
        if seen is None or seen.is_desk:
            async with aclosing(self._synthesised(request, seen, kinds, image, finished)) as events:
                async for event in events:
                    yield event
        else:
            finished.skipped = desk_pb2.SKIP_REASON_NOT_A_DESK
        async with aclosing(self._shopped(kinds)) as events:
            async for event in events:
                yield event
        yield Event(finished=finished)

    async def _synthesised(
        self,
        request: Request,
        seen: VisionResult | None,
        kinds: Sequence[str],
        image: media_pb2.ImageInput | None,
        finished: desk_pb2.Finished,
    ) -> AsyncGenerator[Event, None]:
        """Make the new image; a failure to make it is noted in `finished`."""
        yield _stage(desk_pb2.STAGE_PROMPT)
        asked = self._asked(request, seen, kinds, image)
        yield _stage(desk_pb2.STAGE_SYNTHESIS, 0, asked.diffusion.steps)
        made: image_pb2.Image | None = None
        for last in (False, True):
            try:
                async with aclosing(self._painter.paint(asked)) as events:
                    async for event in events:
                        if event.HasField("image"):
                            made = event.image
                        elif event.HasField("progress"):
                            yield _progress(event.progress)
                break
            except MoaError as error:
                if last or not passes(error):
                    finished.skipped = desk_pb2.SKIP_REASON_SYNTHESIS_FAILED
                    finished.synthesis_error.CopyFrom(detail_of(error, ""))
                    return
            await asyncio.sleep(self._style.pause_s)
        if made is None:
            finished.skipped = desk_pb2.SKIP_REASON_SYNTHESIS_FAILED
            return
        yield _stage(desk_pb2.STAGE_STORE)
        yield Event(image=made)
        finished.usage.images = 1

    async def _shopped(self, kinds: Sequence[str]) -> AsyncGenerator[Event, None]:
        """Search for each item. Searches run together; answers come in the items' order."""
        if not kinds:
            return
        yield _stage(desk_pb2.STAGE_SHOPPING, 0, len(kinds))
        searches = [asyncio.create_task(self._item(items.ITEMS[kind])) for kind in kinds]
        try:
            for number, search in enumerate(searches, 1):
                yield Event(item=await search)
                yield _stage(desk_pb2.STAGE_SHOPPING, number, len(kinds))
        finally:
            await cancel_and_wait(*searches)

    async def _item(self, name: str) -> desk_pb2.Item:
        try:
            offers = await self._shops.search(name)
        except MoaError:
            # A shop that fails takes nothing from the rest of the answer.
            return desk_pb2.Item(name=name, search_failed=True)
        return desk_pb2.Item(name=name, offers=offers[: self._style.offers])

    def _asked(
        self, request: Request, seen: VisionResult | None, kinds: Sequence[str], image: media_pb2.ImageInput | None
    ) -> image_service_pb2.GenerateImageRequest:
        style = self._style
        words = prompt.compose(
            caption=seen.caption if seen else "",
            objects=kinds if seen else (),
            wish=request.prompt,
            style=style.words,
            trigger=style.trigger if style.lora else "",
        )
        width, height = _fitted(request.width or 1024, request.height or 1024, style.max_side)
        asked = image_service_pb2.GenerateImageRequest(
            model=style.model,
            prompt=words,
            negative_prompt=request.negative_prompt or prompt.NEGATIVE,
            count=1,
            width=width,
            height=height,
            preview_every=request.preview_every,
            stream=True,
        )
        asked.diffusion.steps = request.num_inference_steps or style.steps
        given = request.HasField("guidance_scale")
        asked.diffusion.guidance_scale = request.guidance_scale if given else style.guidance_scale
        if request.HasField("seed"):
            asked.seed = request.seed
        if style.lora:
            asked.diffusion.loras.add(name=style.lora, scale=style.lora_scale)
        if image is not None:
            asked.operation = image_pb2.OPERATION_EDIT
            asked.images.append(image)
            asked.diffusion.strength = style.strength
        return asked


def _fitted(width: int, height: int, most: int) -> tuple[int, int]:
    """Scale a size down to what the model was made for, in steps of 16 pixels, which every local model takes."""
    factor = min(1.0, most / max(width, height))
    side: Callable[[int], int] = lambda given: max(16, round(given * factor / 16) * 16)  # noqa: E731
    return side(width), side(height)


def _stage(stage: desk_pb2.Stage.ValueType, step: int = 0, steps: int = 0) -> Event:
    return Event(stage=desk_pb2.StageProgress(stage=stage, step=step, steps=steps))


def _progress(progress: image_pb2.Progress) -> Event:
    event = _stage(desk_pb2.STAGE_SYNTHESIS, progress.step, progress.steps)
    if progress.HasField("eta"):
        event.stage.eta.CopyFrom(progress.eta)
    if progress.HasField("preview"):
        event.stage.preview.CopyFrom(progress.preview)
    return event
