"""`moa.vision.v1.VisionService` over the models of one's own."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from inference.fair import Flow
from inference.registry import Registry
from moa.common.v1 import media_pb2
from moa.vision.v1 import vision_pb2, vision_service_pb2, vision_service_pb2_grpc
from services.catalogue import Model, Watched
from services.common import limits
from services.common.errors import InvalidField, ModelMisconfigured
from services.common.rpc import call as calls

if TYPE_CHECKING:  # the engine imports torch, which must not delay the port
    from PIL.Image import Image

    from inference.vision.engine import VisionEngine
    from inference.vision.families import Finding

MAX_LABELS = 100
MAX_STATEMENTS = 20
MAX_CHARS = 200
"""Longest label or statement."""
_LIMIT = 100


class VisionServicer(vision_service_pb2_grpc.VisionServiceServicer):
    """Looks at images with catalogue models that this process loads.

    Args:
        catalogue: Which models there are. A model takes the calls that its capabilities name: `caption`, `detect`,
            `judge`.
        registry: Loads them.
        workers: Where images are decoded.
        defaults: The model of each capability for calls that name none; without one the catalogue's first.
    """

    def __init__(
        self, catalogue: Watched, registry: Registry, workers: Executor, defaults: Mapping[str, str] | None = None
    ) -> None:
        self._catalogue = catalogue
        self._registry = registry
        self._workers = workers
        self._defaults = defaults or {}

    async def CaptionImage(
        self, request: vision_service_pb2.CaptionImageRequest, context: Any
    ) -> vision_service_pb2.CaptionImageResponse:
        """Describe an image."""
        model = self._model(request.model, "caption")
        async with self._held(model, request.image) as (engine, image):
            caption = await engine.look(lambda family: family.caption(image), _flow(context))
        return vision_service_pb2.CaptionImageResponse(caption=caption, model=model.id)

    async def DetectObjects(
        self, request: vision_service_pb2.DetectObjectsRequest, context: Any
    ) -> vision_service_pb2.DetectObjectsResponse:
        """Find things in an image."""
        model = self._model(request.model, "detect")
        labels = list(dict.fromkeys(_texts(request.labels, "labels", MAX_LABELS)))
        given = request.min_score if request.HasField("min_score") else None
        if given is not None and not 0 <= given <= 1:  # NaN fails too
            raise InvalidField("min_score must be from 0 to 1", param="min_score")
        async with self._held(model, request.image) as (engine, image):
            least = engine.family.threshold if given is None else given
            found = await engine.look(lambda family: family.detect(image, labels, least), _flow(context))
        surest = sorted((f for f in found if f.score >= least), key=lambda f: -f.score)
        return vision_service_pb2.DetectObjectsResponse(
            objects=map(_rendered, surest[: request.limit or _LIMIT]), model=model.id
        )

    async def JudgeImage(
        self, request: vision_service_pb2.JudgeImageRequest, context: Any
    ) -> vision_service_pb2.JudgeImageResponse:
        """Judge statements about an image."""
        model = self._model(request.model, "judge")
        statements = _texts(request.statements, "statements", MAX_STATEMENTS)
        if not statements:
            raise InvalidField("at least one statement is required", param="statements")
        async with self._held(model, request.image) as (engine, image):
            chances = await engine.look(lambda family: family.judge(image, statements), _flow(context))
            threshold = engine.family.threshold
        judgements = [
            vision_pb2.Judgement(statement=statement, holds=chance >= threshold, probability=_bounded(chance))
            for statement, chance in zip(statements, chances, strict=True)
        ]
        return vision_service_pb2.JudgeImageResponse(judgements=judgements, model=model.id)

    def _model(self, name: str, capability: str) -> Model:
        """Return the model that is asked for, or the default. Raises Unsupported, ModelNotFound, ModelMisconfigured."""
        name = name or self._defaults.get(capability, "") or self._first(capability)
        model = self._catalogue.now.find_vision(name)
        calls.current().fields["model"] = model.id
        limits.check_needs([limits.Need("model", capability)], model)
        return model

    def _first(self, capability: str) -> str:
        for model in self._catalogue.now.vision:
            if model.can(capability):
                return model.full_id
        raise ModelMisconfigured(f"the catalogue has no vision model that can {capability}")

    @asynccontextmanager
    async def _held(self, model: Model, given: media_pb2.ImageInput) -> AsyncIterator[tuple[VisionEngine, Image]]:
        """Decode the image, then hold the model for the body: what is no image loads nothing."""
        if given.WhichOneof("source") != "data" or not given.data:
            raise InvalidField("the image's bytes are required", param="image.data")
        image = await asyncio.get_running_loop().run_in_executor(self._workers, functools.partial(_decoded, given.data))
        async with self._registry.use(model) as engine:
            yield engine, image  # type: ignore[misc]  # the builder gives this kind for vision models


def _flow(context: Any) -> Flow:
    return Flow.of(dict(context.invocation_metadata() or ()))


def _decoded(data: bytes) -> Image:
    from inference.image import codec

    return codec.rgb(data, "image.data")


def _texts(given: Sequence[str], param: str, most: int) -> list[str]:
    if len(given) > most:
        raise InvalidField(f"at most {most} {param}", param=param)
    for i, text in enumerate(given):
        if not text.strip():
            raise InvalidField("a text must not be empty", param=f"{param}[{i}]")
        if len(text) > MAX_CHARS:
            raise InvalidField(f"a text may have at most {MAX_CHARS} characters", param=f"{param}[{i}]")
    return list(given)


def _bounded(chance: float) -> float:
    return min(1.0, max(0.0, chance)) if math.isfinite(chance) else 0.0


def _rendered(found: Finding) -> vision_pb2.DetectedObject:
    left, top, right, bottom = found.box
    box = vision_pb2.Box(left=left, top=top, right=right, bottom=bottom)
    return vision_pb2.DetectedObject(label=found.label, score=_bounded(found.score), box=box)


__all__ = ["MAX_LABELS", "MAX_STATEMENTS", "VisionServicer"]
