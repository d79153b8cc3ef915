"""Vision and the router, as the pipeline calls them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import grpc

from moa.common.v1 import media_pb2
from moa.image.v1 import image_pb2, image_service_pb2, image_service_pb2_grpc
from moa.vision.v1 import vision_service_pb2, vision_service_pb2_grpc
from services.common.credential import Credential
from services.common.errors import ProviderNotConfigured, UpstreamBroken, error_of
from services.common.rpc import call as calls
from services.common.rpc.client import metadata
from services.common.rpc.replicas import Replicas
from services.common.rpc.status import error_from_rpc
from services.desk.domain.pipeline import VisionResult
from services.quota_client import grants

_DESK: Final = "a photo of a desk"
_TIMEOUT_S: Final = 60.0


class VisionClient:
    """The vision service.

    Args:
        channel: To it.
        service_token: The credential between services.
        replicas: Which of its processes is asked, where there are several.
    """

    def __init__(
        self, channel: grpc.aio.Channel, *, service_token: Credential, replicas: Replicas | None = None
    ) -> None:
        self._stub: Any = vision_service_pb2_grpc.VisionServiceStub(channel)
        self._token = service_token
        self._replicas = replicas

    async def look(self, image: media_pb2.ImageInput, labels: Sequence[str]) -> VisionResult:
        """Caption, find and judge, all at once. Raises MoaError."""
        caption, result, judged = await asyncio.gather(
            self._asked("CaptionImage", vision_service_pb2.CaptionImageRequest(image=image)),
            self._asked("DetectObjects", vision_service_pb2.DetectObjectsRequest(image=image, labels=labels)),
            self._asked("JudgeImage", vision_service_pb2.JudgeImageRequest(image=image, statements=[_DESK])),
        )
        return VisionResult(
            caption=caption.caption,
            labels=[each.label for each in result.objects],
            is_desk=bool(judged.judgements) and judged.judgements[0].holds,
        )

    def _call(self, method: str) -> Any:
        """Return what makes a call, at the process that looks soonest."""
        replica = self._replicas.choose("vision") if self._replicas is not None else None
        if replica is None:
            return getattr(self._stub, method)
        if (stub := replica.calls.get("vision")) is None:
            stub = replica.calls["vision"] = vision_service_pb2_grpc.VisionServiceStub(replica.channel)
        return replica.counting(getattr(stub, method))

    async def _asked(self, name: str, request: Any) -> Any:
        method = self._call(name)
        try:
            return await method(request, metadata=metadata(self._token, calls.current().request_id), timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as failure:
            if failure.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise ProviderNotConfigured("this gateway has no vision model") from None
            raise error_from_rpc(failure) from None


class RouterPainter:
    """The router's image operation, as the account that the pipeline runs for."""

    def __init__(self, channel: grpc.aio.Channel, *, service_token: Credential, acting: grants.ActingFor) -> None:
        self._stub: Any = image_service_pb2_grpc.ImageServiceStub(channel)
        self._token = service_token
        self._acting = acting

    async def paint(
        self, request: image_service_pb2.GenerateImageRequest
    ) -> AsyncGenerator[image_pb2.ImageEvent, None]:
        """Return the events up to `finished`. The grant is made anew: looking at the image may have taken its time."""
        key = grants.mint(self._token, self._acting)
        call = self._stub.GenerateImage(
            request, metadata=metadata(self._token, calls.current().request_id, ("x-api-key", key))
        )
        try:
            async for message in call:
                for event in message.events:
                    if event.HasField("error"):
                        raise error_of(event.error)
                    yield event
                    if event.HasField("finished"):
                        return
            raise UpstreamBroken("the answer broke off")
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None
        finally:
            call.cancel()
