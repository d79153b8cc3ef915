"""One task through the task service, with the real auth and PostgreSQL and a painter in the router's place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from moa.image.v1 import image_service_pb2, image_service_pb2_grpc
from moa.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from services.common.rpc.client import channel
from services.common.rpc.server import Server
from services.tasks.__main__ import Process
from services.tasks.settings import TaskSettings
from tests.auth.asking import TOKEN
from tests.auth.conftest import Auth
from tests.emulators.painter import Painter
from tests.tasks.system import CATALOGUE
from tests.walks import documented
from tests.walks.walking import walked


async def test_a_task_passes_the_modules_that_the_page_lists(
    auth: Auth, payer: tuple[str, str, str], tasks_url: str, tmp_path: Path
) -> None:
    """From its creation to its record, read back and booked, a task passes fourteen modules of the task service."""
    account, _, key = payer
    await auth.accounts.add_credits(account, 10**9, reference="more", actor="console")
    painter = Server(service_token=TOKEN)
    image_service_pb2_grpc.add_ImageServiceServicer_to_server(Painter(None, None), painter.grpc)
    (tmp_path / "catalogue.yaml").write_text(CATALOGUE)
    process = Process(
        TaskSettings(
            service_token=SecretStr(TOKEN),
            listen="127.0.0.1:0",
            database_url=SecretStr(tasks_url),
            auth_address=auth.address,
            router_address=f"127.0.0.1:{await painter.start('127.0.0.1:0')}",
            catalogue=tmp_path / "catalogue.yaml",
            store_dir=tmp_path / "objects",
            public_url="http://127.0.0.1",
            task_workers=1,
            drain_s=0,
        )
    )
    try:
        async with process.running() as port, channel(f"127.0.0.1:{port}") as link:
            stub: Any = task_service_pb2_grpc.TaskServiceStub(link)
            # What is done now and then may come in the way of one, and hardly of both.
            walks = [await _walked(process, stub, key) for _ in range(2)]
    finally:
        await painter.stop(0)
    passed = set.intersection(*walks)
    assert {module for module in passed if module.startswith("tasks/")} == documented.walk(
        "a task, in the task service"
    )


async def _walked(process: Process, stub: Any, key: str) -> set[str]:
    sent = (("authorization", f"Bearer {key}"),)
    image = image_service_pb2.GenerateImageRequest(model="moa-tiny-image", prompt="a red circle", count=1)
    with walked() as modules:
        asked = task_service_pb2.CreateTaskRequest(work=task_pb2.TaskWork(image=image))
        made = await stub.CreateTask(asked, metadata=sent)
        watched = stub.WatchTask(task_service_pb2.WatchTaskRequest(id=made.task.id), metadata=sent)
        events = [event.WhichOneof("event") async for message in watched for event in message.events]
        assert events[-1] == "succeeded"
        result = await stub.GetTask(task_service_pb2.GetTaskRequest(id=made.task.id), metadata=sent)
        assert len(result.task.outputs) == 1
        while await process.quota.owes():
            await asyncio.sleep(0.02)
    return modules
