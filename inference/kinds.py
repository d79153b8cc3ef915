"""The kinds of models of one's own: each is a package here, whose module `kind` declares it as `KIND`.

Nothing lists them. A kind says how its models are loaded into engines, what its rows may say to them, and who serves
them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
from msgspec import Struct

import inference
from inference import machine
from inference.engine import Engine, Report
from inference.registry import Registry
from inference.settings import InferenceSettings
from inference.shared_thread import SharedThread
from services.catalogue import Catalogue, Model, Watched, option_fault
from services.quota_client import AbandonedCalls


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What models are loaded with."""

    settings: InferenceSettings
    workers: Executor
    """Where images are encoded."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the servicers of models are made of."""

    catalogue: Watched
    registry: Registry
    settings: InferenceSettings
    workers: Executor
    reading: SharedThread
    abandoned: AbandonedCalls


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of models.

    Args:
        makes: What they make, as catalogue rows say it.
        service: The full name of the gRPC service that asks them.
        options: What their rows may say to their engines (`load.options`).
        load: Loads one into an engine, in the loader's thread, where it imports what takes seconds. Raises
            ModelMisconfigured.
        serve: Adds their servicer to a server.
        needs_torch: Whether torch is brought up before one is loaded; else `load` does so where it must.
    """

    makes: str
    service: str
    options: type[Struct]
    load: Callable[[Model, Report, Loading], Engine[Any, Any, Any]]
    serve: Callable[[Parts, grpc.aio.Server], None]
    needs_torch: bool = True


@cache
def kinds() -> Mapping[str, Kind]:
    """Return every kind, by what its models make."""
    packages = sorted(path.parent.name for path in Path(inference.__path__[0]).glob("*/kind.py"))
    modules = [import_module(f"{inference.__name__}.{name}.kind") for name in packages]
    return {module.KIND.makes: module.KIND for module in modules}


def fault_in(catalogue: Catalogue) -> str:
    """Return what is wrong with the options of a model that is loaded here; empty when nothing is."""
    for model in (*catalogue.models, *catalogue.vision):
        if model.load is None:
            continue
        kind = kinds().get(catalogue.makes(model))
        if kind is None:
            return f"model {model.id}: no model that makes {catalogue.makes(model)} runs here"
        if fault := option_fault(model.load.options, kind.options):
            return f"model {model.id}: load.{fault}"
    return ""


class Builder:
    """Builds engines.

    Args:
        settings: The process's settings.
        catalogue: Says what a model's provider makes.
        workers: Where images are encoded.
    """

    def __init__(self, settings: InferenceSettings, catalogue: Watched, workers: Executor) -> None:
        self._loading = Loading(settings=settings, workers=workers)
        self._catalogue = catalogue

    def __call__(self, model: Model, report: Report) -> Engine[Any, Any, Any]:
        """Load a model and warm it. Raises ModelMisconfigured when it cannot be."""
        kind = kinds()[self._catalogue.now.makes(model)]
        if kind.needs_torch:
            report("torch", 0.0)
            machine.bring_up(self._loading.settings.torch_threads)
        engine = kind.load(model, report, self._loading)
        engine.warm(report)
        return engine
