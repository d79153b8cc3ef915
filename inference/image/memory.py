"""Predict how much memory a call takes, before it is made.

The call is run on fake tensors, which have shapes but no data; every storage that it makes is counted while it lives.
What kernels allocate for themselves is not seen: `SLACK` stands for it.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from inference.image.families import Condition, Family

SLACK = 2.0
"""How many times the counted storages a call may take (measured on CPU: 1.6, for the convolutions' own buffers)."""
_CGROUP = Path("/sys/fs/cgroup")


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of living storages that were made inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen: set[int] = set()
        self._living = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        given = {id(t.untyped_storage()) for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_iter(output):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage(), given)
        return output

    def _count(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key = storage._cdata
        if key in self._seen or id(storage) in given:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self._living += size
        self.peak = max(self.peak, self._living)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._living -= size


def peak_bytes(call: Callable[[], Any]) -> int:
    """Return the most bytes that `call` holds at once beside what exists already. Nothing is computed."""
    counting = _Counting()
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), counting:
        call()
    return int(counting.peak * SLACK)


def available_bytes(device: torch.device) -> int:
    """Return how many bytes a call may still take on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else ():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    try:
        most = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no control group, or one without a bound
        return free
    return min(free, most - used)


@dataclass(frozen=True, slots=True)
class _Predicted:
    """What was predicted of a pipeline, by the picture's size."""

    lane_bytes: dict[tuple[int, int], int] = field(default_factory=dict)
    decode_bytes: dict[tuple[int, int], int] = field(default_factory=dict)


_PREDICTED: weakref.WeakKeyDictionary[Family, _Predicted] = weakref.WeakKeyDictionary()
"""A prediction takes as long as dozens of steps of a small model: it stands for as long as its pipeline."""


class Budget:
    """How large a call may be. Budgets over one pipeline share what was predicted of it.

    Args:
        family: The pipeline.
        limit_bytes: Most bytes of one call; 0: what the device has left.
    """

    def __init__(self, family: Family, limit_bytes: int = 0) -> None:
        self._family = family
        self._limit_bytes = limit_bytes
        predicted = _PREDICTED.setdefault(family, _Predicted())
        self._lane_bytes, self._decode_bytes = predicted.lane_bytes, predicted.decode_bytes

    def lanes(self, width: int, height: int, condition: Condition) -> int:
        """Return how many lanes of a size fit into one call; 0: none, or the decoded picture does not."""
        room = self._limit_bytes or available_bytes(self._family.device)
        if _known(self._decode_bytes, width, height, lambda: self._decoding(width, height)) > room:
            return 0
        return room // max(
            1, _known(self._lane_bytes, width, height, lambda: self._denoising(width, height, condition))
        )

    def need(self, width: int, height: int) -> int:
        """Return the bytes that one picture of a size is predicted to need, once `lanes` was asked for it."""
        sizes = (self._decode_bytes, self._lane_bytes)
        return max(_known(known, width, height, lambda: 0) for known in sizes)

    def _denoising(self, width: int, height: int, condition: Condition) -> int:
        family = self._family
        lane = condition.lanes[0]
        shape = tuple(family.packed(torch.empty(family.latent_shape(width, height), device="meta")).shape)

        def call() -> Tensor:
            inputs = {k: torch.empty(v.shape, dtype=v.dtype, device=family.device) for k, v in lane.items()}
            latents = torch.empty(shape, dtype=family.dtype, device=family.device)
            return family.forward(latents, torch.empty(1, device=family.device), inputs)

        with family.uncompiled():
            return peak_bytes(call)

    def _decoding(self, width: int, height: int) -> int:
        family = self._family
        _, channels, down, across = family.latent_shape(width, height)
        kind = {"dtype": family.vae.dtype, "device": family.device}
        return peak_bytes(lambda: family.vae.decode(torch.empty(1, channels, down, across, **kind), return_dict=False))


def _known(sizes: dict[tuple[int, int], int], width: int, height: int, predict: Callable[[], int]) -> int:
    """Return a size's bytes: those of a known size that is hardly larger, else predicted."""
    area = width * height
    larger = [size for (w, h), size in sizes.items() if w >= width and h >= height and w * h <= 2 * area]
    if not larger:
        larger = [sizes.setdefault((width, height), predict())]
    return min(larger)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an operation failed for want of memory. On CPU torch has no class of its own for that."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def release_memory() -> None:
    """Give cached blocks back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
