"""Models of one's own that look at images for the gateway's services."""

from __future__ import annotations

from typing import Any, Final

import grpc

from inference import options
from inference.engine import Engine, Report
from inference.kinds import Kind, Loading, Parts
from inference.options import VisionOptions
from inference.vision.servicer import VisionServicer
from moa.vision.v1.vision_service_pb2_grpc import add_VisionServiceServicer_to_server
from services.catalogue import Model


def _load(model: Model, report: Report, loading: Loading) -> Engine[Any, Any, Any]:
    from inference.vision.engine import VisionEngine
    from inference.vision.load import load

    loaded = load(model, report)
    return VisionEngine(model.id, loaded.family, max_waiting=options.of(model, VisionOptions).max_waiting)


def _serve(parts: Parts, server: grpc.aio.Server) -> None:
    settings = parts.settings
    looks = {"caption": settings.vision_caption, "detect": settings.vision_detect, "judge": settings.vision_judge}
    servicer = VisionServicer(parts.catalogue, parts.registry, parts.workers, looks)
    add_VisionServiceServicer_to_server(servicer, server)


KIND: Final = Kind(
    makes="vision", service="moa.vision.v1.VisionService", options=VisionOptions, load=_load, serve=_serve
)
