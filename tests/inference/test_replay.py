"""Receipts make images again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from inference import replay
from moa.image.v1 import image_pb2, image_service_pb2
from tests.inference.harness import IMAGE, Client, given, small
from tests.inference.test_image import drawn, settings


async def receipt_of(client: Client, folder: Path, index: int, **fields: Any) -> tuple[Path, bytes]:
    """Make an image among others and write its receipt's file; give that and the image."""
    out = await client.image(**fields)
    request = image_service_pb2.GenerateImageRequest(**({"model": IMAGE} | fields))
    image = out.images[index]
    file = folder / "receipt.json"
    held = {"request": json_format.MessageToDict(request), "receipt": json_format.MessageToDict(image.receipt)}
    file.write_text(json.dumps(held))
    return file, image.image.data


async def test_a_receipt_makes_the_same_bytes(client: Client, tmp_path: Path) -> None:
    """The second of two images, an edit with its own sampler and a drawn seed, is made again byte for byte."""
    fields = small(
        count=2, images=[given(drawn())], diffusion=settings(steps=5, scheduler="euler-a", guidance_scale=3.0)
    )
    del fields["seed"]
    file, data = await receipt_of(client, tmp_path, 1, **fields)
    assert replay.main([str(file), str(tmp_path / "again.png")]) == 0
    assert (tmp_path / "again.png").read_bytes() == data


async def test_other_bytes_are_told(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A receipt whose facts were changed is told as other bytes, with what differs."""
    file, _ = await receipt_of(client, tmp_path, 0, **small())
    held = json.loads(file.read_text())
    held["receipt"] |= {"seed": "99", "revision": "sha256:another"}
    file.write_text(json.dumps(held))
    assert replay.main([str(file)]) == 1
    told = capsys.readouterr().out
    assert "revision was 'sha256:another'" in told
    assert told.endswith("other bytes\n")


def test_what_is_no_receipt_is_refused(tmp_path: Path) -> None:
    """Files that are no receipts, or name no model, end with status 2 and no trace."""
    file = tmp_path / "receipt.json"
    unknown = {
        "request": {"prompt": "x"},
        "receipt": json_format.MessageToDict(image_pb2.Receipt(model="nobody", steps=1)),
    }
    for text in ("", "[]", "{}", '{"request": 3, "receipt": {}}', json.dumps(unknown)):
        file.write_text(text)
        assert replay.main([str(file)]) == 2
    assert replay.main([str(tmp_path / "absent.json")]) == 2
