"""Run the router: `python -m services.router`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from moa.embedding.v1 import embedding_service_pb2, embedding_service_pb2_grpc
from moa.image.v1 import image_service_pb2, image_service_pb2_grpc
from moa.router.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    files_service_pb2,
    files_service_pb2_grpc,
    google_service_pb2,
    google_service_pb2_grpc,
    native_service_pb2,
    native_service_pb2_grpc,
    openai_service_pb2,
    openai_service_pb2_grpc,
    readiness_service_pb2,
    readiness_service_pb2_grpc,
)
from moa.text.v1 import text_service_pb2, text_service_pb2_grpc
from services.common import logs, memory, metrics, settings
from services.common.admission import Admission
from services.common.catalogue import CatalogueError, Watched
from services.common.egress import Egress
from services.common.rpc import server
from services.common.rpc.client import channel
from services.common.store import links_of, store_of
from services.router.adapters.backends import Backends
from services.router.adapters.claims import Claims
from services.router.adapters.encoders import InferenceEncoders
from services.router.adapters.fetching import Fetching
from services.router.adapters.inputs import Inputs
from services.router.adapters.model_states import ModelStates
from services.router.dialects.google.servicer import GoogleServicer
from services.router.dialects.native.servicer import NativeServicer
from services.router.dialects.openai.image_reply import Shelf
from services.router.dialects.openai.servicer import OpenAIServicer
from services.router.domain.embeddings import Embeddings
from services.router.domain.listing import Listing
from services.router.domain.operations import Operations
from services.router.files import FilesServicer
from services.router.gate import Gate
from services.router.grpc_api import CatalogServicer, EmbeddingServicer, ImageServicer, TextServicer
from services.router.idempotency.once import Once
from services.router.readiness import ReadinessServicer
from services.router.refusals import Refusals
from services.router.serving import own_keys
from services.router.settings import RouterSettings


@asynccontextmanager
async def serve(config: RouterSettings) -> AsyncIterator[int]:
    """Serve until the block ends, then drain; yield the port. Raises CatalogueError when the catalogue is bad."""
    watched = Watched(config.catalogue)
    metrics.serve(config)
    token = config.service_token.get_secret_value()

    def catalogue() -> object:
        return watched.now

    auth = channel(config.auth_address)
    admission = Admission(auth, service_token=token, journal=config.state_dir)
    channels = {"text": channel(config.text_address), "inference": channel(config.inference_address)}
    if config.image_address:
        channels["image"] = channel(config.image_address)
    backends = Backends(channels, service_token=token, catalogue=catalogue)
    store, links = store_of(config), links_of(config)
    egress = Egress(config.egress_allow.split(","))
    inputs = Fetching(Inputs(egress=egress, store=store, links=links))
    operations = Operations(catalogue=lambda: watched.now, admission=admission, backends=backends, inputs=inputs)
    states = ModelStates(channels["inference"], service_token=token)
    listing = Listing(catalogue=lambda: watched.now, admission=admission, states=states.now)

    refusals = Refusals(admission, own_keys=config.byok)
    begin = own_keys(token, allowed=config.byok)
    claims = Claims(auth, service_token=token)
    once = Once(admission, claims, begin=begin, secret=token)
    serving = server.Server(service_token=None, reword=refusals, welcome=refusals.welcome, around=once.around)
    text_service_pb2_grpc.add_TextServiceServicer_to_server(TextServicer(operations), serving.grpc)
    image_service_pb2_grpc.add_ImageServiceServicer_to_server(ImageServicer(operations), serving.grpc)
    catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(CatalogServicer(listing, catalogue), serving.grpc)
    encoders = InferenceEncoders(channels["inference"], service_token=token)
    embeddings = Embeddings(catalogue=lambda: watched.now, admission=admission, encoders=encoders)
    embedding_service_pb2_grpc.add_EmbeddingServiceServicer_to_server(EmbeddingServicer(embeddings), serving.grpc)
    native_service_pb2_grpc.add_NativeServiceServicer_to_server(NativeServicer(operations, listing), serving.grpc)
    openai = OpenAIServicer(operations, listing, Shelf(store, links), begin=begin)
    openai_service_pb2_grpc.add_OpenAIServiceServicer_to_server(openai, serving.grpc)
    google = GoogleServicer(operations, listing, begin=begin)
    google_service_pb2_grpc.add_GoogleServiceServicer_to_server(google, serving.grpc)
    files_service_pb2_grpc.add_FilesServiceServicer_to_server(FilesServicer(store, links, admission), serving.grpc)
    readiness_service_pb2_grpc.add_ReadinessServiceServicer_to_server(
        ReadinessServicer(lambda: watched.refused), serving.grpc
    )
    serving.grpc.add_generic_rpc_handlers((Gate(admission, own_keys=config.byok).handler(),))
    for module, name in (
        (text_service_pb2, "TextService"),
        (image_service_pb2, "ImageService"),
        (embedding_service_pb2, "EmbeddingService"),
        (catalog_service_pb2, "CatalogService"),
        (native_service_pb2, "NativeService"),
        (openai_service_pb2, "OpenAIService"),
        (google_service_pb2, "GoogleService"),
        (files_service_pb2, "FilesService"),
        (readiness_service_pb2, "ReadinessService"),
    ):
        serving.offer(module.DESCRIPTOR.services_by_name[name].full_name)

    await admission.start()
    backends.watch()
    watching = asyncio.create_task(watched.watch())
    port = await serving.start(config.listen)
    logs.get("router").info("router.started", port=port, pid=os.getpid(), configured=sorted(watched.now.configured))
    try:
        yield port
    finally:
        await serving.stop(config.drain_s, backends.end)
        await once.aclose(server.LAST_WORDS_S)
        await claims.aclose()
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await operations.aclose()
        await backends.aclose()
        await admission.stop()
        await egress.aclose()
        await store.aclose()


async def main(config: RouterSettings, stop: asyncio.Event) -> None:
    memory.give_back_freed()
    try:
        async with serve(config):
            await stop.wait()
    except CatalogueError as error:
        raise SystemExit(f"bad catalogue: {error}") from None


if __name__ == "__main__":
    read = settings.read(RouterSettings)
    logs.configure("router", read.log_level)
    server.run(lambda stop: main(read, stop), "router")
