"""How many workers start by default."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local import room


@pytest.mark.parametrize(
    ("available_mb", "limit_mb", "used_mb", "droppable_mb", "routers"),
    [
        (8000, None, 0, 0, 2),
        (900, None, 0, 0, 1),
        (8000, 1500, 700, 0, 1),
        (8000, 1500, 700, 400, 2),
        (None, None, 0, 0, 2),
    ],
)
def test_a_second_router_runs_where_memory_allows(
    tmp_path: Path,
    available_mb: int | None,
    limit_mb: int | None,
    used_mb: int,
    droppable_mb: int,
    routers: int,
) -> None:
    """The machine's free memory and the container's limit decide, the smaller one; unknown is enough."""
    machine = tmp_path / "meminfo"
    if available_mb is not None:
        machine.write_text(f"MemTotal: 1 kB\nMemAvailable:   {available_mb * 1024} kB\n")
    (tmp_path / "memory.max").write_text("max\n" if limit_mb is None else f"{limit_mb * 2**20}\n")
    (tmp_path / "memory.current").write_text(f"{used_mb * 2**20}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {droppable_mb * 2**20}\n")
    assert room.workers(2, machine=machine, container=tmp_path) == routers
    assert room.workers(1, machine=machine, container=tmp_path) == 1
