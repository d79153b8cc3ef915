"""Run the image service: `python -m services.image`; `python -m services.image check` tries its providers."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import uvloop

from moa.image.v1 import image_service_pb2
from services.common import logs, memory, metrics, settings
from services.common.admission import VanishedCallers
from services.common.catalogue import CatalogueError, Watched, load
from services.common.http import checking
from services.common.rpc.client import channel
from services.common.rpc.server import Server, run
from services.image.servicer import ImageServicer, add_to_server
from services.image.settings import ImageSettings
from services.image.targets import Targets

CATALOGUE = "gateway/catalogue.yaml"


async def serve(config: ImageSettings, stop: asyncio.Event) -> None:
    try:
        catalogue = Watched(config.catalogue)
    except CatalogueError as error:
        raise SystemExit(str(error)) from None
    targets = Targets(os.environ)
    targets.report(catalogue.now)
    memory.give_back_freed()
    if config.metrics_port:
        metrics.serve(config.metrics_port, config.metrics_host)
    token = config.service_token.get_secret_value()
    auth = channel(config.auth_address)
    vanished = VanishedCallers(auth, service_token=token)
    await vanished.start()
    server = Server(service_token=token)
    add_to_server(ImageServicer(catalogue, targets, vanished), server.grpc)
    server.offer(image_service_pb2.DESCRIPTOR.services_by_name["ImageService"].full_name)
    port = await server.start(config.listen)
    logs.get("image").info("process.started", port=port)
    watching = asyncio.create_task(catalogue.watch())
    await stop.wait()
    watching.cancel()
    await server.stop(config.drain_s)
    await vanished.stop()
    await auth.close()
    await targets.close()


async def check(path: Path) -> bool:
    """Print how each provider fares; tell whether none failed."""
    try:
        catalogue = load(path)
    except CatalogueError as error:
        raise SystemExit(str(error)) from None
    findings = await checking.check_all(Targets(os.environ), catalogue, "image")
    print(checking.table(findings))
    return all(finding.state != "failed" for finding in findings)


def main() -> None:
    if sys.argv[1:] == ["check"]:
        logs.configure("image", "error")
        raise SystemExit(0 if uvloop.run(check(Path(os.environ.get("MOA_CATALOGUE", CATALOGUE)))) else 1)
    config = settings.read(ImageSettings)
    logs.configure("image", config.log_level)
    run(lambda stop: serve(config, stop))


if __name__ == "__main__":
    main()
