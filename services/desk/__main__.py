"""Run the desk service: `python -m services.desk`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from moa.desk.v1 import desk_service_pb2, desk_service_pb2_grpc
from services.catalogue import CatalogueError, load
from services.common import logs, memory, metrics, settings
from services.common.credential import credential_of
from services.common.egress import Egress
from services.common.errors import MoaError
from services.common.rpc.client import channel
from services.common.rpc.replicas import Replicas
from services.common.rpc.server import Server, run
from services.common.rpc.tls import tls_of
from services.common.store import links_of, store_of
from services.desk import health
from services.desk.adapters.fetch import Fetcher
from services.desk.adapters.naver import Naver
from services.desk.adapters.parts import RouterPainter, VisionClient
from services.desk.domain.pipeline import Pipeline, Style
from services.desk.servicer import DeskServicer
from services.desk.settings import DeskSettings
from services.quota_client import grants


def _version() -> str:
    """Read the version where the project states it, beside the packages."""
    for line in (Path(__file__).parents[2] / "pyproject.toml").read_text().splitlines():
        if line.startswith("version = "):
            return line.partition('"')[2].rstrip('"')
    return "unknown"


def _max_side(config: DeskSettings) -> int:
    """Return the longest side that is asked for: a small model answers large sizes with nonsense."""
    if config.desk_max_side:
        return config.desk_max_side
    try:
        defaults = load(config.catalogue).find(config.desk_model).defaults
    except CatalogueError as error:
        raise SystemExit(f"bad setting MOA_CATALOGUE: {error}") from None
    except MoaError as error:
        # Most catalogues of one's own lack the shipped models. The rest of the desk's work needs none.
        logs.get("desk").warning(
            "desk.model_unknown", model=config.desk_model, setting="MOA_DESK_MODEL", why=str(error)
        )
        return 1024
    return max(int(defaults.get("width", 1024)), int(defaults.get("height", 1024)))


@asynccontextmanager
async def serve(config: DeskSettings) -> AsyncIterator[int]:
    """Serve until the block ends, then drain; yield the port."""
    metrics.serve(config)
    token = credential_of(config)
    tls = tls_of(config)
    router = channel(config.router_address, "router", tls)
    vision = channel(config.vision_address, "inference", tls)
    store = store_of(config)
    egress = Egress(config.egress_allow.split(","))
    naver = Naver(
        config.naver_url,
        client_id=config.naver_client_id.get_secret_value(),
        client_secret=config.naver_client_secret.get_secret_value(),
        count=config.naver_count,
    )
    style = Style(
        model=config.desk_model,
        lora=config.desk_lora,
        lora_scale=config.desk_lora_scale,
        trigger=config.desk_trigger,
        words=config.desk_style,
        strength=config.desk_strength,
        max_side=_max_side(config),
    )
    fetcher = Fetcher(egress, store, links_of(config))
    replicas = Replicas(config.vision_address, "inference", service_token=token, tls=tls, zone=config.zone)
    looking = VisionClient(vision, service_token=token, replicas=replicas)

    def pipeline(acting: grants.ActingFor) -> Pipeline:
        painter = RouterPainter(router, service_token=token, acting=acting)
        return Pipeline(style=style, fetch=fetcher, vision=looking, painter=painter, shops=naver)

    checks = {
        "vision": health.of_service(vision, "moa.vision.v1.VisionService"),
        "image": health.of_service(router, "moa.image.v1.ImageService"),
        "shopping": health.of_shops(naver),
        "store": health.of_store(store),
    }
    server = Server(service_token=token, connection_age_s=config.connection_age_s, tls=tls)
    servicer = DeskServicer(pipeline, checks, style, version=_version(), service_token=token)
    desk_service_pb2_grpc.add_DeskServiceServicer_to_server(servicer, server.grpc)
    server.offer(desk_service_pb2.DESCRIPTOR.services_by_name["DeskService"].full_name)
    port = await server.start(config.listen)
    replicas.watch()
    logs.get("desk").info("desk.started", port=port, model=style.model)
    try:
        yield port
    finally:
        await server.stop(config.drain_s)
        await replicas.aclose()
        await naver.aclose()
        await egress.aclose()
        await store.aclose()


async def main(config: DeskSettings, stop: asyncio.Event) -> None:
    memory.give_back_freed()
    async with serve(config):
        await stop.wait()


if __name__ == "__main__":
    read = settings.read(DeskSettings)
    logs.configure("desk", read.log_level)
    run(lambda stop: main(read, stop), "desk")
