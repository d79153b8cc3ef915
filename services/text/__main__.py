"""Run the text service: `python -m services.text`; `python -m services.text check` tries its providers."""

from __future__ import annotations

from moa.embedding.v1 import embedding_service_pb2
from moa.embedding.v1.embedding_service_pb2_grpc import add_EmbeddingServiceServicer_to_server
from moa.text.v1 import text_service_pb2
from moa.text.v1.text_service_pb2_grpc import add_TextServiceServicer_to_server
from services.catalogue import Watched
from services.common import memory
from services.common.helper_process import HelperProcess
from services.common.rpc.server import Server
from services.providers.hosting.service import Offer, Providing
from services.quota_client import AbandonedCalls
from services.text import embedding
from services.text.servicer import TextServicer
from services.text.settings import TextSettings
from services.text.targets import Targets


def add(catalogue: Watched, targets: Targets, abandoned: AbandonedCalls, helper: HelperProcess, server: Server) -> None:
    add_TextServiceServicer_to_server(TextServicer(catalogue, targets, abandoned, helper), server.grpc)


def add_embedding(
    catalogue: Watched, targets: embedding.Targets, abandoned: AbandonedCalls, helper: HelperProcess, server: Server
) -> None:
    servicer = embedding.EmbeddingServicer(catalogue, targets, abandoned)
    add_EmbeddingServiceServicer_to_server(servicer, server.grpc)


SERVICE = Providing(
    name="text",
    settings=TextSettings,
    offers=(
        Offer(
            makes="text",
            service=text_service_pb2.DESCRIPTOR.services_by_name["TextService"].full_name,
            targets=Targets,
            add=add,
            keeps=text_service_pb2.GenerateTextRequest,
        ),
        Offer(
            makes="embedding",
            service=embedding_service_pb2.DESCRIPTOR.services_by_name["EmbeddingService"].full_name,
            targets=embedding.Targets,
            add=add_embedding,
        ),
    ),
)

if __name__ == "__main__":
    memory.give_back_freed()
    SERVICE.main()
