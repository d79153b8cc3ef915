"""Checkpoints of unfinished pictures, from which another worker goes on and gives the same bytes.

A picture's file holds its latents, its generator's state and its scheduler's, as safetensors; what the start of a
picture derives from the request alone is derived again. Nothing in a file is executed when it is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from inference.image.ask import ImageAsk
from inference.image.order import Order, Picture
from services.common import logs

_log = logs.get("checkpoints")

KEEP_S = 24 * 3600.0
"""How long a file is kept that nobody asked for again."""

_CONFIG = "_internal_dict"


class Checkpoints:
    """Files in a folder that workers share.

    Args:
        folder: Where they are.
        every: Steps between two files of a picture.
        revision: Of the weights; a checkpoint of other weights is not used.
        workers: Where files are written.
    """

    def __init__(self, folder: Path, *, every: int, revision: str, workers: Executor) -> None:
        self._folder = folder
        self._every = every
        self._revision = revision
        self._workers = workers
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("*.safetensors"):
            if file.stat().st_mtime < time.time() - KEEP_S:
                file.unlink(missing_ok=True)

    def note(self, picture: Picture) -> None:
        """Keep a picture if one is due: every so many steps, and after the last."""
        if not picture.order.key or (picture.at % self._every and picture.at < picture.steps):
            return
        tensors: dict[str, Tensor] = {
            "latents": picture.latents.contiguous().clone(),
            "generator": picture.generator.get_state(),
        }
        state = {k: _held(v, f"scheduler.{k}", tensors) for k, v in vars(picture.scheduler).items() if k != _CONFIG}
        facts = {
            "at": picture.at,
            "ask": _digest(picture.order.ask, self._revision),
            "scheduler": {name: value for name, value in state.items() if value is not _SKIPPED},
        }
        self._workers.submit(self._write, self._file(picture.order, picture.index), tensors, facts)

    def seed(self, order: Order) -> int | None:
        """Return the seed that an order with a drawn seed had when it was first begun."""
        with contextlib.suppress(OSError, ValueError):
            return int(self._seed_file(order).read_text())
        return None

    def begin(self, order: Order) -> None:
        """Keep the order's seed, which may have been drawn."""
        if not order.key:
            return
        try:
            _replace(self._seed_file(order), str(order.ask.seed).encode())
        except OSError:
            _log.exception("checkpoint.failed")  # the order goes on without

    def restore(self, picture: Picture) -> bool:
        """Put a freshly started picture where its checkpoint was; tell whether there was one that fits."""
        if not picture.order.key:
            return False
        try:
            with safe_open(self._file(picture.order, picture.index), framework="pt") as file:
                facts = json.loads((file.metadata() or {})["facts"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        except (OSError, SafetensorError, KeyError, ValueError):
            return False
        if facts["ask"] != _digest(picture.order.ask, self._revision):
            return False
        picture.latents = tensors["latents"].to(picture.latents)
        picture.generator.set_state(tensors["generator"])
        for name, value in facts["scheduler"].items():
            setattr(picture.scheduler, name, _given(value, tensors))
        picture.at = int(facts["at"])
        _log.info("picture.resumed", at=picture.at, steps=picture.steps)
        return True

    def forget(self, order: Order) -> None:
        """Drop an order's files once it was delivered."""
        if order.key:
            for index in range(order.ask.count):
                self._file(order, index).unlink(missing_ok=True)
            self._seed_file(order).unlink(missing_ok=True)

    def _file(self, order: Order, index: int) -> Path:
        return self._folder / f"{_name(order)}-{index}.safetensors"

    def _seed_file(self, order: Order) -> Path:
        return self._folder / f"{_name(order)}.seed"

    def _write(self, file: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        partial = file.with_suffix(f".{os.getpid()}.partial")
        try:
            save_file(tensors, partial, metadata={"facts": json.dumps(facts)})
            partial.replace(file)
        except (OSError, SafetensorError):
            _log.exception("checkpoint.failed")  # the picture goes on without


def _name(order: Order) -> str:
    return hashlib.sha256(f"{order.flow.tenant}\0{order.key}".encode()).hexdigest()[:40]


def _replace(file: Path, data: bytes) -> None:
    partial = file.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(data)
    partial.replace(file)


def _digest(ask: ImageAsk, revision: str) -> str:
    return hashlib.sha256(repr((revision, dataclasses.astuple(ask))).encode()).hexdigest()


_SKIPPED = object()


def _held(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return a JSON form of a scheduler's attribute; tensors go to `tensors`. What has no form is skipped."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value.copy())
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name, "device": str(value.device)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        held = [_held(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
        return _SKIPPED if any(item is _SKIPPED for item in held) else held
    return _SKIPPED


def _given(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        return tensors[value["tensor"]].to(value["device"])
    if isinstance(value, list):
        return [_given(item, tensors) for item in value]
    return value
