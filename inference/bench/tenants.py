"""A light tenant's waits while another floods, beside its waits alone; by the clock.

Light is who uses less than a fair share: it sends its next request once the other got two more images. Who sends
without a pause is as heavy as the other, and two such share the engine by halves.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from inference.bench import makers
from inference.image.ask import ImageAsk
from inference.image.engine import ImageEngine

GOAL = 1.5
EACH = 4
"""Requests of the light tenant in each round, one after the other, alone and then amid the flood."""
BETWEEN = 2
"""Images that the other gets between two requests of the light one."""
FLOOD = 16
"""Orders of the other tenant that are always under way."""
LEAST_ROUNDS, MOST_ROUNDS = 3, 25


class Flood:
    """Another tenant, who sends the next order whenever one is done."""

    def __init__(self, engine: ImageEngine, side: int, steps: int) -> None:
        self._engine = engine
        self._asks = makers.asks(64, side, seed=5, steps=(steps, steps * 5 // 4, steps * 3 // 2))
        self._orders: list[Any] = []
        self._lock = threading.Lock()
        self._on = True
        self.made = 0
        self._more = threading.Semaphore(0)
        for _ in range(FLOOD):
            self._next()

    def _next(self) -> None:
        ask = self._asks[len(self._orders) % len(self._asks)]
        self._orders.append(makers.submit(self._engine, ask, self._ended, "flood"))

    def wait(self, images: int) -> None:
        """Wait until it got so many more images."""
        for _ in range(images):
            self._more.acquire()

    def _ended(self) -> None:
        self._more.release()
        with self._lock:
            self.made += 1
            if self._on:
                self._next()

    def stop(self) -> None:
        """Cancel what is under way and wait until the engine is idle."""
        with self._lock:
            self._on = False
        for order in self._orders:
            self._engine.cancel(order)
        assert self._engine.wait_idle(60)


def measure(folder: Path, side: int, seconds: float, steps: int = 20) -> float:
    """Print both p95 and give their ratio."""
    light = ImageAsk(prompt=makers.PROMPTS[0], width=side, height=side, steps=steps, seed=1)
    alone: list[float] = []
    amid: list[float] = []
    flooded = 0
    with ThreadPoolExecutor(2) as workers:
        engine = makers.engine_of(folder, workers)
        engine.start()
        for many in range(1, 6):
            makers.burst(engine, makers.asks(many, side, seed=3))  # every size of call is proven before the clock runs
        until = time.perf_counter() + seconds
        for turn in range(MOST_ROUNDS):
            if turn >= LEAST_ROUNDS and time.perf_counter() > until:
                break
            alone += [makers.made(engine, light, "light") for _ in range(EACH)]
            flood = Flood(engine, side, steps)
            for _ in range(EACH):
                flood.wait(BETWEEN)
                amid.append(makers.made(engine, light, "light"))
            flooded += flood.made
            flood.stop()
        engine.stop()
    ratio = makers.percentile(amid, 0.95) / makers.percentile(alone, 0.95)
    for what, waits in (("alone", alone), (f"amid {FLOOD} orders of another tenant", amid)):
        p50, p95 = (makers.percentile(waits, part) for part in (0.5, 0.95))
        print(f"a light tenant {what}: p50 {p50:.2f} s, p95 {p95:.2f} s ({len(waits)} requests)")
    print(f"its p95 is {ratio:.2f} times that alone (goal {GOAL}); the other got {flooded} images meanwhile")
    return ratio
