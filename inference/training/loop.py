"""The training loop that every model here goes through: resumable, deterministic by seed, with progress."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn

from inference.training.optimise import Average, Muon
from inference.training.precision import narrowest

SAVE_EVERY_S = 180.0
_TELL_EVERY_S = 10.0
_FLOOR = 0.02
_APART = 1_000_003  # more steps than a run has, so that seeds share none


@dataclass(frozen=True, slots=True)
class Run:
    """Where and how long to train."""

    out: Path
    """Folder of results and checkpoints."""
    device: torch.device
    seed: int = 0
    budget_s: float | None = None
    """Wall-clock bound of one model's training; the learning rate falls with whichever ends first, steps or time.
    Without it the result is a function of seed, steps, device and thread count."""
    quiet: bool = False

    def autocast(self) -> torch.autocast:
        """Compute in bfloat16 where that is safe, on devices that have it."""
        narrow = narrowest(self.device)
        return torch.autocast(self.device.type, torch.bfloat16, enabled=narrow == torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one training needs to know beside its loss."""

    name: str
    steps: int
    lr: float
    warmup: int = 100
    ema: float = 0.998
    weight_decay: float = 0.01


def rng(seed: int, step: int) -> torch.Generator:
    """Give a step's own random numbers, so that a resumed run draws what an unbroken one would."""
    return torch.Generator().manual_seed(seed * _APART + step)


def dice(seed: int, step: int = 0) -> Random:
    """Give a step's own random choices."""
    return Random(seed * _APART + step)  # noqa: S311  # no secret depends on it


def rate(progress: float, step: int, warmup: int) -> float:
    """Give the learning rate's scale: linear up, then a cosine down to 2%."""
    return min(1.0, (step + 1) / warmup) * (_FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


class Progress:
    """One line of progress on standard error, at most every ten seconds."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self._name = name
        self._quiet = quiet
        self._told = 0.0
        self._loss: float | None = None

    def tell(self, done: float, step: int, loss: float, elapsed_s: float) -> None:
        """Note a step; print now and then."""
        self._loss = loss if self._loss is None else 0.98 * self._loss + 0.02 * loss
        now = time.monotonic()
        if self._quiet or (now - self._told < _TELL_EVERY_S and done < 1):
            return
        self._told = now
        left_s = elapsed_s * (1 - done) / done if done > 0 else 0.0
        line = f"{self._name}: {done:6.1%}  step {step}  loss {self._loss:.4f}  {elapsed_s:.0f} s, {left_s:.0f} s left"
        print(line, file=sys.stderr, flush=True)


def fit(
    loss: Callable[[int], Tensor],
    modules: Mapping[str, nn.Module],
    recipe: Recipe,
    run: Run,
    keep: Callable[[], None] | None = None,
) -> None:
    """Train the modules; they hold the moving average afterwards.

    Args:
        loss: A step's loss; what is random in it comes from `rng(seed, step)`.
        modules: What is trained, by name; parameters that need no gradient are left alone.
        keep: Saves the modules as a model folder; called with their average, every few minutes.
    """
    named = [(f"{at}.{name}", p) for at, m in modules.items() for name, p in m.named_parameters() if p.requires_grad]
    optimizer = Muon(named, recipe.lr, recipe.weight_decay)
    average = Average([p for _, p in named], recipe.ema)
    checkpoint = run.out / f"{recipe.name}.checkpoint.pt"
    step, before_s = _resume(checkpoint, [name for name, _ in named], optimizer, average)
    progress = Progress(recipe.name, quiet=run.quiet)
    started = saved = time.monotonic()
    while True:
        elapsed_s = before_s + time.monotonic() - started
        done = max(step / recipe.steps, elapsed_s / run.budget_s if run.budget_s else 0.0)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * rate(done, step, recipe.warmup)
        value = loss(step)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        optimizer.step()
        average.update(step)
        step += 1
        progress.tell(done, step, float(value.detach()), elapsed_s)
        if time.monotonic() - saved > SAVE_EVERY_S:
            saved = time.monotonic()
            _save(checkpoint, named, optimizer, average, step, elapsed_s)
            if keep is not None:
                average.swap()
                keep()
                average.swap()
    _save(checkpoint, named, optimizer, average, step, elapsed_s)
    average.swap()


def _save(
    path: Path, named: list[tuple[str, nn.Parameter]], optimizer: Muon, average: Average, step: int, elapsed_s: float
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "live": {name: p.detach() for name, p in named},
        "mean": average.mean,
        "optimizer": optimizer.state_dict(),
        "step": step,
        "elapsed_s": elapsed_s,
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)  # a run killed while it writes keeps the checkpoint before


def _resume(path: Path, names: list[str], optimizer: Muon, average: Average) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True, map_location="cpu")
    if list(state["live"]) != names:
        raise ValueError(f"{path} is of another model; remove it or choose another --out")
    with torch.no_grad():
        for parameter, mean, name, held in zip(average.live, average.mean, names, state["mean"], strict=True):
            parameter.copy_(state["live"][name])
            mean.copy_(held)
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), float(state["elapsed_s"])
