"""Run the text service: `python -m services.text`; `python -m services.text check` tries its providers."""

from __future__ import annotations

from moa.text.v1 import text_service_pb2
from moa.text.v1.text_service_pb2_grpc import add_TextServiceServicer_to_server
from services.catalogue import Watched
from services.common import memory
from services.common.helper_process import HelperProcess
from services.common.rpc.server import Server
from services.providers.hosting.service import Providing
from services.quota_client import AbandonedCalls
from services.text.servicer import TextServicer
from services.text.settings import TextSettings
from services.text.targets import Targets


def add(catalogue: Watched, targets: Targets, abandoned: AbandonedCalls, helper: HelperProcess, server: Server) -> None:
    add_TextServiceServicer_to_server(TextServicer(catalogue, targets, abandoned, helper), server.grpc)


SERVICE = Providing(
    name="text",
    makes="text",
    service=text_service_pb2.DESCRIPTOR.services_by_name["TextService"].full_name,
    settings=TextSettings,
    targets=Targets,
    add=add,
)

if __name__ == "__main__":
    memory.give_back_freed()
    SERVICE.main()
