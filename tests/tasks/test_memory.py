"""Memory under large images."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.tasks.system import System, until

LARGE_MB = 10


def peak_mb(system: System, name: str) -> float:
    """Give the most memory that a process ever held."""
    for line in Path(f"/proc/{system.pid(name)}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


def run(system: System, count: int) -> None:
    def one(number: int) -> str:
        body = {"model": "google/gempix2", "prompt": f"large {number} megabytes={LARGE_MB}"}
        found: str = system.post("/api/image/gen", body).json()["data"]["task_id"]
        return found

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(one, range(count)))
    until(
        lambda: system.query("select count(*) from tasks.tasks where id = any(%s) and state = 4", made) == [(count,)],
        what="the images",
        wait_s=100,
    )


def test_fifty_more_images_of_ten_megabytes_take_no_more_memory(system: System) -> None:
    """A worker holds what runs, never what waits or is done; the task service that answers holds none of it.

    The first fifty bring the allocator to its height for eight running tasks; from there the peak stays.
    """
    run(system, 50)
    before = {name: peak_mb(system, name) for name in ("worker", "tasks")}
    run(system, 50)
    after = {name: peak_mb(system, name) for name in ("worker", "tasks")}
    assert after["tasks"] < 250
    assert after["worker"] < before["worker"] + 5 * LARGE_MB
