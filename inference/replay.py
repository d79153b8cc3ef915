"""Make an image again from its receipt, and tell whether the bytes are the same.

    python -m inference.replay RECEIPT.json [IMAGE]

The file holds what was asked and what came back, as the contract's JSON forms:
`{"request": GenerateImageRequest, "receipt": Receipt, "index": 0}`. The image is written to IMAGE when that is given.
Exit status: 0 the same bytes, 1 others, 2 it could not be made.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import json_format
from pydantic import SecretStr

from inference import kinds
from inference.image.ask import ask_from
from inference.image.events import Event, Made
from inference.job import Failed
from inference.settings import InferenceSettings
from moa.image.v1 import image_pb2, image_service_pb2
from services.catalogue import Watched
from services.common.errors import MoaError

if TYPE_CHECKING:
    from inference.image.engine import ImageEngine


def main(arguments: list[str] | None = None) -> int:
    """Replay a receipt; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m inference.replay", description=__doc__.partition("\n")[0])
    parser.add_argument("receipt", type=Path, help="JSON file with `request` and `receipt`")
    parser.add_argument("image", type=Path, nargs="?", help="where to write the image")
    given = parser.parse_args(arguments)
    try:
        request, receipt = read(given.receipt)
        made, differences = replay(request, receipt)
    except (OSError, ValueError, json_format.ParseError) as error:
        print(f"cannot read {given.receipt}: {error}", file=sys.stderr)
        return 2
    except MoaError as error:
        print(f"cannot make it again: {error.message}", file=sys.stderr)
        return 2
    if given.image is not None:
        given.image.write_bytes(made.data)
    for line in differences:
        print(line)
    print("same bytes" if made.receipt.sha256 == receipt.sha256 else "other bytes")
    return 0 if made.receipt.sha256 == receipt.sha256 else 1


def read(file: Path) -> tuple[image_service_pb2.GenerateImageRequest, image_pb2.Receipt]:
    """Read a receipt's file. Raises ValueError for one that is none."""
    held = json.loads(file.read_text())
    if not isinstance(held, dict) or not all(isinstance(held.get(part), dict) for part in ("request", "receipt")):
        raise ValueError("it needs `request` and `receipt`")
    request = json_format.ParseDict(held["request"], image_service_pb2.GenerateImageRequest())
    receipt = json_format.ParseDict(held["receipt"], image_pb2.Receipt())
    return request, receipt


def replay(request: image_service_pb2.GenerateImageRequest, receipt: image_pb2.Receipt) -> tuple[Made, list[str]]:
    """Make the receipt's image again; give it and what is not as it was then. Raises what the making raises."""
    one = image_service_pb2.GenerateImageRequest()
    one.CopyFrom(request)
    one.model, one.seed, one.count = receipt.model, receipt.seed, 1
    one.diffusion.steps, one.diffusion.guidance_scale = receipt.steps, receipt.guidance_scale
    settings = InferenceSettings(
        service_token=SecretStr("-" * 16),  # nothing is served
        catalogue=Path(os.environ.get("MOA_CATALOGUE", "gateway/catalogue.yaml")),
    )
    catalogue = Watched(settings.catalogue, check=kinds.fault_in)
    model = catalogue.now.find(one.model, provider=one.provider)
    ask = ask_from(one, model)
    with ThreadPoolExecutor(1) as workers:
        engine: ImageEngine = kinds.Builder(settings, catalogue, workers)(model, lambda stage, part: None)  # type: ignore[assignment]
        ended = threading.Event()
        last: list[Event] = []

        def take(event: Event) -> None:
            if isinstance(event, Made | Failed):
                last.append(event)
                ended.set()

        engine.start()
        engine.submit(engine.prepare(ask), take)
        ended.wait()
        engine.stop()
    made = last[0]
    if isinstance(made, Failed):
        raise made.error
    assert isinstance(made, Made)
    now = made.receipt
    pairs = [
        ("revision", receipt.revision, now.revision),
        ("engine", receipt.engine, now.engine),
        ("scheduler", receipt.scheduler, now.scheduler),
        ("bucket", receipt.bucket, now.bucket),
    ]
    return made, [f"{name} was {then!r}, is {here!r}" for name, then, here in pairs if then != here]


if __name__ == "__main__":
    raise SystemExit(main())
