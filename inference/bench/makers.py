"""The two rivals: the engine, and the plain pipeline that makes one image after the other."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import diffusers
import torch

from inference import machine
from inference.fair import Flow
from inference.image import schedulers
from inference.image.ask import ImageAsk
from inference.image.engine import ImageEngine
from inference.image.events import Done, Event
from inference.image.load import load
from inference.job import Failed
from services.catalogue import Load, Model

FOLDER = Path(__file__).parents[1] / "models" / "moa-tiny-image"
PROMPTS = ("a red circle on a white background", "two blue squares", "a sunset", "파란 자동차", "a desk with a lamp")

Make = Callable[[ImageAsk], Any]
"""Makes an ask's picture; blocks until it is there."""


def engine_of(folder: Path, workers: ThreadPoolExecutor) -> ImageEngine:
    """Return an engine over a folder's model, as the catalogue's defaults make it; not started."""
    part = load(Model(id="bench", provider="bench", load=Load(source=str(folder))), lambda stage, fraction: None)
    return ImageEngine(
        "bench",
        part.family,
        adapters=part.adapters,
        revision=part.revision,
        size_bytes=part.size_bytes,
        workers=workers,
        max_waiting=100_000,
    )


def pipeline_of(folder: Path) -> Make:
    """Return the plain pipeline of a folder's model."""
    device = machine.device_of("auto")
    dtype = machine.dtype_of("auto", device)
    return plain(diffusers.DiffusionPipeline.from_pretrained(folder, dtype=dtype).to(device))


def plain(pipeline: Any) -> Make:
    """Make images with a pipeline of diffusers, one at a time."""
    pipeline.set_progress_bar_config(disable=True)
    own = pipeline.scheduler

    def make(ask: ImageAsk) -> Any:
        pipeline.scheduler = schedulers.made(own, ask.scheduler)
        return pipeline(
            ask.prompt,
            width=ask.width,
            height=ask.height,
            num_inference_steps=ask.steps,
            guidance_scale=ask.guidance,
            generator=torch.Generator().manual_seed(ask.seed),
        ).images[0]

    return make


def asks(count: int, side: int, seed: int, steps: Sequence[int] = (10, 15, 20, 25)) -> list[ImageAsk]:
    """Return unlike asks of one size."""
    rng = random.Random(seed)  # noqa: S311  # not a secret
    return [
        ImageAsk(prompt=rng.choice(PROMPTS), width=side, height=side, steps=rng.choice(steps), seed=i)
        for i in range(count)
    ]


def submit(engine: ImageEngine, ask: ImageAsk, ended: Callable[[], None], tenant: str = "") -> Any:
    """Queue an ask; `ended` is called when its file is there. Gives the order, to be cancelled by."""

    def take(event: Event) -> None:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Done):
            ended()

    order = engine.prepare(ask, flow=Flow(tenant))
    engine.submit(order, take)
    return order


def made(engine: ImageEngine, ask: ImageAsk, tenant: str = "") -> float:
    """Make one ask's file; give the seconds."""
    done = threading.Event()
    began = time.perf_counter()
    submit(engine, ask, done.set, tenant)
    done.wait()
    return time.perf_counter() - began


def burst(engine: ImageEngine, many: Sequence[ImageAsk]) -> float:
    """Make asks that come all at once; give the seconds until the last file."""
    over = threading.Semaphore(0)
    began = time.perf_counter()
    for ask in many:
        submit(engine, ask, over.release)
    for _ in many:
        over.acquire()
    return time.perf_counter() - began


def timed(call: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value below which a part of the values is."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def middle(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)
