"""An inference service that paints at once: a real image server with a paintbox for a model.

It answers `moa.image.v1.ImageService` as the inference service does, checks the service credential, and paints what a
few words of the prompt say (`steps=4`, `pause=0.05` seconds a step, `gate=NAME`: half-way, wait until the file NAME
lies in the folder of gates, `queue=NAME`: before that, tell of a place in the queue and wait for this
file, `fail=REASON`, `megabytes=10`: so large a file). Every call is written to a log, so that a test can count them.
Run as `python -m tests.emulators.painter`.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from deploy.local.ports import Ports
from moa.common.v1 import media_pb2, usage_pb2
from moa.image.v1 import image_pb2, image_service_pb2, image_service_pb2_grpc
from services.common import logs
from services.common.errors import BY_WORD, InvalidField
from services.common.rpc import call as calls
from services.common.rpc.server import Server, run

_WORD = re.compile(r"(\w+)=([\w.-]+)")
GATE_S = 0.02


def paint(prompt: str, index: int, width: int, height: int) -> bytes:
    """Return a PNG whose colour and blot follow from the prompt."""
    digest = hashlib.sha256(f"{prompt}\n{index}".encode()).digest()
    image = Image.new("RGB", (width, height), tuple(digest[:3]))
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, width * 3 // 4, height * 3 // 4), tuple(digest[3:6]))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


class Painter(image_service_pb2_grpc.ImageServiceServicer):
    """Paints."""

    def __init__(self, log: Path | None, gates: Path | None) -> None:
        self._log = log
        self._gates = gates

    async def GenerateImage(self, request: image_service_pb2.GenerateImageRequest, context: Any) -> None:  # type: ignore[override]
        """Paint, a step at a time."""
        said = dict(_WORD.findall(request.prompt))
        self._note("begin", request.prompt)
        try:
            if "fail" in said:
                raise BY_WORD[said["fail"]]("as asked")
            if request.images and not all(image.data for image in request.images):
                raise InvalidField("images come as bytes", param="images")
            await self._paint(request, said, context)
        except asyncio.CancelledError:
            self._note("cancelled", request.prompt)
            raise
        self._note("end", request.prompt)

    async def _paint(self, request: image_service_pb2.GenerateImageRequest, said: dict[str, str], context: Any) -> None:
        steps = int(said.get("steps", request.diffusion.steps or 2))
        width, height = request.width or 64, request.height or 64
        await _write(context, image_pb2.ImageEvent(queued=image_pb2.Queued(position=0)))
        if "queue" in said:
            queued = image_pb2.Queued(position=3)
            queued.eta.FromSeconds(12)
            await _write(context, image_pb2.ImageEvent(queued=queued))
            await self._wait(said["queue"])
        for step in range(1, steps + 1):
            await asyncio.sleep(float(said.get("pause", "0")))
            if step == (steps + 1) // 2 and "gate" in said:
                await self._wait(said["gate"])
            progress = image_pb2.Progress(step=step, steps=steps)
            progress.eta.FromMilliseconds((steps - step) * 10)
            if request.preview_every and step % request.preview_every == 0:
                preview = paint(request.prompt, -step, 16, 16)
                progress.preview.CopyFrom(media_pb2.ImageData(data=preview, mime_type="image/png", width=16, height=16))
            await _write(context, image_pb2.ImageEvent(progress=progress))
        for index in range(request.count):
            data = paint(request.prompt, index, width, height)
            # What follows a PNG's end is nobody's business.
            data += bytes(max(0, int(said.get("megabytes", "0")) * 2**20 - len(data)))
            image = media_pb2.ImageData(data=data, mime_type="image/png", width=width, height=height)
            receipt = image_pb2.Receipt(model=request.model, seed=request.seed, steps=steps, engine="painter")
            event = image_pb2.ImageEvent(index=index, image=image_pb2.Image(image=image, receipt=receipt))
            await _write(context, event)
        usage = usage_pb2.Usage(images=request.count, exact=True)
        await _write(context, image_pb2.ImageEvent(finished=image_pb2.ImageFinished(usage=usage)))

    async def _wait(self, gate: str) -> None:
        assert self._gates is not None
        (self._gates / f"{gate}.reached").touch()
        while not (self._gates / gate).exists():  # the gate is opened by another process
            await asyncio.sleep(GATE_S)

    def _note(self, what: str, prompt: str) -> None:
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(f"{what}\t{calls.current().request_id}\t{prompt}\n")


async def _write(context: Any, *events: image_pb2.ImageEvent) -> None:
    await context.write(image_service_pb2.GenerateImageResponse(events=events))


async def serve(stop: asyncio.Event, token: str, listen: str, painter: Painter) -> None:
    """Serve until `stop`."""
    server = Server(service_token=token)
    image_service_pb2_grpc.add_ImageServiceServicer_to_server(painter, server.grpc)
    server.offer(image_service_pb2.DESCRIPTOR.services_by_name["ImageService"].full_name)
    await server.start(listen)
    await stop.wait()
    await server.stop(1)


@contextmanager
def painting(token: str, gates: Path | None = None) -> Iterator[str]:
    """Serve from a thread until the block ends; yield the address."""
    address = f"127.0.0.1:{Ports().any()}"
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    serving = serve(stop, token, address, Painter(None, gates))
    thread = threading.Thread(target=loop.run_until_complete, args=(serving,), name="painter")
    thread.start()
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def main(stop: asyncio.Event) -> None:
    """Serve as the environment says until `stop`."""
    painter = Painter(Path(os.environ["PAINTER_LOG"]), Path(os.environ["PAINTER_GATES"]))
    await serve(stop, os.environ["MOA_SERVICE_TOKEN"], os.environ["MOA_LISTEN"], painter)


if __name__ == "__main__":
    logs.configure("painter", "warning")
    run(main, "painter")
