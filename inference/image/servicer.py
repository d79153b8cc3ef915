"""`moa.image.v1.ImageService` over the models of one's own."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from inference.catalogued import find
from inference.fair import Flow
from inference.heartbeat import EngineHeartbeat
from inference.image import codec
from inference.image import events as kinds
from inference.image.ask import ImageAsk, ask_from
from inference.image.events import Event
from inference.job import Failed
from inference.mailbox import Mailbox
from inference.registry import Registry
from moa.common.v1 import media_pb2, usage_pb2
from moa.image.v1 import image_pb2, image_service_pb2, image_service_pb2_grpc
from moa.quota.v1 import quota_pb2
from services.catalogue import Model, Watched
from services.common import tracing
from services.common.errors import Internal, MoaError, detail_of, error_of
from services.common.images import MIME
from services.common.rpc import call as calls
from services.quota_client import AbandonedCalls

if TYPE_CHECKING:  # the engine imports torch, which must not delay the port
    from inference.image.engine import ImageEngine


class ImageServicer(image_service_pb2_grpc.ImageServiceServicer):
    """Makes images with catalogue models that this process loads.

    Args:
        catalogue: Which models there are.
        registry: Loads them.
        workers: Where input images are decoded.
        abandoned: Books what callers may have died before booking; None: nobody does.
    """

    def __init__(
        self, catalogue: Watched, registry: Registry, workers: Executor, abandoned: AbandonedCalls | None = None
    ) -> None:
        self._catalogue = catalogue
        self._registry = registry
        self._workers = workers
        self._abandoned = abandoned

    async def GenerateImage(  # type: ignore[override]  # a coroutine that writes, not a generator
        self, request: image_service_pb2.GenerateImageRequest, context: Any
    ) -> None:
        """Make images as a stream of events; the caller's leaving ends the work within one step.

        A message without events is a sign of life: the model is being loaded, or its engine works.
        """
        model = find(self._catalogue, request.model, request.provider, "image")
        ask = ask_from(request, model)
        async with EngineHeartbeat(context, image_service_pb2.GenerateImageResponse()) as heartbeat:
            await self._generate(ask, model, request.stream, context, heartbeat)

    async def _generate(
        self, ask: ImageAsk, model: Model, progress: bool, context: Any, heartbeat: EngineHeartbeat
    ) -> None:
        stages = tracing.Stages()
        stream = _Stream(heartbeat, model, stages, progress=progress)
        mailbox: Mailbox[Event | tuple[str, float]] = Mailbox()
        making = asyncio.create_task(self._make(model, ask, mailbox, stages, context, heartbeat))
        over = False
        try:
            while not stream.ended:
                taking = asyncio.ensure_future(mailbox.take())
                try:
                    await asyncio.wait({taking, making}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    taking.cancel()
                if making.done() and making.exception() is not None:
                    over = True
                    await stream.fail(making.exception())
                    return
                await stream.write(taking.result())
            over = True
        finally:
            making.cancel()
            stages.end()
            # The router gives callers who want no stream all images at once, or none.
            if not over and stream.delivered and progress and self._abandoned:
                used = usage_pb2.Usage(images=stream.delivered, exact=True)
                self._abandoned.report(context, usage=used, operation=quota_pb2.OPERATION_IMAGE, model=model)
            await asyncio.gather(making, return_exceptions=True)

    async def _make(
        self,
        model: Model,
        ask: ImageAsk,
        mailbox: Mailbox[Event | tuple[str, float]],
        stages: tracing.Stages,
        context: Any,
        heartbeat: EngineHeartbeat,
    ) -> None:
        """Decode the images, load the model, submit the order, and hold both until cancelled."""
        in_worker = asyncio.get_running_loop().run_in_executor
        # First, so that a broken image is told by the status: loading's events begin a stream.
        sources = await in_worker(self._workers, codec.sources, ask.image, ask.mask, ask.width, ask.height)
        stages.begin("load model")
        async with self._registry.use(model, lambda stage, fraction: mailbox.put((stage, fraction))) as loaded:
            engine: ImageEngine = loaded  # type: ignore[assignment]
            metadata = dict(context.invocation_metadata() or ())
            prepare = functools.partial(
                engine.prepare,
                ask,
                flow=Flow.of(metadata),
                key=str(metadata.get(calls.RESUME_KEY, ""))[:200],
                sources=sources,
            )
            stages.begin("wait in queue")
            order = await in_worker(self._workers, prepare)
            left_s = context.time_remaining()
            order.deadline = math.inf if left_s is None else time.monotonic() + left_s
            engine.submit(order, mailbox.put)
            heartbeat.engine = engine
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                engine.cancel(order)


class _Stream:
    """Writes an order's events to its call."""

    def __init__(self, heartbeat: EngineHeartbeat, model: Model, stages: tracing.Stages, *, progress: bool) -> None:
        self._heartbeat = heartbeat
        self._model = model
        self._stages = stages
        self._progress = progress
        self._call = calls.current()
        self._made = 0
        self.delivered = 0
        """Images that were written, or were being written."""
        self.ended = False

    async def write(self, events: list[Event | tuple[str, float]]) -> None:
        """Write events that came together in one message. Raises an order's failure if nothing was written yet."""
        rendered = [self._rendered(event) for event in events]
        last = rendered[-1]
        self.ended = last.WhichOneof("event") in ("finished", "error")
        if last.HasField("error") and not self._call.wrote:
            raise error_of(last.error)
        wanted = [e for e in rendered if self._progress or e.WhichOneof("event") in ("image", "finished", "error")]
        if wanted:
            self._call.wrote = True
            # Before the write: one that is interrupted may have arrived.
            self.delivered = self._made
            await self._heartbeat.write(image_service_pb2.GenerateImageResponse(events=wanted))

    async def fail(self, error: BaseException | None) -> None:
        """End with an error: as a status if nothing was written yet, else as the last event."""
        assert error is not None
        if not self._call.wrote:
            raise error
        known = error if isinstance(error, MoaError) else Internal("the image could not be made")
        ended = image_pb2.ImageEvent(error=detail_of(known, self._call.request_id))
        await self._heartbeat.write(image_service_pb2.GenerateImageResponse(events=[ended]))

    def _rendered(self, event: Event | tuple[str, float]) -> image_pb2.ImageEvent:
        match event:
            case (stage, fraction):
                loading = image_pb2.Loading(stage=str(stage), fraction=float(fraction))
                return image_pb2.ImageEvent(loading=loading)
            case kinds.Waiting(position, eta_s):
                queued = image_pb2.Queued(position=position)
                if eta_s is not None:
                    queued.eta.FromMilliseconds(int(eta_s * 1000))
                return image_pb2.ImageEvent(queued=queued)
            case kinds.Stepped():
                self._stages.begin("make images")
                return self._progressed(event)
            case kinds.Made():
                self._made += 1
                return self._delivered(event)
            case kinds.Done(images):
                self._call.fields["images"] = images
                usage = usage_pb2.Usage(images=images, exact=True)
                return image_pb2.ImageEvent(finished=image_pb2.ImageFinished(usage=usage))
            case Failed(error):
                return image_pb2.ImageEvent(error=detail_of(error, self._call.request_id))
        raise AssertionError(event)

    @staticmethod
    def _progressed(event: kinds.Stepped) -> image_pb2.ImageEvent:
        progress = image_pb2.Progress(step=event.step, steps=event.steps)
        progress.eta.FromMilliseconds(int(event.eta_s * 1000))
        if event.preview is not None:
            progress.preview.CopyFrom(media_pb2.ImageData(data=event.preview, mime_type="image/jpeg"))
        return image_pb2.ImageEvent(index=event.index, progress=progress)

    def _delivered(self, event: kinds.Made) -> image_pb2.ImageEvent:
        facts = event.receipt
        receipt = image_pb2.Receipt(
            model=self._model.id,
            revision=facts.revision,
            scheduler=facts.scheduler,
            seed=facts.seed,
            steps=facts.steps,
            guidance_scale=facts.guidance,
            bucket=facts.bucket,
            engine=facts.engine,
            sha256=facts.sha256,
        )
        data = media_pb2.ImageData(
            data=event.data, mime_type=MIME[event.format], width=event.width, height=event.height
        )
        return image_pb2.ImageEvent(index=event.index, image=image_pb2.Image(image=data, receipt=receipt))
