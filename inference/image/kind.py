"""Image models of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import grpc

from inference import options
from inference.engine import Engine, Report
from inference.image.servicer import ImageServicer
from inference.kinds import Kind, Loading, Parts
from inference.options import ImageOptions
from moa.image.v1.image_service_pb2_grpc import add_ImageServiceServicer_to_server
from services.catalogue import Model


def _load(model: Model, report: Report, loading: Loading) -> Engine[Any, Any, Any]:
    from inference.image.checkpoints import Checkpoints
    from inference.image.engine import ImageEngine
    from inference.image.load import load

    chosen = options.of(model, ImageOptions)
    loaded = load(model, report)
    settings, workers = loading.settings, loading.workers
    checkpoints = None
    if settings.checkpoints is not None:
        checkpoints = Checkpoints(
            settings.checkpoints, every=settings.checkpoint_every, revision=loaded.revision, workers=workers
        )
    on_cpu = loaded.family.device.type == "cpu"
    return ImageEngine(
        model.id,
        loaded.family,
        adapters=loaded.adapters,
        revision=loaded.revision,
        size_bytes=loaded.size_bytes,
        workers=workers,
        most_lanes=chosen.most_lanes or (8 if on_cpu else 16),
        fixed_lanes=(0 if on_cpu else 8) if chosen.fixed_lanes is None else chosen.fixed_lanes,
        max_waiting=chosen.max_waiting,
        memory_bytes=chosen.memory_bytes,
        warmed=_warmed(model, chosen),
        checkpoints=checkpoints,
    )


def _warmed(model: Model, chosen: ImageOptions) -> Sequence[tuple[int, int]]:
    """Return the sizes that a model is warmed for: the option's; compiled ones at least for the default size."""
    if chosen.warm is not None or chosen.compile is None:
        return chosen.warm or ()
    return [(int(model.defaults.get("width", 512)), int(model.defaults.get("height", 512)))]


def _serve(parts: Parts, server: grpc.aio.Server) -> None:
    servicer = ImageServicer(parts.catalogue, parts.registry, parts.workers, parts.abandoned)
    add_ImageServiceServicer_to_server(servicer, server)


KIND: Final = Kind(makes="image", service="moa.image.v1.ImageService", options=ImageOptions, load=_load, serve=_serve)
