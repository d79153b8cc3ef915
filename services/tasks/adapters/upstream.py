"""Whoever does the work: the router for images, the desk service for desks, both as the account."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

import grpc

from moa.desk.v1 import desk_pb2, desk_service_pb2, desk_service_pb2_grpc
from moa.image.v1 import image_pb2, image_service_pb2, image_service_pb2_grpc
from services.common.credential import Credential
from services.common.errors import UpstreamBroken, error_of
from services.common.rpc.client import metadata
from services.common.rpc.postponed import PostponedCallee
from services.common.rpc.status import error_from_rpc
from services.quota_client import grants
from services.tasks.domain.task import Task


@dataclass(slots=True)
class MadeImage:
    """An image as it was made, apart from the message that brought it: each reading of that makes a copy."""

    index: int
    data: bytes
    mime_type: str
    width: int
    height: int
    revised_prompt: str
    receipt: image_pb2.Receipt | None

    @classmethod
    def of(cls, index: int, made: image_pb2.Image) -> Self:
        """Take an image out of its message, which can be let go of then."""
        receipt = None
        if made.HasField("receipt"):
            # A copy: a part would keep its whole message in memory.
            receipt = image_pb2.Receipt()
            receipt.CopyFrom(made.receipt)
        image = made.image
        return cls(index, image.data, image.mime_type, image.width, image.height, made.revised_prompt, receipt)


class Upstream:
    """Streams of work, one event at a time. A stream that ends without `finished` raises.

    Args:
        router: A channel to it.
        desk: A channel to the desk service.
        service_token: The credential between services.
        desk_fd: By which the desk service is asked for, where the first call of it starts it.
    """

    def __init__(
        self,
        router: grpc.aio.Channel,
        desk: grpc.aio.Channel,
        *,
        service_token: Credential,
        desk_fd: int | None = None,
    ) -> None:
        self._images: Any = image_service_pb2_grpc.ImageServiceStub(router)
        self._desk: Any = desk_service_pb2_grpc.DeskServiceStub(desk)
        self._desk_process = PostponedCallee(desk, desk_fd)
        self._token = service_token

    def images(
        self, request: image_service_pb2.GenerateImageRequest, task: Task
    ) -> AsyncGenerator[image_pb2.ImageEvent, None]:
        """Make images. Raises MoaError. Leaving the iterator cancels the work."""
        return _drained(lambda: self._images.GenerateImage(request, metadata=self._acting(task, request.count)))

    def desk(self, request: desk_service_pb2.StyleDeskRequest, task: Task) -> AsyncGenerator[desk_pb2.DeskEvent, None]:
        """Style a desk. As `images`."""
        return _drained(lambda: self._desk.StyleDesk(request, metadata=self._acting(task, 1)), self._desk_process.there)

    async def desk_health(self) -> desk_service_pb2.CheckHealthResponse:
        """Tell how the desk's parts are. Raises MoaError when the desk itself is away."""
        answer: desk_service_pb2.CheckHealthResponse = await self._asked(
            self._desk.CheckHealth, desk_service_pb2.CheckHealthRequest()
        )
        return answer

    async def desk_info(self) -> desk_service_pb2.GetInfoResponse:
        """Tell what the desk runs with. Raises MoaError."""
        answer: desk_service_pb2.GetInfoResponse = await self._asked(
            self._desk.GetInfo, desk_service_pb2.GetInfoRequest()
        )
        return answer

    async def _asked(self, method: Any, request: Any) -> Any:
        await self._desk_process.there()
        try:
            return await method(request, metadata=metadata(self._token, ""), timeout=5)
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None

    def _acting(self, task: Task, images: int) -> tuple[tuple[str, str], ...]:
        acting = grants.ActingFor(
            account_id=task.account_id,
            key_id=task.key_id,
            reservation_id=task.reservation_id or "",
            images=max(1, images),
        )
        return metadata(self._token, task.id, ("x-api-key", grants.mint(self._token, acting)))


async def _drained(
    begin: Callable[[], Any], before: Callable[[], Awaitable[None]] | None = None
) -> AsyncGenerator[Any, None]:
    """Begin a call after what is waited for, and return its events up to `finished`; an `error` event is raised.

    Nothing here holds an event that was given: an image in it is freed as soon as its reader lets go of it.
    """
    if before is not None:
        await before()
    call = begin()
    try:
        # Iterating over the call would hold each message until the next.
        while (message := await call.read()) is not grpc.aio.EOF:
            events = list(reversed(message.events))
            del message
            while events:
                kind = events[-1].WhichOneof("event")
                if kind == "error":
                    raise error_of(events[-1].error)
                yield events.pop()
                if kind == "finished":
                    return
        raise UpstreamBroken("the answer broke off")
    except grpc.aio.AioRpcError as failure:
        raise error_from_rpc(failure) from None
    finally:
        call.cancel()
