"""Run the image service: `python -m services.image`; `python -m services.image check` tries its providers."""

from __future__ import annotations

from moa.image.v1 import image_service_pb2
from services.catalogue import Watched
from services.common import memory
from services.common.helper_process import HelperProcess
from services.common.rpc.server import Server
from services.image.servicer import ImageServicer, add_to_server
from services.image.settings import ImageSettings
from services.image.targets import Targets
from services.providers.hosting.service import Offer, Providing
from services.quota_client import AbandonedCalls


def add(catalogue: Watched, targets: Targets, abandoned: AbandonedCalls, helper: HelperProcess, server: Server) -> None:
    add_to_server(ImageServicer(catalogue, targets, abandoned, helper), server.grpc)


SERVICE = Providing(
    name="image",
    settings=ImageSettings,
    offers=(
        Offer(
            makes="image",
            service=image_service_pb2.DESCRIPTOR.services_by_name["ImageService"].full_name,
            targets=Targets,
            add=add,
            keeps=image_service_pb2.GenerateImageRequest,
        ),
    ),
)

if __name__ == "__main__":
    memory.give_back_freed()
    SERVICE.main()
