"""Measure the image engine against one-at-a-time diffusers on the same weights: `python -m inference.bench`.

    load    Poisson arrivals at 0.6, 0.9, 1.5 and 3 times what one-at-a-time manages: images/s, p50, p95, calls saved
    alone   the engine's overhead over the bare pipeline for one request, and what previews cost
    soak    many requests and model switches: resident memory at the start and at the end
    all     load and alone (the default)

On a machine with CUDA all of it runs there; for figures of a full-size model name its folder (--model, --size).
Every figure stands beside its rival's from the same run, for machines differ and are seldom idle.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference import machine
from inference.image.ask import ImageAsk
from inference.image.events import Done, Event, Failed
from services.common.catalogue import Load, Model

if TYPE_CHECKING:
    from inference.image.engine import ImageEngine

FOLDER = Path(__file__).parent / "models" / "moa-tiny-image"
PROMPTS = ("a red circle on a white background", "two blue squares", "a sunset", "파란 자동차", "a desk with a lamp")


def main() -> None:
    """Measure what is asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m inference.bench", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("load", "alone", "soak", "all"), nargs="?", default="all")
    parser.add_argument("--model", type=Path, default=FOLDER, help="a diffusers folder")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--switches", type=int, default=20, help="model switches of a soak")
    given = parser.parse_args()
    machine.bring_up(given.threads)
    print(f"on {_device()}")
    {"load": load, "alone": alone, "soak": soak, "all": both}[given.what](given)


