"""Kill the inference process with -9 again and again, and hold every picture to its undisturbed bytes.

Each process is the heir of the one before and the next victim: it is asked for all that is unfinished under the same
names, goes on from the checkpoints, and is killed once it has told a random number of steps more. The last one lives:
it finishes everything, then makes every order anew, alone and under no name. Those are the bytes that count.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.local.ports import Ports
from inference.image.schedulers import BY_NAME
from moa.image.v1 import image_pb2
from services.catalogue import load
from services.common.errors import Unavailable
from services.common.rpc.call import RESUME_KEY
from tests.forking import Begun
from tests.inference.harness import CATALOGUE, IMAGE, Client, given
from tests.inference.processes import serving, started
from tests.inference.test_image import drawn, half_mask


@dataclass
class Asked:
    """One order: what is asked under which name, and what came of it."""

    name: str
    fields: dict[str, Any]
    files: dict[int, bytes] = field(default_factory=dict)
    done: bool = False
    resumed: int = 0
    """Pictures that went on from a checkpoint, once for each process that took them up."""
    saved: int = 0
    """Steps that need not be taken again."""


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    kills: int
    orders: int
    pictures: int
    resumed: int
    saved: int
    other: list[str]
    """Orders whose bytes are not those of the undisturbed run, with what was asked."""


def orders(seed: int, steps: tuple[int, int]) -> Iterator[Asked]:
    """Return orders without end, unlike in all that the engine mixes."""
    rng = random.Random(seed)
    loras = _loras()
    for number in range(10**6):
        kind = number % 3
        diffusion = image_pb2.Diffusion(
            scheduler=tuple(BY_NAME)[number % len(BY_NAME)],
            steps=rng.randint(*steps),
            guidance_scale=rng.choice([1.0, 3.5, 6.0]),
            loras=[image_pb2.Lora(name=name, scale=rng.choice([0.6, 1.0])) for name in loras if rng.random() < 0.5],
        )
        fields: dict[str, Any] = {
            "prompt": rng.choice(["a red circle on a white background", "노을", "a desk with a lamp"]),
            "seed": rng.randrange(1 << 31),
            "width": rng.choice([64, 64, 96]),
            "height": 64,
            "count": rng.choice([1, 1, 1, 2]),
        }
        if kind:
            diffusion.strength = rng.choice([0.7, 1.0])
            fields["images"] = [given(drawn())]
        if kind == 2:
            fields["mask"] = given(half_mask())
        yield Asked(f"order-{seed}-{number}", fields | {"diffusion": diffusion})


def _loras() -> list[str]:
    """List the LoRAs that ship with the image model."""
    model = next(model for model in load(CATALOGUE, {}).models if model.id == IMAGE)
    assert model.load is not None
    return sorted(model.load.options.get("loras", {}))


async def run(
    kills: int,
    folder: Path,
    *,
    seed: int = 1,
    together: int = 6,
    steps: tuple[int, int] = (20, 40),
    lives: tuple[int, int] = (0, 12),
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Kill so many processes, each with `together` orders under way; no process is left at the end.

    Args:
        kills: How many.
        folder: Of the checkpoints.
        seed: Of orders and of the points at which a process dies.
        together: Orders under way.
        steps: Of an order, least and most.
        lives: Steps that a process tells, for each unfinished order, before it dies; least and most.
        tell: Told how far it is.
    """
    rng = random.Random(seed)
    coming = orders(seed, steps)
    everyone = [next(coming) for _ in range(together)]
    port = Ports().any()
    settings = {"MOA_CHECKPOINTS": str(folder), "MOA_CHECKPOINT_EVERY": "2"}
    kill = 0
    while kill < kills:
        process = await started(port, **settings)
        unfinished = [asked for asked in everyone if not asked.done]
        life = rng.randint(max(1, lives[0] * len(unfinished)), lives[1] * len(unfinished))
        await _killed(process, port, unfinished, life, rng.uniform(0, 0.03))
        # One that came when all was done, for whoever counts the steps was late, is no death amid orders.
        kill += any(not asked.done for asked in unfinished)
        tell(
            f"kill {kill}: after {life} steps of {len(unfinished)} orders; "
            f"so far {sum(asked.resumed for asked in everyone)} pictures went on from a checkpoint"
        )
        everyone += [next(coming) for _ in range(together - sum(not asked.done for asked in everyone))]
    process = await started(port, **settings)
    client = Client(f"127.0.0.1:{port}")
    try:
        await serving(client)
        await asyncio.gather(*(_ask(client, asked) for asked in everyone if not asked.done))
        other = [asked.name for asked in everyone if asked.files != await _undisturbed(client, asked)]
    finally:
        await client.close()
        process.terminate()
        await process.wait()
    assert not [file for file in folder.iterdir() if file.suffix == ".safetensors"], "delivered, its files are gone"
    return Outcome(
        kills,
        len(everyone),
        sum(len(asked.files) for asked in everyone),
        sum(asked.resumed for asked in everyone),
        sum(asked.saved for asked in everyone),
        other,
    )


async def _killed(process: Begun, port: int, unfinished: list[Asked], left: int, later_s: float) -> None:
    """Ask a process for all that is unfinished, and kill it once it told so many steps, and a little later."""
    client = Client(f"127.0.0.1:{port}")
    enough = asyncio.Event()

    def stepped() -> None:
        nonlocal left
        left -= 1
        if not left:
            enough.set()

    try:
        await serving(client)
        asking = [asyncio.create_task(_ask(client, asked, stepped)) for asked in unfinished]
        waiting: asyncio.Future[Any] = asyncio.create_task(enough.wait())
        ended: asyncio.Future[Any] = asyncio.gather(*asking, return_exceptions=True)
        await asyncio.wait({waiting, ended}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(later_s)  # not only right after a step: anywhere, in a decode or a write too
        process.kill()
        waiting.cancel()
        for outcome in await ended:
            if isinstance(outcome, BaseException) and not isinstance(outcome, Unavailable):
                raise outcome
    finally:
        await client.close()
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _ask(client: Client, asked: Asked, stepped: Callable[[], None] = lambda: None) -> None:
    """Ask for an order under its name, and note what comes."""
    files: dict[int, bytes] = {}
    begun: set[int] = set()
    async for event in client.image_events((RESUME_KEY, asked.name), **asked.fields):
        if event.HasField("progress"):
            if event.index not in begun and event.progress.step > 1:
                asked.resumed += 1
                asked.saved += event.progress.step - 1
            begun.add(event.index)
            stepped()
        if event.HasField("image"):
            files[event.index] = event.image.image.data
    asked.files, asked.done = files, True


async def _undisturbed(client: Client, asked: Asked) -> dict[int, bytes]:
    """Make an order alone and under no name."""
    out = await client.image(**asked.fields)
    return {index: image.image.data for index, image in out.images.items()}
