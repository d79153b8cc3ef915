"""The inference process: text, image and vision models of one's own behind gRPC."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from inference import machine
from inference.catalogued import any_named, of_pool
from inference.kinds import Builder, Parts, fault_in, kinds
from inference.needs import available_bytes, needed_bytes
from inference.packages import Packages
from inference.registry import Registry
from inference.settings import InferenceSettings
from inference.shared_thread import SharedThread
from inference.states import ModelServicer
from moa.inference.v1 import model_service_pb2_grpc
from services.catalogue import CatalogueError, Watched, last_good_of
from services.common import logs, metrics, settings
from services.common.credential import credential_of
from services.common.errors import MoaError
from services.common.rpc.client import channel
from services.common.rpc.server import Server, run
from services.common.rpc.tls import tls_of
from services.quota_client import AbandonedCalls

_log = logs.get("inference")


class Process:
    """The parts of the inference process, wired.

    Args:
        config: Its settings.

    Raises CatalogueError when the catalogue is bad.
    """

    def __init__(self, config: InferenceSettings) -> None:
        self.config = config
        self.catalogue = Watched(config.catalogue, check=fault_in, last_good=last_good_of(config, "inference"))
        self.workers = ThreadPoolExecutor(2, thread_name_prefix="worker")
        self.reading = SharedThread("reading", busy=lambda: self.registry.busy)
        builder = Builder(config, self.catalogue, self.workers)
        self.packages = Packages(config.packages, clock=time.monotonic, fetches=config.fetch != "never")
        self.registry = Registry(
            builder,
            budget_bytes=config.model_bytes,
            tidy=machine.tidy,
            locate=self.packages.located,
            needs=needed_bytes,
            available=available_bytes,
            wait_s=config.room_wait_s,
            lower=machine.lower_priority,
        )
        token = credential_of(config)
        tls = tls_of(config)
        self.auth = channel(config.auth_address, "auth", tls)
        self.abandoned = AbandonedCalls(self.auth, service_token=token, after_s=config.left_call_s)
        self.is_warm = not config.listed(config.preload)
        """Whether the models of `MOA_PRELOAD` are loaded, or cannot be."""
        self.server = Server(
            service_token=token, connection_age_s=config.connection_age_s, tls=tls, ready=lambda: self.is_warm
        )
        parts = Parts(
            catalogue=self.catalogue,
            registry=self.registry,
            settings=config,
            workers=self.workers,
            reading=self.reading,
            abandoned=self.abandoned,
        )
        for kind in kinds().values():
            kind.serve(parts, self.server.grpc)
            self.server.offer(kind.service)
        states = ModelServicer(self.catalogue, self.registry, self.packages, config.pool, config.zone)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(states, self.server.grpc)
        self.server.offer("moa.inference.v1.ModelService")

    async def start(self) -> None:
        """Open the port, then begin to fetch and to preload."""
        await self.abandoned.start()
        self.port = await self.server.start(self.config.listen)
        _log.info("inference.started", port=self.port)
        self._background = [
            asyncio.create_task(self.catalogue.watch()),
            asyncio.create_task(self._warm()),
        ]

    async def _warm(self) -> None:
        loads = {model.full_id: model.load for model in of_pool(self.catalogue, self.config.pool) if model.load}
        if self.config.fetch == "early":
            for load in loads.values():
                self.packages.want(load)
        rows = [name for name, load in loads.items() if load.warm]
        preloaded = self.config.listed(self.config.preload)
        for number, name in enumerate(dict.fromkeys((*preloaded, *rows))):
            self.is_warm = self.is_warm or number >= len(set(preloaded))
            try:
                model = any_named(self.catalogue, name)
                if model.load is not None:
                    await asyncio.to_thread(self.packages.awaited, model.load)
                await self.registry.warm(model)
            except MoaError as error:
                _log.error("model.not_preloaded", model=name, why=error.message)
        self.is_warm = True

    async def stop(self) -> None:
        """Let running calls end within the drain time, then stop the engines."""
        for task in self._background:
            task.cancel()
        self.abandoned.ending()
        await self.server.stop(self.config.drain_s)
        await self.abandoned.stop()
        await self.auth.close()
        await self.registry.close()
        await asyncio.to_thread(self.packages.close)
        self.workers.shutdown(wait=False, cancel_futures=True)
        self.reading.stop()


@asynccontextmanager
async def serve(config: InferenceSettings) -> AsyncIterator[Process]:
    """Serve until the block ends, then drain; yield the process, which has its port.

    Raises CatalogueError when the catalogue is bad.
    """
    process = Process(config)
    metrics.serve(config)
    await process.start()
    try:
        yield process
    finally:
        await process.stop()


async def main(stop: asyncio.Event) -> None:
    """Serve until told to stop."""
    config = settings.read(InferenceSettings)
    logs.configure("inference", config.log_level)
    try:
        async with serve(config):
            await stop.wait()
    except CatalogueError as error:
        raise SystemExit(f"bad setting MOA_CATALOGUE: {error}") from None


if __name__ == "__main__":
    run(main, "inference")
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread may still be importing torch, and taking torch down costs seconds; nothing is left to be saved.
    os._exit(0)
