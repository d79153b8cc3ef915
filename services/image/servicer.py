"""`moa.image.v1.ImageService` over the cloud providers."""

from __future__ import annotations

from typing import Any, Final

import grpc

from moa.common.v1 import usage_pb2
from moa.image.v1.image_pb2 import ImageEvent, ImageStarted
from moa.image.v1.image_service_pb2 import GenerateImageRequest, GenerateImageResponse
from moa.image.v1.image_service_pb2_grpc import ImageServiceServicer
from moa.quota.v1 import quota_pb2
from services.catalogue import Model, Watched
from services.common import byok
from services.common.errors import MoaError, Unsupported, detail_of
from services.common.helper_process import HelperProcess, is_large_request
from services.common.rpc import call as calls
from services.common.rpc.server import AnyServer
from services.image.generation import Generation
from services.image.targets import ADAPTERS, Target, Targets
from services.providers.hosting.service import Offer
from services.providers.image import capable
from services.providers.image.picture import encoded
from services.quota_client import AbandonedCalls


class ImageServicer(ImageServiceServicer):
    """Makes images with the provider that the catalogue names.

    Args:
        catalogue: Which models there are.
        targets: How their providers are reached.
        abandoned: Books what callers may have died before booking; None: nobody does.
        helper: Where requests with large pictures are made the providers'; None: here.
    """

    def __init__(
        self,
        catalogue: Watched,
        targets: Targets,
        abandoned: AbandonedCalls | None = None,
        helper: HelperProcess | None = None,
    ) -> None:
        self._helper = helper
        self._catalogue = catalogue
        self._targets = targets
        self._abandoned = abandoned

    async def GenerateImage(  # type: ignore[override]  # a coroutine that writes, not a generator
        self, request: GenerateImageRequest, context: Any
    ) -> None:
        """Stream the images, each in a message of its own. A failure before the first is a status."""
        call = calls.current()
        model, target = self._targets.find(
            self._catalogue.now,
            request.model,
            request.provider,
            caller_key=byok.caller_key(context.invocation_metadata()),
        )
        call.fields["provider"] = model.provider
        call.fields["model"] = model.id
        capable.check(request, model)
        wrote = over = False
        if is_large_request(request):
            # Its client keeps what it sent until the answer begins: now, and not when the provider has made something.
            await context.send_initial_metadata(())
        cost = model.image_cost(request)
        started = _started(request, model, target)
        generation = Generation(request, model, target, self._helper)
        del request
        try:
            async with generation:
                while (event := await generation.next()) is not None:
                    if started is not None and not wrote:
                        await context.write(started)
                    wrote = True
                    await context.write(encoded(event))
            over = True
        except MoaError as error:
            if not wrote:
                over = True
                raise
            call.fields["broke"] = type(error).__name__
            last = [ImageEvent(usage=generation.usage), ImageEvent(error=detail_of(error, call.request_id))]
            await context.write(GenerateImageResponse(events=last).SerializeToString())
            over = True
        finally:
            if not over and generation.owed and self._abandoned:
                owed = usage_pb2.Usage(images=generation.owed, exact=True)
                self._abandoned.report(context, usage=owed, operation=quota_pb2.OPERATION_IMAGE, model=model, cost=cost)
            call.fields["images"] = generation.usage.images
            if generation.upstream_request_id:
                call.fields["upstream_request_id"] = generation.upstream_request_id


def _started(request: GenerateImageRequest, model: Model, target: Target) -> bytes | None:
    """Return the message that says what of the vendor's own fields is ignored; None where there are none.

    Raises Unsupported for those of a strict request.
    """
    if not request.vendor.names:
        return None
    ignored = target.adapter.ignored(request, model, target.provider)
    for name in ignored if request.strict else ():
        raise Unsupported(f"{name} has no effect on this model, and this request ignores nothing (strict)", param=name)
    started = ImageStarted(provider=model.provider, model=model.id, ignored=ignored)
    return GenerateImageResponse(events=[ImageEvent(started=started)]).SerializeToString()


def _add(
    catalogue: Watched, targets: Targets, abandoned: AbandonedCalls, helper: HelperProcess, server: AnyServer
) -> None:
    """Offer the service. Its responses are written serialized, so that a picture is not copied into a message."""
    servicer = ImageServicer(catalogue, targets, abandoned, helper)
    handler: Any = grpc.unary_stream_rpc_method_handler(
        servicer.GenerateImage, request_deserializer=GenerateImageRequest.FromString, response_serializer=None
    )
    methods = {"GenerateImage": handler}
    server.grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(OFFER.contract.service, methods),))


OFFER: Final = Offer(makes="image", adapters=ADAPTERS, add=_add)
