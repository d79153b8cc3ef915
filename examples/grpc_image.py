"""Make a picture over gRPC with live progress: `python examples/grpc_image.py [WORDS…]`; it is saved as picture.png."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from moa_local import connect  # isort: skip  # first: it makes the next two importable

import grpc

from moa.image.v1 import image_pb2, image_service_pb2, image_service_pb2_grpc

WIDTH = 30


def main() -> None:
    words = " ".join(sys.argv[1:]) or "a desk with a monitor, a keyboard and a lamp"
    channel, key = connect()
    request = image_service_pb2.GenerateImageRequest(
        model=os.environ.get("MOA_MODEL", "moa-tiny-image"), prompt=words, stream=True
    )
    with channel:
        for answer in image_service_pb2_grpc.ImageServiceStub(channel).GenerateImage(request, metadata=key):
            for event in answer.events:
                show(event)


def show(event: image_pb2.ImageEvent) -> None:
    match event.WhichOneof("event"):
        case "queued":
            status(f"waiting at place {event.queued.position}")
        case "loading":
            status("loading the model")
        case "progress":
            done, all_ = event.progress.step, event.progress.steps
            filled = WIDTH * done // max(all_, 1)
            status(f"[{'█' * filled}{'·' * (WIDTH - filled)}] step {done} of {all_}")
        case "image":
            data = event.image.image.data
            Path("picture.png").write_bytes(data)
            status(f"picture.png: {event.image.image.width}x{event.image.image.height}, {len(data)} bytes\n")
        case "error":
            sys.exit(f"\nit broke off: {event.error.message}")


def status(text: str) -> None:
    print(f"\r\033[K{text}" if sys.stdout.isatty() else text, end="" if sys.stdout.isatty() else "\n", flush=True)


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
