"""One request at a time: what the engine adds to the bare pipeline, and what previews add to the engine.

The rivals take turns, in an order that rotates, and medians are compared: by the clock, and by the process's CPU time,
which other processes of the machine hardly change. The bare pipeline's image is encoded as the engine's is.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from inference.bench import makers
from inference.image import codec
from inference.image.ask import ImageAsk

GOAL = 0.02
EVERY = 5
"""Steps between two previews."""
LEAST_ROUNDS, MOST_ROUNDS = 5, 60


@dataclasses.dataclass
class Took:
    """What one rival took, in seconds, by round."""

    clock: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)


def measure(folder: Path, side: int, seconds: float, steps: int = 20) -> dict[str, float]:
    """Print the overheads and give them, by the CPU time's medians."""
    plain = makers.pipeline_of(folder)
    ask = ImageAsk(prompt=makers.PROMPTS[0], width=side, height=side, steps=steps, seed=1)
    shown = dataclasses.replace(ask, preview_every=EVERY)
    with ThreadPoolExecutor(2) as workers:
        engine = makers.engine_of(folder, workers)
        engine.start()
        rivals: dict[str, Callable[[], object]] = {
            "bare": lambda: codec.encoded(np.asarray(plain(ask)), ask.format),
            "engine": lambda: makers.made(engine, ask),
            "previews": lambda: makers.made(engine, shown),
        }
        took = _turns(rivals, seconds)
        engine.stop()
    for name, one in took.items():
        clock, cpu = makers.middle(one.clock) * 1e3, makers.middle(one.cpu) * 1e3
        print(f"{name:9} {clock:7.1f} ms by the clock, {cpu:7.1f} ms of CPU ({len(one.cpu)} rounds)")
    return {
        "engine": _over("the engine over the bare pipeline with the same PNG", took["engine"], took["bare"]),
        "previews": _over(f"previews every {EVERY} steps over none", took["previews"], took["engine"]),
    }


def _turns(rivals: dict[str, Callable[[], object]], seconds: float) -> dict[str, Took]:
    """Let rivals take turns until the time is over."""
    took = {name: Took() for name in rivals}
    names = list(rivals)
    for make in rivals.values():
        make()
        make()
    until = time.perf_counter() + seconds
    for turn in range(MOST_ROUNDS):
        if turn >= LEAST_ROUNDS and time.perf_counter() > until:
            break
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            clock, cpu = time.perf_counter(), time.process_time()
            rivals[name]()
            took[name].clock.append(time.perf_counter() - clock)
            took[name].cpu.append(time.process_time() - cpu)
    return took


def _over(what: str, one: Took, other: Took) -> float:
    by_clock = makers.middle(one.clock) / makers.middle(other.clock) - 1
    by_cpu = makers.middle(one.cpu) / makers.middle(other.cpu) - 1
    print(f"{what}: {by_clock:+.1%} by the clock, {by_cpu:+.1%} of CPU (goal {GOAL:.0%})")
    return by_cpu
