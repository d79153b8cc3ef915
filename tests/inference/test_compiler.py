"""A model's blocks by torch's own compiler: minutes of a C++ compiler, so run where its inputs changed."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.inference.pipes import built
from tests.inference.test_tuning import ASK, apart, engine, made


@pytest.mark.timeout(600)
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles for a CPU with g++, and there is none here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_blocks_are_compiled_by_inductor(tmp_path: Path) -> None:
    """By torch's own compiler: once warmed, the engine compiles no more, and its image is the plain one."""
    from torch._dynamo.utils import counters

    flux = built("flux", tmp_path / "flux")
    with ThreadPoolExecutor(1) as workers:
        tuned = engine(flux, workers, most_lanes=2, compile={"backend": "inductor"})
        counters.clear()
        tuned.warm(64, 64)
        assert counters["stats"]["unique_graphs"] > 0
        counters.clear()
        images = made(tuned, workers, ASK)
        assert counters["stats"]["unique_graphs"] == 0
        assert apart(images[0], made(engine(flux, workers), workers, ASK)[0]) <= 1
        assert made(tuned, workers, ASK) == images
