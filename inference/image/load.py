"""Load a diffusion pipeline, part by part."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from inference import hub, machine, sources
from inference.image.families import Family, family_of
from inference.image.loras import Adapters
from inference.image.tuning import tune
from services.catalogue import Model
from services.common.errors import ModelMisconfigured

Report = Callable[[str, float], None]

_LIBRARIES = {"diffusers": diffusers, "transformers": transformers}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A pipeline that is in memory."""

    family: Family
    adapters: Adapters
    revision: str
    size_bytes: int


def load(model: Model, report: Report) -> Loaded:
    """Load a catalogue model. Only safetensors are read, and no code of the repository is run.

    Raises ModelMisconfigured when the source has no pipeline, or one of a kind that the engine does not know.
    """
    assert model.load is not None
    source = sources.fetch(model.load, report)
    device = machine.device_of(model.load.device)
    dtype = machine.dtype_of(model.load.dtype, device)
    index = Path(source.folder) / "model_index.json"
    if not index.is_file():
        raise ModelMisconfigured(f"the source of model {model.id} has no model_index.json: not a diffusers pipeline")
    parts: dict[str, Any] = {}
    variant = str(model.load.options.get("variant", ""))
    listed = {
        name: spec
        for name, spec in json.loads(index.read_text()).items()
        if not name.startswith("_") and isinstance(spec, list)
    }
    for done, (name, (library, kind)) in enumerate(listed.items()):
        report(name, 0.1 + 0.8 * done / len(listed))
        if name in hub.UNUSED or kind is None:
            parts[name] = None
        else:
            parts[name] = _part(Path(source.folder) / name, library, kind, dtype, variant)
    report("assembling", 0.9)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(source.folder, **parts)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    report("device", 0.95)
    kept_off = tuple(model.load.options.get("offload", ()))
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module) and name not in kept_off:
            part.to(device)
    family = family_of(pipeline, model.load.options)
    family.device = torch.device(device)
    networks = {k: v for k, v in pipeline.components.items() if isinstance(v, torch.nn.Module) and k != "vae"}
    adapters = Adapters(networks)
    for name, place in sorted(dict(model.load.options.get("loras", {})).items()):
        report(f"adapter {name}", 0.97)
        adapters.load(name, pipeline, sources.fetch_adapter(str(place), Path(source.folder)))
    report("tuning", 0.98)
    tune(family, model.load.options)
    return Loaded(family, adapters, source.revision, _size(pipeline))


def _part(folder: Path, library: str, kind: str, dtype: object, variant: str) -> Any:
    """Load one component by the class that the pipeline's index names, from the two known libraries only."""
    module = _LIBRARIES.get(library)
    cls: Any = getattr(module, kind, None) if module is not None else None
    if cls is None:
        raise ModelMisconfigured(f"the pipeline's part {folder.name!r} is a {library}.{kind}, which is not loaded here")
    if _is_network(cls):
        return cls.from_pretrained(folder, use_safetensors=True, dtype=dtype, variant=hub.variant_in(folder, variant))
    return cls.from_pretrained(folder)


def _is_network(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, torch.nn.Module)


def _size(pipeline: Any) -> int:
    modules = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    return sum(p.numel() * p.element_size() for module in modules for p in module.parameters())
