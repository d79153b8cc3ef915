"""Low-rank adapters, mixed per lane: each row of one call has its own adapters at its own scales.

An adapter's change is computed for every lane of a call in which any lane uses it, and added with the lane's scale, 0
for those that do not. Weights are never merged, so that lanes with different adapters share a call, and a lane without
any is bit-identical to the bare model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional

from inference.image.lanes import steadily
from services.common.errors import ModelMisconfigured

Scales = dict[str, Tensor]
"""Scale of each adapter by lane, (lanes, 1)."""

_KEY = re.compile(r"^(?P<place>.+)\.(?P<half>lora_A|lora_B|lora\.down|lora\.up|lora_down|lora_up)\.weight$")
_DOWN = ("lora_A", "lora.down", "lora_down")


@dataclass(slots=True)
class _Change:
    """One adapter's change of one layer: up(down(x)) * factor."""

    down: Tensor
    up: Tensor
    factor: float


class Adapters:
    """The adapters of one pipeline.

    Args:
        parts: The networks that adapters change, by the name that files give them (`unet`, `text_encoder`, …).
    """

    def __init__(self, parts: Mapping[str, torch.nn.Module]) -> None:
        self._parts = dict(parts)
        self._changes: dict[torch.nn.Module, dict[str, _Change]] = {}
        self._scales: Scales = {}
        self.names: tuple[str, ...] = ()

    def load(self, name: str, pipeline: Any, source: Path) -> None:
        """Read an adapter from safetensors. Raises ModelMisconfigured if it changes what this engine does not."""
        file = _file_of(source)
        state, alphas = pipeline.lora_state_dict(str(file), use_safetensors=True)[:2]
        ranks = _alphas_of(file)
        halves: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            found = _KEY.match(key)
            if found is None:
                raise ModelMisconfigured(f"adapter {name!r} holds {key!r}, which is not applied here")
            half = "down" if found["half"] in _DOWN else "up"
            halves.setdefault(found["place"], {})[half] = value
        for place, both in halves.items():
            rank = both["down"].shape[0]
            alpha = (alphas or {}).get(f"{place}.alpha", ranks.get(place.partition(".")[0], rank))
            self._attach(name, place, both["down"], both["up"], float(alpha) / rank)
        self.names = (*self.names, name)

    def _attach(self, name: str, place: str, down: Tensor, up: Tensor, factor: float) -> None:
        layer = self._layer(place)
        if layer is None:
            raise ModelMisconfigured(f"adapter {name!r} changes {place!r}, which this model does not have")
        if not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            raise ModelMisconfigured(f"adapter {name!r} changes {place!r}, which is no linear layer or convolution")
        if layer not in self._changes:
            self._changes[layer] = {}
            layer.register_forward_hook(self._changed)
        weight = layer.weight
        self._changes[layer][name] = _Change(down.to(weight.device, weight.dtype), up.to(weight), factor)

    def _layer(self, place: str) -> torch.nn.Module | None:
        """Find a layer by the place that a file names. Since transformers 5 text encoders lack one level of names."""
        part, _, path = place.partition(".")
        for spelled in (path, path.removeprefix("text_model."), f"text_model.{path}"):
            try:
                return self._parts[part].get_submodule(spelled)
            except (KeyError, AttributeError):
                continue
        return None

    @contextmanager
    def applied(self, scales: Scales) -> Iterator[None]:
        """Apply adapters in every call of the body whose first dimension is the lanes of `scales`."""
        self._scales = scales
        try:
            yield
        finally:
            self._scales = {}

    def _changed(self, layer: torch.nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Add the changes to a layer's output; a forward hook."""
        if not self._scales:
            return output
        changes = self._changes[layer]
        for name, scales in self._scales.items():
            change = changes.get(name)
            if change is not None:
                weights = (scales * change.factor).to(output).view(-1, *(1,) * (output.dim() - 1))
                output = output + weights * _product(layer, given[0], change)
        return output


def _product(layer: torch.nn.Module, given: Tensor, change: _Change) -> Tensor:
    # Encoders that are kept off the device come to it for their calls; so do their changes.
    down, up = change.down.to(given.device), change.up.to(given.device)
    if isinstance(layer, torch.nn.Linear):
        return steadily(steadily(given, down, None), up, None)
    assert isinstance(layer, torch.nn.Conv2d)
    inner = functional.conv2d(given, down, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return functional.conv2d(inner, up)


def _file_of(source: Path) -> Path:
    if source.is_file():
        return source
    files = sorted(source.glob("*.safetensors"))
    if len(files) != 1:
        raise ModelMisconfigured(f"adapter source {source.name!r} has {len(files)} safetensors files, not one")
    return files[0]


def _alphas_of(file: Path) -> dict[str, float]:
    """Return each part's alpha from the file's metadata (PEFT's configuration), where there is one."""
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata() or {}
    try:
        config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        return {}
    return {
        key.removesuffix(".lora_alpha"): float(value) for key, value in config.items() if key.endswith(".lora_alpha")
    }
