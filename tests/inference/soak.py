"""What only shows after long: memory through model switches, and bytes through kills. `python -m tests.inference.soak`.

    switches   one served process, 2,000 requests over 100 switches among two image models and a text model, of which
               only one fits the budget; its resident memory must not grow
    kills      twenty processes killed with -9 amid orders of all kinds; every picture must have its undisturbed bytes
    all        both (the default)

The exit status is 1 when one of them does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from deploy.local.ports import Ports
from services.catalogue import load
from services.common.errors import MoaError
from tests.inference import kills
from tests.inference.harness import CATALOGUE, CHAT, IMAGE, Client
from tests.inference.processes import serving, started

MODELS = ("one", "two", "chat")
TOGETHER = 8
"""Requests that are under way at once."""
GROWTH_MB = 12.0
"""What the medians of two quarters of a model's turns may differ by: allocators settle late."""


@dataclass(frozen=True)
class Grown:
    """How a process's memory went."""

    requests: int
    loads: int
    resident_mb: dict[str, list[float]]
    """By model, after each of its turns."""

    def quarters(self, model: str) -> list[float]:
        """Return the median of each quarter of the run while a model was in memory, in MB."""
        turns = self.resident_mb[model]
        cuts = [len(turns) * quarter // 4 for quarter in range(5)]
        return [statistics.median(turns[low:high]) for low, high in pairwise(cuts)]

    def growth_mb(self, model: str) -> float:
        """Return the growth from the second quarter, in which all had been used, to the last."""
        quarters = self.quarters(model)
        return quarters[3] - quarters[1]


def main() -> int:
    """Run what is asked for; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.inference.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("switches", "kills", "all"), nargs="?", default="all")
    parser.add_argument("--switches", type=int, default=100)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    held = True
    with tempfile.TemporaryDirectory() as folder:
        if given.what in ("switches", "all"):
            held &= _switched(asyncio.run(switches(given.switches, given.requests, Path(folder), seed=given.seed)))
        if given.what in ("kills", "all"):
            kept = Path(folder) / "checkpoints"
            kept.mkdir()
            held &= _killed(asyncio.run(kills.run(given.kills, kept, seed=given.seed, tell=print)))
    return 0 if held else 1


def _switched(grown: Grown) -> bool:
    print(f"{grown.requests} requests, {grown.loads} loads; median resident MB by quarter of the run:")
    for model in grown.resident_mb:
        quarters = ", ".join(f"{mb:.0f}" for mb in grown.quarters(model))
        print(f"  with {model}: {quarters}; {grown.growth_mb(model):+.1f} from the second to the last")
    return all(grown.growth_mb(model) <= GROWTH_MB for model in grown.resident_mb)


def _killed(outcome: kills.Outcome) -> bool:
    print(
        f"{outcome.kills} kills, {outcome.orders} orders, {outcome.pictures} pictures; {outcome.resumed} times one "
        f"went on from a checkpoint, which saved {outcome.saved} steps"
    )
    print(f"other bytes than undisturbed: {', '.join(outcome.other) or 'none'}")
    return not outcome.other and outcome.resumed > 0


async def switches(count: int, requests: int, folder: Path, *, seed: int) -> Grown:
    """Serve requests over so many switches from one process."""
    port, metrics = Ports().any(), Ports().any()
    # No two models fit into a byte, so each switch unloads.
    settings = {"MOA_CATALOGUE": str(_catalogue(folder)), "MOA_MODEL_BYTES": "1", "MOA_METRICS_PORT": str(metrics)}
    process = await started(port, **settings)
    client = Client(f"127.0.0.1:{port}")
    orders = kills.orders(seed, (2, 5))
    resident: dict[str, list[float]] = {name: [] for name in MODELS}
    began = time.monotonic()
    try:
        await serving(client)
        for switch in range(count):
            name = MODELS[switch % len(MODELS)]
            share = requests * (switch + 1) // count - requests * switch // count
            await _burst(client, name, [next(orders).fields for _ in range(share)])
            resident[name].append(psutil.Process(process.pid).memory_info().rss / 2**20)
            if switch % 10 == 9 or switch == count - 1:
                took = time.monotonic() - began
                print(
                    f"switch {switch + 1:3}: {resident[name][-1]:.0f} MB resident with {name}, {took:.0f} s", flush=True
                )
        loads = await asyncio.to_thread(_loads, metrics)
    finally:
        await client.close()
        process.terminate()
        await process.wait()
    return Grown(requests, loads, resident)


def _catalogue(folder: Path) -> Path:
    """Write a catalogue of two image models and a text model, all of those that ship."""
    models = {model.id: model for model in load(CATALOGUE, {}).models}
    entries: list[dict[str, Any]] = []
    for name, like, makes in (("one", IMAGE, "image"), ("two", IMAGE, "image"), ("chat", CHAT, "text")):
        model = models[like]
        assert model.load is not None
        entries.append(
            {
                "id": name,
                "provider": f"local-{makes}",
                "capabilities": list(model.capabilities),
                "context_tokens": model.context_tokens,
                "load": {"source": str(Path(model.load.source).resolve()), "options": dict(model.load.options)},
            }
        )
    providers = [{"id": f"local-{makes}", "adapter": "inference", "makes": makes} for makes in ("text", "image")]
    file = folder / "catalogue.yaml"
    file.write_text(json.dumps({"providers": providers, "models": entries}))
    return file


async def _burst(client: Client, name: str, asked: list[dict[str, Any]]) -> None:
    """Make requests of one model, several at a time."""
    at_once = asyncio.Semaphore(TOGETHER)

    async def one(fields: dict[str, Any]) -> None:
        async with at_once:
            if name == "chat":
                await client.text(str(fields["prompt"]), model=name, max_tokens=24)
            else:
                await client.image(model=name, preview_every=2, **fields)

    await asyncio.gather(*(one(fields) for fields in asked))


def _loads(port: int) -> int:
    """Return how many times the process loaded a model."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        lines = page.read().decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("moa_engine_load_seconds_count"))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MoaError as error:
        sys.exit(f"a request failed: {error.message}")
