"""`moa.inference.v1.ModelService`: how far the models are."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from inference import machine
from inference.catalogued import of_pool
from inference.packages import Packages
from inference.registry import Held, Registry
from moa.inference.v1 import model_service_pb2, model_service_pb2_grpc
from services.catalogue import Model, Watched


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Tells of fetches and loads.

    Args:
        catalogue: Which models there are.
        registry: Loads them.
        packages: Fetches their files.
        pool: Of which pool's models it tells.
        zone: Where it runs.
    """

    def __init__(
        self, catalogue: Watched, registry: Registry, packages: Packages, pool: str = "", zone: str = ""
    ) -> None:
        self._catalogue = catalogue
        self._pool = pool
        self._zone = zone
        self._registry = registry
        self._packages = packages

    async def ListModelStates(
        self, request: model_service_pb2.ListModelStatesRequest, context: Any
    ) -> model_service_pb2.ListModelStatesResponse:
        """Tell how far each model is."""
        states = [self._status(model) for model in of_pool(self._catalogue, self._pool)]
        return model_service_pb2.ListModelStatesResponse(states=states)

    async def DescribeEngines(
        self, request: model_service_pb2.DescribeEnginesRequest, context: Any
    ) -> model_service_pb2.DescribeEnginesResponse:
        """Describe what is in memory and what is done."""
        devices = await asyncio.to_thread(machine.devices)
        return model_service_pb2.DescribeEnginesResponse(
            process=f"{socket.gethostname()}:{os.getpid()}",
            pool=self._pool,
            devices=[
                model_service_pb2.Device(
                    name=seen.name,
                    description=seen.description,
                    total_bytes=seen.total_bytes,
                    free_bytes=seen.free_bytes,
                )
                for seen in devices
            ],
            engines=[self._engine(held) for held in self._registry.held()],
            budget_bytes=self._registry.budget_bytes,
            zone=self._zone,
        )

    def _engine(self, held: Held) -> model_service_pb2.EngineReport:
        model = held.model
        assert model.load is not None
        report = model_service_pb2.EngineReport(
            model=model.full_id,
            makes=self._catalogue.now.makes(model),
            device=model.load.device,
            size_bytes=held.need,
            users=held.users,
        )
        if held.engine is None:
            report.state, report.stage = model_service_pb2.MODEL_STATE_LOADING, held.stage
            report.percent = min(99, int(100 * held.part))
            return report
        report.state = model_service_pb2.MODEL_STATE_READY
        standing = held.engine.standing()
        report.waiting, report.running, report.most_rows = standing.waiting, standing.running, standing.most_rows
        if standing.work_s is not None:
            report.work_seconds = standing.work_s
        report.steps_per_second, report.rows_per_step, report.busy = standing.rates
        report.steps = standing.steps
        return report

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
