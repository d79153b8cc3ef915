"""What is kept of tasks, for how long, and in which form."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from moa.common.v1 import media_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from moa.task.v1 import task_pb2
from services.common.clock import now_utc
from services.common.errors import StorageFailed
from services.common.store import object_name
from services.common.store.folder import FolderStore
from services.tasks.adapters.database import Database, Notices
from services.tasks.adapters.queue import PART_BYTES, Queue, Spooled, WorkerLock
from services.tasks.adapters.tasks import Tasks
from services.tasks.adapters.upstream import MadeImage
from services.tasks.domain.task import LeaseLost, Task
from services.tasks.keeper import Keeper
from services.tasks.worker import finishing
from services.tasks.worker.finishing import Finisher
from services.tasks.worker.work import read_back
from tests.emulators.painter import paint
from tests.tasks.conftest import Make


async def ended_with_output(database: Database, store: FolderStore, task: Task) -> tuple[Task, str]:
    """Run a task to its end by hand; give it and its output's name."""
    tasks = Tasks(database)
    queue = Queue(database, per_account=10, lease_s=30, attempts=3)
    await tasks.create(task)
    [claimed] = await queue.claim("w", 1)
    lock = WorkerLock(database, claimed)
    async with lock.change() as changed:
        changed.begin("p", "m", now_utc())
    name = object_name(task.account_id, "png")
    output = task_pb2.TaskOutput(name=name, mime_type="image/png")
    await lock.spool(Spooled(0, name, output), b"data", last=True)
    await store.put(name, b"data", content_type="image/png")
    await lock.stored(output, last=True)
    return claimed, name


async def test_an_ended_task_goes_with_its_outputs_when_its_time_is_up(
    tasks_database: Database, make: Make, tmp_path: Path
) -> None:
    """Objects, events and rows go, oldest first; what is younger, open, or not settled yet stays."""
    store = FolderStore(tmp_path)
    queue = Queue(tasks_database, per_account=10, lease_s=30, attempts=3)
    nobody: Any = None
    keeper = Keeper(tasks_database, queue, nobody, store, Notices(), keep_s=3600)
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
    lock = WorkerLock(tasks_database, claimed)
    async with lock.change() as changed:
        changed.begin("p", "m", now_utc())
    name = object_name("acc", "png")
    await store.put(name, b"data", content_type="image/png")
    await lock.stored(task_pb2.TaskOutput(name=name))
    assert [o.name for o in (await tasks.outputs([task.id]))[task.id]] == [name]
    await lock.restart()
    assert await tasks.outputs([task.id]) == {}
    async with lock.change() as changed:
        changed.cancel(now_utc())
    async with tasks_database.transaction() as link:
        await link.execute("update tasks.tasks set ended_at = now() - interval '2 h'")
    nobody: Any = None
    await Keeper(tasks_database, queue, nobody, store, Notices(), keep_s=86400).clean()
    async with tasks_database.transaction() as link:
        assert await (await link.execute("select 1 from tasks.objects")).fetchall() == []
    await store.aclose()


async def half_stored(database: Database, task: Task) -> tuple[Task, list[bytes]]:
    """Fail a task of two outputs whose store took one; give the task and their bytes."""
    await Tasks(database).create(task)
    [claimed] = await Queue(database, per_account=10, lease_s=30, attempts=3).claim("w", 1)
    lock = WorkerLock(database, claimed)
    async with lock.change() as changed:
        changed.begin("p", "m", now_utc())
    datas = [bytes([index + 1]) * (2 * PART_BYTES + 5) for index in range(2)]
    for index, data in enumerate(datas):
        output = task_pb2.TaskOutput(index=index, name=f"acc_2026_{index}.png", size_bytes=len(data))
        await lock.spool(Spooled(index, output.name, output), data, last=index == 1)
    first = await lock.next_spooled()
    assert first is not None
    await lock.stored(first.output)
    async with lock.change() as changed:
        changed.fail(StorageFailed("Failed to upload image to S3."), now_utc())
    return changed, datas


async def test_a_resumed_task_has_what_was_stored_before_too(tasks_database: Database, make: Make) -> None:
    """The store failed between two outputs: the second life stores the second, and has both."""
    tasks, queue = Tasks(tasks_database), Queue(tasks_database, per_account=10, lease_s=30, attempts=3)
    old, datas = await half_stored(tasks_database, make())
    new = await tasks.resume(make(made=True, resumed_from=old.id), old)
    [claimed] = await queue.claim("w", 1)
    assert claimed.id == new.id
    lock = WorkerLock(tasks_database, claimed)
    async with lock.change() as changed:
        changed.begin("p", "m", now_utc())
    left = await lock.next_spooled()
    assert left is not None
    assert b"".join([part async for part in read_back(lock, left)]) == datas[1]
    await lock.stored(left.output, last=True)
    found = await tasks.outputs([old.id, new.id])
    assert {task_id: [output.index for output in outputs] for task_id, outputs in found.items()} == {new.id: [0, 1]}


async def test_half_an_output_never_takes_the_place_of_a_whole_one(
    tasks_database: Database, make: Make, tmp_path: Path
) -> None:
    """A worker that was taken for dead reads what the next one has stored and removed: it stores nothing."""
    old, datas = await half_stored(tasks_database, make())
    await Tasks(tasks_database).resume(make(made=True, resumed_from=old.id), old)
    [claimed] = await Queue(tasks_database, per_account=10, lease_s=30, attempts=3).claim("w", 1)
    lock = WorkerLock(tasks_database, claimed)
    left = await lock.next_spooled()
    assert left is not None
    store = FolderStore(tmp_path)
    await store.put(left.name, datas[1], content_type="image/png")

    async def cut_short() -> AsyncIterator[bytes]:
        parts = read_back(lock, left)
        yield await anext(parts)
        async with tasks_database.transaction() as link:
            await link.execute("delete from tasks.spool where task_id = %s", (claimed.id,))
        async for part in parts:
            yield part

    with pytest.raises(LeaseLost):
        await store.put(left.name, cut_short(), content_type="image/png")
    async with store.open(left.name) as opened:
        assert b"".join([chunk async for chunk in opened.chunks]) == datas[1]
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
    spooled, stored = await Finisher(provenance=provenance).finish(task, MadeImage.of(0, made))
    assert spooled.output.mime_type == mime_type
    assert spooled.name.endswith("." + finishing.EXTENSIONS[mime_type])
    with Image.open(io.BytesIO(stored)) as image:
        assert (image.format, image.size) == (kind, (24, 16))
        told = str(image.info.get("Description", "")) + str(image.getexif().get(0x010E, ""))
    assert (f"seed 7; task {task.id}" in told) == provenance
    if kind == "PNG" and not provenance:
        assert stored == data
    if kind == "PNG":
        # Text is put before the picture, which stays as it was, byte for byte.
        assert stored.endswith(data[33:])


def test_what_is_noted_beside_an_object_holds_no_prompt(make: Make) -> None:
    """Its hash, the model and the receipt are enough to make it again, for whoever has the prompt."""
    task = make()
    output = task_pb2.TaskOutput(sha256="ab", receipt=image_pb2.Receipt(seed=7, steps=20, scheduler="ddim"))
    noted = finishing.metadata_of(task, output)
    assert "a red circle" not in str(noted)
    assert {"model", "provider", "prompt-sha256", "seed", "steps", "scheduler", "task", "sha256"} <= set(noted)
