"""Embedding models of one's own."""

from __future__ import annotations

from typing import Any, Final

import grpc

from inference import options
from inference.embedding.servicer import EmbeddingServicer
from inference.engine import Engine, Report
from inference.kinds import Kind, Loading, Parts
from inference.options import EmbeddingOptions
from moa.embedding.v1.embedding_service_pb2_grpc import add_EmbeddingServiceServicer_to_server
from services.catalogue import Model


def _load(model: Model, report: Report, loading: Loading) -> Engine[Any, Any, Any]:
    from inference.embedding.engine import EmbeddingEngine
    from inference.embedding.model import load

    chosen = options.of(model, EmbeddingOptions)
    encoder = load(model, report)
    return EmbeddingEngine(model.id, encoder, batch_tokens=chosen.batch_tokens, max_waiting=chosen.max_waiting)


def _serve(parts: Parts, server: grpc.aio.Server) -> None:
    servicer = EmbeddingServicer(parts.catalogue, parts.registry, parts.reading, parts.abandoned)
    add_EmbeddingServiceServicer_to_server(servicer, server)


KIND: Final = Kind(
    makes="embedding", service="moa.embedding.v1.EmbeddingService", options=EmbeddingOptions, load=_load, serve=_serve
)
