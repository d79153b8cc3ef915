"""What is kept of tasks, for how long, and in which form."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from moa.common.v1 import media_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from moa.task.v1 import task_pb2
from services.common.store import FolderStore, object_name
from services.tasks.adapters.database import Database
from services.tasks.adapters.holding import Holding, Spooled
from services.tasks.adapters.queue import Queue
from services.tasks.adapters.tasks import Tasks
from services.tasks.domain.task import Task, now_utc
from services.tasks.keeper import Keeper
from services.tasks.worker import finishing
from services.tasks.worker.finishing import Finisher
from services.tasks.worker.made import Made
from tests.emulators.painter import paint
from tests.tasks.conftest import Make


async def ended_with_output(database: Database, store: FolderStore, task: Task) -> tuple[Task, str]:
    """Run a task to its end by hand; give it and its output's name."""
    tasks = Tasks(database)
    queue = Queue(database, per_account=10, lease_s=30, attempts=3)
    await tasks.create(task)
    [claimed] = await queue.claim("w", 1)
    holding = Holding(database, claimed)
    async with holding.change() as changed:
        changed.begin("p", "m", now_utc())
    name = object_name(task.account_id, "png")
    output = task_pb2.TaskOutput(name=name, mime_type="image/png")
    await holding.spool(Spooled(0, name, output), b"data", last=True)
    await store.put(name, b"data", content_type="image/png")
    await holding.stored(output, last=True)
    return claimed, name


async def test_an_ended_task_goes_with_its_outputs_when_its_time_is_up(
    tasks_database: Database, make: Make, tmp_path: Path
) -> None:
    """Objects, events and rows go, oldest first; what is younger, open, or not settled yet stays."""
    store = FolderStore(tmp_path)
    queue = Queue(tasks_database, per_account=10, lease_s=30, attempts=3)
    nobody: Any = None
    keeper = Keeper(tasks_database, queue, nobody, store, keep_s=3600)
    old, old_name = await ended_with_output(tasks_database, store, make())
    young, young_name = await ended_with_output(tasks_database, store, make())
    unsettled, _ = await ended_with_output(tasks_database, store, make())
    waiting = await Tasks(tasks_database).create(make())
    async with tasks_database.transaction() as link:
        await link.execute(
            "update tasks.tasks set ended_at = now() - %s where id = any(%s)",
            (timedelta(hours=2), [old.id, unsettled.id]),
        )
        await link.execute(
            "insert into tasks.quota_outbox (task_id, message, settles) values (%s, '', true)", (unsettled.id,)
        )
    assert await keeper.clean() == 1
    async with tasks_database.transaction() as link:
        rows = await (await link.execute("select id from tasks.tasks")).fetchall()
    assert {row[0] for row in rows} == {young.id, unsettled.id, waiting.id}
    assert not (tmp_path / old_name).exists()
    assert (await store.head(young_name)).size_bytes == 4
    await store.aclose()


async def test_a_lost_attempts_outputs_become_orphans_and_go(
    tasks_database: Database, make: Make, tmp_path: Path
) -> None:
    """What a vanished worker had stored is not shown, and is removed."""
    store = FolderStore(tmp_path)
    tasks, queue = Tasks(tasks_database), Queue(tasks_database, per_account=10, lease_s=30, attempts=3)
    task = await tasks.create(make())
    [claimed] = await queue.claim("w", 1)
    holding = Holding(tasks_database, claimed)
    async with holding.change() as changed:
        changed.begin("p", "m", now_utc())
    name = object_name("acc", "png")
    await store.put(name, b"data", content_type="image/png")
    await holding.stored(task_pb2.TaskOutput(name=name))
    assert [o.name for o in (await tasks.outputs([task.id]))[task.id]] == [name]
    await holding.restart()
    assert await tasks.outputs([task.id]) == {}
    async with holding.change() as changed:
        changed.cancel(now_utc())
    async with tasks_database.transaction() as link:
        await link.execute("update tasks.tasks set ended_at = now() - interval '2 h'")
    nobody: Any = None
    await Keeper(tasks_database, queue, nobody, store, keep_s=86400).clean()
    async with tasks_database.transaction() as link:
        assert await (await link.execute("select 1 from tasks.objects")).fetchall() == []
    await store.aclose()


FORMATS = [
    (image_pb2.OUTPUT_FORMAT_UNSPECIFIED, "image/png", "PNG"),
    (image_pb2.OUTPUT_FORMAT_PNG, "image/png", "PNG"),
    (image_pb2.OUTPUT_FORMAT_JPEG, "image/jpeg", "JPEG"),
    (image_pb2.OUTPUT_FORMAT_WEBP, "image/webp", "WEBP"),
]


@pytest.mark.parametrize("provenance", [False, True])
@pytest.mark.parametrize(("wanted", "mime_type", "kind"), FORMATS)
async def test_outputs_have_the_asked_for_format_and_say_how_they_were_made(
    make: Make, wanted: image_pb2.OutputFormat.ValueType, mime_type: str, kind: str, provenance: bool
) -> None:
    """PNG, JPEG, WebP, whatever the model gave; with provenance, the file itself names model, seed and task."""
    work = task_pb2.TaskWork(image=image_service_pb2.GenerateImageRequest(prompt="x", output_format=wanted))
    task = make()
    task.work = work.SerializeToString()
    data = paint("x", 0, 24, 16)
    made = image_pb2.Image(
        image=media_pb2.ImageData(data=data, mime_type="image/png", width=24, height=16),
        receipt=image_pb2.Receipt(seed=7),
    )
    spooled, stored = await Finisher(provenance=provenance).finish(task, Made.of(0, made))
    assert spooled.output.mime_type == mime_type
    assert spooled.name.endswith("." + finishing.EXTENSIONS[mime_type])
    with Image.open(io.BytesIO(stored)) as image:
        assert (image.format, image.size) == (kind, (24, 16))
        told = str(image.info.get("Description", "")) + str(image.getexif().get(0x010E, ""))
    assert (f"seed 7; task {task.id}" in told) == provenance
    if kind == "PNG" and not provenance:
        assert stored == data


def test_what_is_noted_beside_an_object_holds_no_prompt(make: Make) -> None:
    """Its hash, the model and the receipt are enough to make it again, for whoever has the prompt."""
    task = make()
    output = task_pb2.TaskOutput(sha256="ab", receipt=image_pb2.Receipt(seed=7, steps=20, scheduler="ddim"))
    noted = finishing.metadata_of(task, output)
    assert "a red circle" not in str(noted)
    assert {"model", "provider", "prompt-sha256", "seed", "steps", "scheduler", "task", "sha256"} <= set(noted)
