"""The process itself: how it starts, dies and comes back."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from deploy.local.ports import Ports
from moa.image.v1 import image_pb2
from tests.inference import kills
from tests.inference.harness import Client, small
from tests.inference.processes import drained, serving, started


async def at_step(call: Any, step: int) -> None:
    while True:
        response = await call.read()
        if any(event.progress.step >= step for event in response.events):
            return


@pytest.mark.timeout(300)  # seconds of CPU, more where the cores are shared
async def test_killed_while_streaming_it_goes_on_elsewhere(client: Client, tmp_path: Path) -> None:
    """A client of a process killed with -9 mid-image is told at once; another process on the same port goes on from
    the checkpoint, on the same channel, to the bytes of an undisturbed run."""
    fields = small(diffusion=image_pb2.Diffusion(steps=100))
    port, name = Ports().any(), ("x-moa-resume", "order-1")
    first = await started(port, MOA_CHECKPOINTS=str(tmp_path))
    caller = Client(f"127.0.0.1:{port}")
    try:
        await serving(caller)
        call = caller.image_call(name, **fields)
        await at_step(call, 1)
        async with asyncio.timeout(60):
            while not list(tmp_path.glob("*.safetensors")):  # that of step 5 or a later one
                await asyncio.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        await first.wait()
        began = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await drained(call)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - began < 20, "the broken connection tells, not a keepalive"
        second = await started(port, MOA_CHECKPOINTS=str(tmp_path))
        try:
            await serving(caller)
            again, whole = await asyncio.gather(caller.image(name, **fields), client.image(**fields))
            assert min(e.progress.step for e in again.events if e.HasField("progress")) > 5
            assert again.data == whole.data
        finally:
            second.terminate()
            assert await second.wait() == 0
    finally:
        await caller.close()


@pytest.mark.timeout(300)
async def test_killed_again_and_again_every_picture_keeps_its_bytes(tmp_path: Path) -> None:
    """Two processes in a row are killed with orders of all kinds under way; the third finishes all of them to the bytes
    of undisturbed runs, from the middle. `make soak-inference` kills twenty."""
    outcome = await kills.run(2, tmp_path, together=4, steps=(12, 16), lives=(5, 7))
    assert not outcome.other
    assert outcome.pictures >= 4
    assert outcome.resumed
    assert outcome.saved


async def test_bad_settings_stop_the_start_with_their_name(capfd: pytest.CaptureFixture[str]) -> None:
    """A bad setting ends the process with the variable's name, and no trace."""
    process = await started(Ports().any(), MOA_TORCH_THREADS="many")
    assert await process.wait() == 2
    told = capfd.readouterr().err
    assert "MOA_TORCH_THREADS" in told
    assert "Traceback" not in told


async def test_a_bad_catalogue_stops_the_start(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A catalogue that cannot be read ends the process with the place of the fault."""
    bad = tmp_path / "catalogue.yaml"
    bad.write_text("providers: 3\n")
    process = await started(Ports().any(), MOA_CATALOGUE=str(bad))
    assert await process.wait() == 1
    assert "catalogue.yaml" in capfd.readouterr().err
