"""What a large image costs in memory, on every adapter: measured on the service in a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.common.rpc.client import channel
from tests import forking
from tests.emulators.base import Emulator
from tests.emulators.pictures import ImageScript, png
from tests.image.harness import ImageClient, images_of, shipped_rows
from tests.image.subjects import STREAMING, SUBJECTS, Subject

SIZE: Final = 12 * 2**20
COPIES: Final = 2.5
"""The image itself, gRPC's copy of it while it is sent, and half a one for all else."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")


def _resident_bytes(pid: int, key: str) -> int:
    """Return `VmRSS`, what a process holds, or `VmHWM`, the most that it held."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(key)]
    return int(line.split()[1]) * 1024


@asynccontextmanager
async def _served(subject: Subject, upstream: Emulator, folder: Path) -> AsyncIterator[tuple[int, ImageClient]]:
    row = subject.row(upstream, first_token_s=60, idle_s=60)
    providers, models = shipped_rows(subject.provider, upstream.url + subject.path, **row)
    path = folder / "catalogue.yaml"
    path.write_bytes(msgspec.yaml.encode({"providers": providers, "models": models}))
    environment = {**os.environ, "PYTHONPATH": f"gen{os.pathsep}.", **subject.environment}
    reading, writing = os.pipe()
    child = await forking.begun("tests.image.served", environment, str(path), output=writing)
    os.close(writing)
    try:
        with os.fdopen(reading) as told:
            port = int(await asyncio.to_thread(told.readline))
        async with channel(f"127.0.0.1:{port}") as opened:
            yield child.pid, ImageClient(opened)
    finally:
        child.kill()
        await child.wait()


@pytest.mark.parametrize(
    ("subject", "streamed"),
    [
        *(pytest.param(subject, False, id=f"{subject.name}-whole") for subject in SUBJECTS),
        *(pytest.param(subject, True, id=f"{subject.name}-streamed") for subject in STREAMING),
    ],
)
async def test_a_large_image_is_not_doubled(subject: Subject, tmp_path: Path, streamed: bool) -> None:
    """While 12 MB come, the service holds the image once, and gRPC once more while it is sent."""
    ask = GenerateImageRequest(model=subject.model, provider=subject.provider, prompt="A sea")
    if streamed:
        ask.stream, ask.preview_every = True, 5
    async with subject.emulator() as upstream, _served(subject, upstream, tmp_path) as (pid, service):
        for _ in range(2):
            await service.ask(ask)
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from here
        before = _resident_bytes(pid, "VmRSS")
        large = png(64, 48) + bytes(SIZE)
        upstream.scripts.append(ImageScript(image=large))
        assert images_of(await service.ask(ask)) == [large]
        grown = _resident_bytes(pid, "VmHWM") - before
    assert grown < COPIES * SIZE, f"{grown / SIZE:.2f} times the image"
