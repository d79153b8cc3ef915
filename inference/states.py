"""`moa.inference.v1.ModelService`: how far the models are."""

from __future__ import annotations

from typing import Any

from inference.catalogued import of_pool
from inference.packages import Packages
from inference.registry import Registry
from moa.inference.v1 import model_service_pb2, model_service_pb2_grpc
from services.catalogue import Model, Watched


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Tells of fetches and loads.

    Args:
        catalogue: Which models there are.
        registry: Loads them.
        packages: Fetches their files.
        pool: Of which pool's models it tells.
    """

    def __init__(self, catalogue: Watched, registry: Registry, packages: Packages, pool: str = "") -> None:
        self._catalogue = catalogue
        self._pool = pool
        self._registry = registry
        self._packages = packages

    async def ListModelStates(
        self, request: model_service_pb2.ListModelStatesRequest, context: Any
    ) -> model_service_pb2.ListModelStatesResponse:
        """Tell how far each model is."""
        states = [self._status(model) for model in of_pool(self._catalogue, self._pool)]
        return model_service_pb2.ListModelStatesResponse(states=states)

    def _status(self, model: Model) -> model_service_pb2.ModelStatus:
        assert model.load is not None
        found = model_service_pb2.ModelStatus(model=model.full_id, state=model_service_pb2.MODEL_STATE_READY)
        standing = self._packages.standing(model.load)
        loading = self._registry.loading(model)
        if standing.state == "absent":
            found.state, found.detail = model_service_pb2.MODEL_STATE_ABSENT, standing.detail
        elif standing.state == "loading":
            found.state, found.percent = model_service_pb2.MODEL_STATE_LOADING, standing.percent
        elif loading is not None:
            found.state, found.percent = model_service_pb2.MODEL_STATE_LOADING, min(99, int(100 * loading))
        return found
