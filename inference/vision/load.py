"""Load a vision model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference import machine, sources
from inference.vision.families import LOADERS, Family, Files, Report
from services.catalogue import Model
from services.common.errors import ModelMisconfigured


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is in memory."""

    family: Family
    revision: str


def load(model: Model, report: Report) -> Loaded:
    """Load a catalogue model. Only safetensors are read, and no code of the repository is run.

    Raises ModelMisconfigured when the source has no model, or one of a kind that is not known here.
    """
    assert model.load is not None
    source = sources.fetch(model.load, report)
    folder = Path(source.folder)
    described = folder / "config.json"
    if not described.is_file():
        raise ModelMisconfigured(f"the source of model {model.id} has no config.json: not a transformers model")
    kind = str(json.loads(described.read_text()).get("model_type", ""))
    kind = kind if model.load.family == "auto" else model.load.family
    loader = LOADERS.get(kind)
    if loader is None:
        raise ModelMisconfigured(f"model {model.id} is of kind {kind!r}, which is not known here")
    device = machine.device_of(model.load.device)
    dtype: Any = machine.dtype_of(model.load.dtype, device)
    report("weights", 0.3)
    return Loaded(loader(Files(folder, device, dtype, model.load.options)), source.revision)
