"""A model's blocks compiled by torch: a minute of compilers, so run where its inputs changed."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inference.image.ask import ImageAsk
from tests.inference.test_tuning import ASK, apart, engine, folders, made, workers

__all__ = ["folders", "workers"]  # fixtures


@pytest.mark.parametrize("family", ["tiny", "flux"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_blocks_are_ready_before_the_first_request(
    folders: dict[str, Path], workers: ThreadPoolExecutor, family: str
) -> None:
    """Once warmed, no request of the size compiles anything, whatever the crowd; the image is the plain one."""
    from torch._dynamo.utils import counters

    tuned = engine(folders[family], workers, compile={"backend": "aot_eager"})
    counters.clear()
    tuned.denoiser.warm(64, 64)
    assert counters["stats"]["unique_graphs"] > 0
    counters.clear()
    alone = made(tuned, workers, ASK)[0]
    crowd = made(tuned, workers, ASK, ImageAsk(prompt="a car", width=64, height=64, steps=3, seed=1, guidance=1.0))
    assert counters["stats"]["unique_graphs"] == 0
    assert crowd[0] == alone
    assert apart(alone, made(engine(folders[family], workers), workers, ASK)[0]) <= 1


@pytest.mark.timeout(600)
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles for a CPU with g++, and there is none here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_blocks_are_compiled_by_inductor(folders: dict[str, Path], workers: ThreadPoolExecutor) -> None:
    """By torch's own compiler: once warmed, the engine compiles no more, and its image is the plain one."""
    from torch._dynamo.utils import counters

    tuned = engine(folders["flux"], workers, most_lanes=2, compile={"backend": "inductor"})
    counters.clear()
    tuned.denoiser.warm(64, 64)
    assert counters["stats"]["unique_graphs"] > 0
    counters.clear()
    images = made(tuned, workers, ASK)
    assert counters["stats"]["unique_graphs"] == 0
    assert apart(images[0], made(engine(folders["flux"], workers), workers, ASK)[0]) <= 1
    assert made(tuned, workers, ASK) == images
