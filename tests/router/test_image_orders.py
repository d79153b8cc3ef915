"""Images that are asked of whoever makes them: under which name, and while its process is started again."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from moa.image.v1 import image_pb2, image_service_pb2, image_service_pb2_grpc
from services.catalogue import Catalogue, Load, Model, Provider
from services.common.rpc import server
from services.common.rpc.client import channel
from services.quota_client import TaskReservation
from services.quota_client.grants import ActingFor
from services.router.adapters import backends
from services.router.domain.caller import Caller
from services.router.domain.failures import Restarting
from services.router.operations.image import IMAGE
from tests.router.moody import MODEL, TOKEN, Lender


class Painter(image_service_pb2_grpc.ImageServiceServicer):
    """Notes who asks, and makes nothing."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    async def GenerateImage(self, request: image_service_pb2.GenerateImageRequest, context: Any) -> None:  # type: ignore[override]
        self.seen = dict(context.invocation_metadata())
        done = image_pb2.ImageEvent(finished=image_pb2.ImageFinished())
        await context.write(image_service_pb2.GenerateImageResponse(events=[done]))


async def test_only_who_asks_again_after_a_crash_names_the_order() -> None:
    """Where a task holds the quota, its images are asked for under the request's id, which stays the same when another
    worker takes the task up; requests that pay here have no name, so that nothing is kept for them."""
    painter, running = Painter(), server.Server(service_token=TOKEN)
    image_service_pb2_grpc.add_ImageServiceServicer_to_server(painter, running.grpc)
    port = await running.start("127.0.0.1:0")
    catalogue = Catalogue([Provider(id="p", adapter="x", makes="image")], [MODEL], frozenset({"p"}))
    caller = Caller(key="k", request_id="task-1")
    payer: Any = Lender()
    held = TaskReservation(payer, ActingFor(account_id="a", key_id="k", reservation_id="r", images=1))
    names, priorities = [], []
    async with channel(f"127.0.0.1:{port}") as to_image:
        calls = backends.Backends({"image": to_image}, service_token=TOKEN, catalogue=lambda: catalogue)
        for reserved in (held, payer):
            source = calls.ask(IMAGE, image_service_pb2.GenerateImageRequest(), MODEL, caller, reserved)
            while await source.read() is not None:
                pass
            names.append(painter.seen.get("x-moa-resume"))
            priorities.append(painter.seen["x-moa-priority"])
    await running.stop(0)
    assert names == ["task-1", None]
    assert priorities == ["normal", "high"], "a task does not come before other accounts' people"


async def test_images_of_an_own_model_wait_for_its_process() -> None:
    """The process of a model goes and is started again: a stream that is asked for meanwhile shows that it waits,
    and is answered then. One without a stream, or whose model has a fallback, is told at once that it has to wait."""
    first = server.Server(service_token=TOKEN)
    image_service_pb2_grpc.add_ImageServiceServicer_to_server(Painter(), first.grpc)
    port = await first.start("127.0.0.1:0")
    own = Model(id="m", provider="p", load=Load(source="nowhere"))
    spared = msgspec.structs.replace(own, fallback=("p/other",))
    catalogue = Catalogue([Provider(id="p", adapter="x", makes="image")], [own], frozenset({"p"}))
    caller, payer = Caller(key="k", request_id="r"), Lender()
    stream = image_service_pb2.GenerateImageRequest(stream=True)
    async with channel(f"127.0.0.1:{port}") as link, asyncio.timeout(30):
        calls = backends.Backends({"image": link}, service_token=TOKEN, catalogue=lambda: catalogue)
        await link.channel_ready()
        calls.watch()
        await first.stop(0)
        while True:
            try:
                calls.ask(IMAGE, image_service_pb2.GenerateImageRequest(), own, caller, payer).cancel()
            except Restarting:
                break
            await asyncio.sleep(0.01)
        with pytest.raises(Restarting):
            calls.ask(IMAGE, stream, spared, caller, payer)
        source = calls.ask(IMAGE, stream, own, caller, payer)
        waits = await source.read()
        assert waits is not None
        second = server.Server(service_token=TOKEN)
        image_service_pb2_grpc.add_ImageServiceServicer_to_server(Painter(), second.grpc)
        await second.start(f"127.0.0.1:{port}")
        kinds = [event.WhichOneof("event") for event in waits.events]
        while (message := await source.read()) is not None:
            kinds += [event.WhichOneof("event") for event in message.events]
        await calls.aclose()
    assert kinds == ["queued", "finished"]
    await second.stop(0)
