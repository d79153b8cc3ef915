"""The real image service on a free port, with the catalogue's own rows pointed at an emulator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr

from moa.common.v1.media_pb2 import ImageInput
from moa.image.v1.image_pb2 import ImageEvent
from moa.image.v1.image_service_pb2 import GenerateImageRequest, GenerateImageResponse
from moa.image.v1.image_service_pb2_grpc import ImageServiceStub
from services.common.errors import MoaError, error_of
from services.common.rpc.client import channel, metadata
from services.common.rpc.status import error_from_rpc
from services.image.__main__ import SERVICE
from services.image.settings import ImageSettings
from tests import shipped
from tests.shipped import Row

TOKEN = "a-service-token-for-tests"


class Failed(Exception):
    """The stream ended with an `error` event."""

    def __init__(self, error: MoaError, before: list[ImageEvent]) -> None:
        super().__init__(error.message)
        self.error = error
        self.before = before


class ImageClient:
    """Calls the service as the router does."""

    def __init__(self, to_image: Any) -> None:
        self._stub = ImageServiceStub(to_image)
        self._health = health_pb2_grpc.HealthStub(to_image)

    async def turn(self) -> None:
        """Go to the service and back, behind whatever was sent before."""
        await self._health.Check(health_pb2.HealthCheckRequest())

    def call(
        self, request: GenerateImageRequest, *more: tuple[str, str]
    ) -> grpc.aio.UnaryStreamCall[Any, GenerateImageResponse]:
        """Begin a call."""
        made: grpc.aio.UnaryStreamCall[Any, GenerateImageResponse] = self._stub.GenerateImage(
            request, metadata=metadata(TOKEN, "req-test", *more)
        )
        return made

    async def ask(self, request: GenerateImageRequest, told: list[ImageEvent] | None = None) -> list[ImageEvent]:
        """Return all events, which `told` has as they come. Raises MoaError for a status, Failed for an `error`."""
        events = [] if told is None else told
        try:
            async for message in self.call(request):
                events += message.events
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from None
        if events and events[-1].HasField("error"):
            raise Failed(error_of(events[-1].error), events[:-1])
        return events


def shipped_rows(provider: str, url: str, **more: Any) -> tuple[list[Row], list[Row]]:
    """Return the catalogue's own rows of a provider and its models, at the address of an emulator, none retired."""
    (row,), models = shipped.rows_of(provider)
    for model in models:
        model.pop("retirement", None)
    return [{**row, "base_url": url, **more}], models


@asynccontextmanager
async def image_service(
    folder: Path,
    providers: Sequence[Row],
    models: Sequence[Row],
    environment: Mapping[str, str],
    auth_address: str = "127.0.0.1:8102",
) -> AsyncIterator[ImageClient]:
    """Serve until the block ends."""
    path = folder / "catalogue.yaml"
    shipped.written(path, providers, models)
    config = ImageSettings(
        service_token=SecretStr(TOKEN), catalogue=path, listen="127.0.0.1:0", drain_s=0, auth_address=auth_address
    )
    async with SERVICE.serve(config, environment) as served, channel(f"127.0.0.1:{served.port}") as opened:
        yield ImageClient(opened)


def given(data: bytes) -> ImageInput:
    """Return an input image."""
    return ImageInput(data=data)


def images_of(events: Sequence[ImageEvent]) -> list[bytes]:
    """Return the delivered images, by index."""
    found = sorted((event.index, event.image.image.data) for event in events if event.HasField("image"))
    assert [index for index, _ in found] == list(range(len(found)))
    return [data for _, data in found]