def _device() -> str:
    """Name where it runs."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "the CPU; the figures of a GPU are skipped, for torch sees none here"


def both(given: argparse.Namespace) -> None:
    """Arrivals, then one at a time."""
    load(given)
    alone(given)


def _engine(folder: Path, workers: ThreadPoolExecutor) -> ImageEngine:
    from inference.image.engine import ImageEngine
    from inference.image.load import load as loaded

    part = loaded(Model(id="bench", provider="bench", load=Load(source=str(folder))), lambda stage, fraction: None)
    return ImageEngine(
        "bench",
        part.family,
        adapters=part.adapters,
        revision=part.revision,
        size_bytes=part.size_bytes,
        workers=workers,
        max_waiting=100_000,
    )


def _pipeline(folder: Path) -> Callable[[ImageAsk], Any]:
    import diffusers
    import torch

    device = machine.device_of("auto")
    dtype = machine.dtype_of("auto", device)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, dtype=dtype).to(device)
    pipeline.set_progress_bar_config(disable=True)

    def make(ask: ImageAsk) -> Any:
        return pipeline(
            ask.prompt,
            width=ask.width,
            height=ask.height,
            num_inference_steps=ask.steps,
            guidance_scale=ask.guidance,
            generator=torch.Generator().manual_seed(ask.seed),
        ).images[0]

    return make


def _asks(given: argparse.Namespace, seed: int) -> list[ImageAsk]:
    rng = random.Random(seed)  # noqa: S311  # not a secret
    return [
        ImageAsk(
            prompt=rng.choice(PROMPTS), width=given.size, height=given.size, steps=rng.choice((10, 15, 20, 25)), seed=i
        )
        for i in range(given.requests)
    ]


def _submit(engine: ImageEngine, ask: ImageAsk, ended: Callable[[], None]) -> None:
    def take(event: Event) -> None:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Done):
            ended()

    engine.submit(engine.prepare(ask), take)


def _made(engine: ImageEngine, ask: ImageAsk) -> float:
    """Make one image; give the seconds."""
    done = threading.Event()
    began = time.perf_counter()
    _submit(engine, ask, done.set)
    done.wait()
    return time.perf_counter() - began


def load(given: argparse.Namespace) -> None:
    """Poisson arrivals, through one-at-a-time diffusers and through the engine."""
    workers = ThreadPoolExecutor(2)
    plain, engine = _pipeline(given.model), _engine(given.model, workers)
    engine.start()
    asks = _asks(given, 1)
    for warm in range(4):
        plain(asks[warm])
        _burst(engine, asks[: 2 * warm + 1])  # every size of call is proven before the clock runs
    began = time.perf_counter()
    for ask in asks[:8]:
        plain(ask)
    capacity = 8 / (time.perf_counter() - began)
    print(f"one at a time manages {capacity:.2f} images/s of {given.size}x{given.size}, 10-25 steps, guidance 5")
    for factor in (0.6, 0.9, 1.5, 3.0):
        arrivals = _arrivals(len(asks), capacity * factor)
        one = _serial(plain, asks, arrivals)
        ticks = engine.ticks
        many = _served(engine, asks, arrivals)
        saved = 1 - (engine.ticks - ticks) / sum(ask.steps for ask in asks)
        print(f"{factor:.1f}x  one at a time: {_told(one)}   engine: {_told(many)}   calls saved {saved:.0%}")
    engine.stop()


def _arrivals(count: int, rate: float) -> list[float]:
    rng = random.Random(2)  # noqa: S311
    at, times = 0.0, []
    for _ in range(count):
        at += rng.expovariate(rate)
        times.append(at)
    return times


Taken = list[tuple[float, float]]
"""(arrived, done) of each request, in seconds."""


def _serial(make: Callable[[ImageAsk], Any], asks: list[ImageAsk], arrivals: list[float]) -> Taken:
    began = time.perf_counter()
    taken = []
    for ask, at in zip(asks, arrivals, strict=True):
        time.sleep(max(0.0, at - (time.perf_counter() - began)))
        make(ask)
        taken.append((at, time.perf_counter() - began))
    return taken


def _served(engine: ImageEngine, asks: list[ImageAsk], arrivals: list[float]) -> Taken:
    began = time.perf_counter()
    taken: Taken = []
    over = threading.Semaphore(0)

    def ended(at: float) -> None:
        taken.append((at, time.perf_counter() - began))
        over.release()

    for ask, at in zip(asks, arrivals, strict=True):
        time.sleep(max(0.0, at - (time.perf_counter() - began)))
        _submit(engine, ask, lambda at=at: ended(at))  # type: ignore[misc]  # bound now, not when it is called
    for _ in asks:
        over.acquire()
    return taken


def _burst(engine: ImageEngine, asks: list[ImageAsk]) -> None:
    _served(engine, asks, [0.0] * len(asks))


def _told(taken: Taken) -> str:
    waits = sorted(done - at for at, done in taken)
    rate = len(taken) / max(done for _, done in taken)
    return f"{rate:5.2f}/s p50 {statistics.median(waits):6.2f} s p95 {waits[int(0.95 * len(waits))]:6.2f} s"


def alone(given: argparse.Namespace) -> None:
    """One request at a time, engine and bare pipeline in turn; medians."""
    workers = ThreadPoolExecutor(2)
    plain, engine = _pipeline(given.model), _engine(given.model, workers)
    engine.start()
    ask = ImageAsk(prompt=PROMPTS[0], width=given.size, height=given.size, steps=20, seed=1)
    shown = ImageAsk(prompt=PROMPTS[0], width=given.size, height=given.size, steps=20, seed=1, preview_every=2)
    bare, own, previewed = [], [], []
    for _ in range(max(3, given.requests // 3)):
        began = time.perf_counter()
        plain(ask)
        bare.append(time.perf_counter() - began)
        own.append(_made(engine, ask))
        previewed.append(_made(engine, shown))
    base, mine, seen = (statistics.median(times[1:]) for times in (bare, own, previewed))
    print(f"bare pipeline {base * 1e3:.1f} ms, engine with PNG {mine * 1e3:.1f} ms ({mine / base - 1:+.1%})")
    print(f"previews every 2 steps: {seen * 1e3:.1f} ms ({seen / mine - 1:+.1%})")
    engine.stop()


def soak(given: argparse.Namespace) -> None:
    """Switch models and make images; resident memory must not grow."""
    workers = ThreadPoolExecutor(2)
    each = max(1, given.requests // given.switches)
    asks = _asks(given, 3)
    seen = []
    for switch in range(given.switches):
        engine = _engine(given.model, workers)
        engine.start()
        _burst(engine, asks[:each])
        engine.stop()
        del engine
        machine.tidy()
        seen.append(_resident_mb())
        if switch in (given.switches // 4, given.switches - 1):
            print(f"after {switch + 1} switches and {(switch + 1) * each} images: {seen[-1]:.0f} MB resident")
    grown = seen[-1] - seen[given.switches // 4]
    print(f"grown by {grown:.0f} MB since the first quarter; peak {_peak_mb():.0f} MB")


def _resident_mb() -> float:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return _peak_mb()
    return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
