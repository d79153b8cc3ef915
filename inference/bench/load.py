"""Poisson arrivals, through one-at-a-time diffusers and through the engine."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inference.bench import makers
from inference.image.ask import ImageAsk
from inference.image.engine import ImageEngine

FACTORS = (0.6, 0.9, 1.5, 3.0)

Taken = list[tuple[float, float]]
"""(arrived, done) of each request, in seconds."""


def measure(
    folder: Path,
    side: int,
    requests: int,
    factors: tuple[float, ...] = FACTORS,
    steps: tuple[int, ...] = (10, 15, 20, 25),
) -> None:
    """Print what both manage at each arrival rate."""
    plain = makers.pipeline_of(folder)
    with ThreadPoolExecutor(2) as workers:
        engine = makers.engine_of(folder, workers)
        engine.start()
        asks = makers.asks(requests, side, seed=1, steps=steps)
        for warm in range(4):
            plain(asks[warm])
            makers.burst(engine, asks[: 2 * warm + 1])  # every size of call is proven before the clock runs
        began = time.perf_counter()
        for ask in asks[:8]:
            plain(ask)
        capacity = 8 / (time.perf_counter() - began)
        mix = f"{side}x{side}, {min(steps)}-{max(steps)} steps, guidance 5"
        print(f"one at a time manages {capacity:.2f} images/s of {mix}")
        for factor in factors:
            arrivals = _arrivals(len(asks), capacity * factor)
            one = _serial(plain, asks, arrivals)
            ticks = engine.ticks
            many = _served(engine, asks, arrivals)
            saved = 1 - (engine.ticks - ticks) / sum(ask.steps for ask in asks)
            print(f"{factor:.1f}x  one at a time: {_summary(one)}   engine: {_summary(many)}   calls saved {saved:.0%}")
        engine.stop()


def _arrivals(count: int, rate: float) -> list[float]:
    rng = random.Random(2)  # noqa: S311
    at, times = 0.0, []
    for _ in range(count):
        at += rng.expovariate(rate)
        times.append(at)
    return times


def _serial(make: makers.Make, asks: list[ImageAsk], arrivals: list[float]) -> Taken:
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
        makers.submit(engine, ask, lambda at=at: ended(at))  # type: ignore[misc]  # bound now, not when it is called
    for _ in asks:
        over.acquire()
    return taken


def _summary(taken: Taken) -> str:
    waits = [done - at for at, done in taken]
    rate = len(taken) / max(done for _, done in taken)
    p50, p95 = (makers.percentile(waits, part) for part in (0.5, 0.95))
    return f"{rate:5.2f}/s p50 {p50:6.2f} s p95 {p95:6.2f} s"
