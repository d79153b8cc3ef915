from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from inference.training.loop import Run

SHIPPED = Path(__file__).parents[2] / "models"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # beats two where other work shares the cores
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A quiet run on the CPU with its results in a temporary folder."""
    return Run(tmp_path, torch.device("cpu"), seed=3, quiet=True)
