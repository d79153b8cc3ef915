"""A vision service for drawn desks: it finds what is in a picture by looking at its pixels.

`scene` draws a desk with things on it, each in a colour of its own; the service finds them again from the pixels alone,
so what it says is true of the picture. Run as `python -m tests.emulators.vision`.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from moa.common.v1 import media_pb2
from moa.vision.v1 import vision_pb2, vision_service_pb2, vision_service_pb2_grpc
from services.common import images, logs
from services.common.rpc.server import Server, run

DESK = (150, 100, 50)
WALL = (225, 225, 215)
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "monitor": (25, 25, 70),
    "keyboard": (90, 90, 95),
    "mouse": (200, 30, 40),
    "desk lamp": (240, 200, 40),
    "plant": (40, 140, 60),
    "mug": (60, 130, 200),
}
_NEAR = 12
_LEAST = 30


def scene(things: Sequence[str], *, desk: bool = True, kind: str = "PNG", size: int = 128) -> bytes:
    """Draw things in a row, on a desk or in the air."""
    image = Image.new("RGB", (size, size), WALL)
    draw = ImageDraw.Draw(image)
    if desk:
        draw.rectangle((0, size // 2, size, size), DESK)
    for place, thing in enumerate(things):
        left = 4 + place * (size - 8) // max(1, len(things))
        # The first thing is the largest, so that the order of finding is known.
        side = 26 - 3 * place
        draw.rectangle((left, size // 2 - side // 2, left + side, size // 2 + side // 2), COLOURS[thing])
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    return out.getvalue()


def _pixels(image: media_pb2.ImageInput) -> Any:
    images.inspect(image.data)
    with Image.open(io.BytesIO(image.data)) as opened:
        return np.asarray(opened.convert("RGB"), dtype=np.int16)


def _near(pixels: Any, colour: tuple[int, int, int]) -> Any:
    return (np.abs(pixels - np.array(colour)) <= _NEAR).all(axis=2)


def find(pixels: Any, labels: Sequence[str]) -> list[vision_pb2.DetectedObject]:
    """Find things by their colours, the largest first."""
    found = []
    height, width = pixels.shape[:2]
    for label in labels or COLOURS:
        if label not in COLOURS:
            continue
        rows, columns = np.nonzero(_near(pixels, COLOURS[label]))
        if len(rows) < _LEAST:
            continue
        box = vision_pb2.Box(
            left=columns.min() / width,
            top=rows.min() / height,
            right=(columns.max() + 1) / width,
            bottom=(rows.max() + 1) / height,
        )
        found.append(vision_pb2.DetectedObject(label=label, score=len(rows) / (width * height), box=box))
    return sorted(found, key=lambda each: -each.score)


def is_desk(pixels: Any) -> float:
    """Return how much of the picture's lower half is a desk."""
    lower = pixels[pixels.shape[0] // 2 :]
    return float(_near(lower, DESK).mean())


class Vision(vision_service_pb2_grpc.VisionServiceServicer):
    """Looks."""

    async def CaptionImage(
        self, request: vision_service_pb2.CaptionImageRequest, context: Any
    ) -> vision_service_pb2.CaptionImageResponse:
        """Describe."""
        pixels = _pixels(request.image)
        names = [f"a {each.label}" for each in find(pixels, ())]
        place = "a desk" if is_desk(pixels) > 0.3 else "a wall"
        caption = f"{place} with {' and '.join(names)}" if names else place
        return vision_service_pb2.CaptionImageResponse(caption=caption, model="pixels")

    async def DetectObjects(
        self, request: vision_service_pb2.DetectObjectsRequest, context: Any
    ) -> vision_service_pb2.DetectObjectsResponse:
        """Find."""
        found = find(_pixels(request.image), request.labels)
        return vision_service_pb2.DetectObjectsResponse(objects=found, model="pixels")

    async def JudgeImage(
        self, request: vision_service_pb2.JudgeImageRequest, context: Any
    ) -> vision_service_pb2.JudgeImageResponse:
        """Judge."""
        part = is_desk(_pixels(request.image))
        judged = [
            vision_pb2.Judgement(statement=each, holds="desk" in each and part > 0.3, probability=min(1.0, part))
            for each in request.statements
        ]
        return vision_service_pb2.JudgeImageResponse(judgements=judged, model="pixels")


async def main(stop: asyncio.Event) -> None:
    """Serve until `stop`."""
    server = Server(service_token=os.environ["MOA_SERVICE_TOKEN"])
    vision_service_pb2_grpc.add_VisionServiceServicer_to_server(Vision(), server.grpc)
    server.offer(vision_service_pb2.DESCRIPTOR.services_by_name["VisionService"].full_name)
    await server.start(os.environ["MOA_LISTEN"])
    await stop.wait()
    await server.stop(1)


if __name__ == "__main__":
    logs.configure("vision", "warning")
    run(main, "vision")
