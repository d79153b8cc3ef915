"""Full-size SDXL with random weights: its speed is that of the real one, and nothing is downloaded.

At each size: one image alone, with the share of the device's dense bf16 peak that it reached; then unlike asks through
the plain pipeline one after the other, and through the engine together. Floating-point operations are counted by torch,
on one run of the denoiser and of the decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from inference.bench import makers
from inference.bench.sdxl import FULL, Shape, sdxl
from inference.image.ask import ImageAsk
from inference.image.engine import ImageEngine
from inference.image.families import Family, family_of
from inference.image.loras import Adapters
from inference.image.tuning import tune

PEAKS_TFLOPS = {"B200": 2250, "H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "RTX 4090": 165}
"""Dense bf16 peaks by NVIDIA's data sheets (SXM where there are two), by a part of the card's name."""
STEPS = 30
GOALS = {512: "mixed at least 2.5 times serial", 1024: f"{STEPS} steps within 1.1 s"}
REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and how large."""

    sizes: tuple[int, ...] = (512, 1024)
    images: int = 8
    lanes: int = 8
    """Lanes of a call of 512x512 pictures."""
    steps: int = STEPS
    compiled: bool = False
    peak_tflops: float = 0
    """0: by the card's name."""
    shape: Shape = FULL
    device: str = "cuda"
    dtype: torch.dtype = torch.bfloat16


@dataclass(frozen=True)
class Figures:
    """What came out at one size; seconds and TFLOP."""

    side: int
    serial_s: float
    serial_alone_s: float
    alone_s: float
    mixed_s: float
    images: int
    alone_tflop: float

    def line(self, name: str, peak_tflops: float) -> str:
        """Return the line to print."""
        share = f"{self.alone_tflop / self.alone_s / peak_tflops:.0%}" if peak_tflops else "no known share"
        return (
            f"{self.side}x{self.side} {name}: alone {self.alone_s:.2f} s (diffusers {self.serial_alone_s:.2f} s), "
            f"{self.alone_tflop:.1f} TFLOP, {share} of the bf16 peak; "
            f"{self.images} mixed {self.images / self.mixed_s:.2f} images/s, serial {self.images / self.serial_s:.2f}, "
            f"{self.serial_s / self.mixed_s:.2f} times (goal: {GOALS.get(self.side, 'none')})"
        )


def measure(plan: Plan) -> list[Figures]:
    """Print and give the figures; none, with the reason, where there is no such device."""
    if plan.device == "cuda" and not torch.cuda.is_available():
        print("skipped: torch sees no CUDA device here")
        return []
    name = torch.cuda.get_device_name() if plan.device == "cuda" else "the CPU"
    peak_tflops = plan.peak_tflops or next((peak for part, peak in PEAKS_TFLOPS.items() if part in name), 0)
    print(f"peak taken: {peak_tflops:g} TFLOP/s" if peak_tflops else "the card's peak is not known; see --peak-tflops")
    pipeline = sdxl(plan.shape, plan.device, plan.dtype)
    # The engine changes the denoiser's layers for good, so that the plain pipeline has its turn first.
    serial = {side: _serial(makers.plain(pipeline), _asks(plan, side)) for side in plan.sizes}
    weights = sum(p.numel() for p in pipeline.unet.parameters()) / 1e9
    print(f"{weights:.2f}e9 weights in the denoiser; the engine's images are PNG files, diffusers' are pixels")
    figures = []
    for name, options in _ways(plan):
        family = family_of(pipeline, {})
        tune(family, options)
        with ThreadPoolExecutor(4) as workers:
            engine = _engine(family, plan, workers)
            for side in plan.sizes:
                if options:
                    engine.denoiser.warm(side, side)
            engine.start()
            for side in plan.sizes:
                figures.append(_at(engine, family, plan, side, serial[side]))
                print(figures[-1].line(name, peak_tflops), flush=True)
            engine.stop()
    return figures


def _ways(plan: Plan) -> list[tuple[str, dict[str, Any]]]:
    ways: list[tuple[str, dict[str, Any]]] = [("as written", {})]
    if plan.compiled:
        ways.append(("compiled blocks", {"compile": {"mode": "default"}}))
    return ways


def _asks(plan: Plan, side: int) -> list[ImageAsk]:
    """Return unlike asks whose steps are `plan.steps` on average: the first has just so many."""
    changes = (0, -plan.steps // 4, plan.steps // 4, 0)
    samplers = ("euler", "dpm++", "euler-a", "ddim")
    asks = makers.asks(plan.images, side, seed=7)
    return [
        replace(ask, steps=max(1, plan.steps + changes[i % 4]), scheduler=samplers[i % 4], guidance=5.0)
        for i, ask in enumerate(asks)
    ]


def _serial(plain: makers.Make, asks: list[ImageAsk]) -> tuple[float, float]:
    """Return the seconds of all asks one after the other, and of the first alone."""
    plain(asks[0])
    alone = makers.middle([makers.timed(lambda: plain(asks[0])) for _ in range(REPEATS)])
    return makers.timed(lambda: [plain(ask) for ask in asks]), alone


def _engine(family: Family, plan: Plan, workers: ThreadPoolExecutor) -> ImageEngine:
    return ImageEngine(
        "full",
        family,
        adapters=Adapters({}),
        revision="random",
        size_bytes=0,
        workers=workers,
        most_lanes=2 * plan.lanes,
        fixed_lanes=plan.lanes,
    )


def _at(engine: ImageEngine, family: Family, plan: Plan, side: int, serial: tuple[float, float]) -> Figures:
    asks = _asks(plan, side)
    makers.burst(engine, asks[:2])
    alone_s = makers.middle([makers.made(engine, asks[0]) for _ in range(REPEATS)])
    mixed_s = makers.burst(engine, asks)
    tflop = (plan.steps * _call_flop(family, side) + _decode_flop(family, side)) / 1e12
    return Figures(side, serial[0], serial[1], alone_s, mixed_s, len(asks), tflop)


@torch.inference_mode()
def _call_flop(family: Family, side: int) -> float:
    """Count one step of one picture with guidance: two lanes of the denoiser, without what pads a call."""
    condition = family.condition(makers.PROMPTS[0], "", 5.0, side, side)
    inputs = {name: torch.cat([lane[name] for lane in condition.lanes]) for name in condition.lanes[0]}
    latents = torch.zeros(family.latent_shape(side, side), device=family.device, dtype=family.dtype)
    times = torch.ones(2, device=family.device)
    with family.uncompiled():
        return _counted(lambda: family.forward(torch.cat([latents] * 2), times, inputs))


@torch.inference_mode()
def _decode_flop(family: Family, side: int) -> float:
    latents = torch.zeros(family.latent_shape(side, side), device=family.device, dtype=family.dtype)
    return _counted(lambda: family.decode(latents, side, side))


def _counted(call: Callable[[], Any]) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        call()
    return float(counter.get_total_flops())
