"""What a reload of a catalogue of so many rows costs a process that serves: its loop's longest turn, its memory.

`measure` gives the turn in milliseconds of the loop's own processor time, which says the same on a machine that has
other work; `memory_mb` the memory that the snapshot takes, in a process of its own. Run as a module, it prints both.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

from services.catalogue import Catalogue, load, reload
from services.common import memory

SIZES: Final = (60, 600, 6_000)
_SHIPPED: Final = Path("gateway/catalogue.yaml")


def written(path: Path, rows: int) -> Path:
    """Write a catalogue of so many models: those that ship, again and again under other names."""
    shipped: dict[str, Any] = msgspec.yaml.decode(_SHIPPED.read_bytes())
    models = [model for model in shipped["models"] if not {"load", "retirement", "fallback"} & model.keys()]
    made = []
    for number in range(rows):
        model = models[number % len(models)]
        aliases = [f"{alias}-{number}" for alias in model.get("aliases", ())]
        made.append({**model, "id": f"{model['id']}-{number}", "aliases": aliases})
    path.write_bytes(msgspec.yaml.encode({"providers": shipped["providers"], "models": made}))
    return path


async def _longest_turn_s(path: Path) -> float:
    """Reload twice; return the most processor time that the loop's thread used between two turns of another task."""
    longest = 0.0
    over = False

    async def watch() -> None:
        nonlocal longest
        last = time.thread_time()
        while not over:
            await asyncio.sleep(0.001)
            now = time.thread_time()
            longest = max(longest, now - last)
            last = now

    memory.collect_seldom()  # as the services do
    watching = asyncio.create_task(watch())
    for _ in range(2):  # the second one ends the snapshot of the first
        held = await reload(path, {})
        joined = held.with_listed({})
        await asyncio.sleep(0)
    assert joined.models
    over = True
    await watching
    return longest


def measure(size: int) -> float:
    """Return the longest turn of the loop, in milliseconds, while a catalogue of `size` rows is taken in."""
    return _apart("--turn", size)


def memory_mb(size: int) -> float:
    """Return how much more memory a process has that holds a catalogue of `size` rows, reloaded once."""
    return _apart("--hold", size)


def _apart(what: str, size: int) -> float:
    """Return what a process of its own finds, which holds nothing else."""
    with tempfile.TemporaryDirectory(prefix="moa-bench-") as folder:
        path = written(Path(folder) / "catalogue.yaml", size)
        found = subprocess.run(  # noqa: S603  # a program of ours
            [sys.executable, "-m", "bench.growth_catalogue", what, str(path)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return float(found.stdout)


async def _held_mb(path: Path) -> float:
    memory.give_back_freed()  # as the services do
    load(_SHIPPED, {})
    before = psutil.Process().memory_info().rss
    held: Catalogue = load(path, {})
    held = await reload(path, {})
    assert held.models
    return float((psutil.Process().memory_info().rss - before) / 2**20)


def main() -> None:
    """Print both for each size."""
    if sys.argv[1:2] == ["--turn"]:
        print(1000 * asyncio.run(_longest_turn_s(Path(sys.argv[2]))))
        return
    if sys.argv[1:2] == ["--hold"]:
        print(asyncio.run(_held_mb(Path(sys.argv[2]))))
        return
    print(f"{'rows':>8}{'longest turn, ms':>20}{'memory, MB':>14}")
    for size in SIZES:
        print(f"{size:>8}{measure(size):>20.2f}{memory_mb(size):>14.1f}", flush=True)


if __name__ == "__main__":
    main()
