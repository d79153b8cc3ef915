"""Doing one task: ask for the work, write each step down, store what was made, end it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any, Final

from moa.desk.v1 import desk_pb2
from moa.image.v1 import image_pb2
from moa.task.v1 import task_pb2
from services.common.clock import now_utc
from services.common.errors import StorageFailed, Unavailable, UpstreamBroken
from services.common.store import Store, object_name
from services.tasks.adapters.database import Database, steadily
from services.tasks.adapters.queue import Spooled, WorkerLock
from services.tasks.adapters.quota import Quota
from services.tasks.adapters.upstream import MadeImage, Upstream
from services.tasks.domain.task import SUBMITTED, LeaseLost, Task
from services.tasks.worker import finishing
from services.tasks.worker.finishing import Finisher

_STEP_S: Final = 0.5
"""How often steps are written down at most."""

STAGES: Final = {
    desk_pb2.STAGE_FETCH: "fetch",
    desk_pb2.STAGE_VISION: "vision",
    desk_pb2.STAGE_PROMPT: "prompt",
    desk_pb2.STAGE_SYNTHESIS: "synthesis",
    desk_pb2.STAGE_STORE: "store",
    desk_pb2.STAGE_SHOPPING: "shopping",
}

Kept = tuple[Spooled, bytes]
"""An output in the spool, and its bytes."""


class Work:
    """Does tasks.

    Args:
        database: Where tasks are.
        upstream: Who does the work.
        quota: Who lends quota.
        store: Where outputs go.
        finisher: Brings them into their form.
    """

    def __init__(self, database: Database, upstream: Upstream, quota: Quota, store: Store, finisher: Finisher) -> None:
        self._database = database
        self._upstream = upstream
        self._quota = quota
        self._store = store
        self._finisher = finisher

    async def do(self, task: Task) -> None:
        """Do a claimed task to its successful end. Raises MoaError, or LeaseLost when it is another's by now."""
        lock = WorkerLock(self._database, task)
        kept = None
        if not task.made:
            await self._covered(lock)
            if task.attempts > 1:
                await steadily(lock.restart)
            if task.what.WhichOneof("work") == "desk":
                await self._desk(lock)
            else:
                kept = await self._images(lock)
        await self._store_spooled(lock, kept)

    async def _covered(self, lock: WorkerLock) -> None:
        """Make sure that quota is reserved: the lease that was taken at creation may have ended meanwhile."""
        task = lock.claimed
        if task.reservation_id:
            return
        hold = await self._quota.hold(
            provider=task.provider,
            model=task.model,
            images=max(1, task.what.image.count),
            image=task.what.image,
            micro_credits=task.reserved_micros,
            request_id=task.id,
            tags=task.tags,
            key_id=task.key_id,
        )

        async def note() -> None:
            async with lock.change() as changed:
                changed.quota_lease, changed.reservation_id = hold.lease_id or None, hold.reservation_id or None
                changed.price_unknown = hold.price_unknown

        await steadily(note)

    async def _images(self, lock: WorkerLock) -> Kept | None:
        """Make the images and keep them; give the one that is alone, which need not be read back."""
        task = lock.claimed
        request = task.what.image
        request.model, request.provider, request.stream = task.model, task.provider, True
        request.count = wanted = max(1, request.count)
        notes = ProgressNotes(lock, self._store)
        alone: Kept | None = None
        count = 0
        async with aclosing(self._upstream.images(request, task)) as events:
            del request  # its input images are with whoever makes something of them
            async for event in events:
                kind = event.WhichOneof("event")
                if kind == "started":
                    await notes.begin(event.started.provider, event.started.model)
                elif kind == "image":
                    made = MadeImage.of(event.index, event.image)
                    del event  # it holds the image a second time
                    await notes.begin(task.provider, task.model)
                    count += 1
                    kept = await self._keep(lock, made, last=count == wanted)
                    alone = kept if wanted == 1 else None
                    del made, kept
                else:
                    await notes.image_event(event)
        if not count:
            raise UpstreamBroken("the model made no image")
        if count < wanted:
            # Fewer than asked for, and yet the end: what there is counts.
            await steadily(lock.made)
        return alone

    async def _desk(self, lock: WorkerLock) -> None:
        """Run the pipeline; its image is stored as soon as it is there, or kept until the rest is done."""
        task = lock.claimed
        request = task.what.desk
        request.account_id = task.account_id
        notes = ProgressNotes(lock, self._store)
        async with aclosing(self._upstream.desk(request, task)) as events:
            del request
            async for event in events:
                await notes.begin(task.provider, task.model)
                if event.HasField("image"):
                    made = MadeImage.of(0, event.image)
                    del event
                    spooled, data = await self._keep(lock, made, last=False)
                    del made
                    try:
                        await self._put(task, spooled, data)
                        await steadily(partial(lock.stored, spooled.output))
                    except StorageFailed:
                        # What shops offer needs no store. The image is kept, and put there at the end.
                        pass
                    del data
                else:
                    await notes.desk_event(event)
        await steadily(lock.made)

    async def _keep(self, lock: WorkerLock, made: MadeImage, *, last: bool) -> Kept:
        """Bring an image into its form and into the spool."""
        spooled, data = await self._finisher.finish(lock.claimed, made)
        await steadily(partial(lock.spool, spooled, data, last=last))
        return spooled, data

    async def _store_spooled(self, lock: WorkerLock, kept: Kept | None) -> None:
        """Store what was made, one after the other; end the task with the last. `kept` is the only one, if known."""
        notes = ProgressNotes(lock, self._store)
        if kept is not None:
            spooled, data = kept
            await self._put(lock.claimed, spooled, data)
            await steadily(partial(lock.stored, spooled.output, last=True))
            return
        await notes.begin(lock.claimed.provider, lock.claimed.model)
        left = await steadily(lock.spooled)
        while (next_one := await steadily(lock.next_spooled)) is not None:
            await notes.progress(task_pb2.TaskProgress(stage="storing", step=next_one.position))
            await self._put(lock.claimed, next_one, read_back(lock, next_one))
            left -= 1
            await steadily(partial(lock.stored, next_one.output, last=left == 0))
            if left == 0:
                return
        # Nothing was made, or it was stored before: by an attempt that did not come to the end, or as it was made.
        await steadily(lock.succeed)

    async def _put(self, task: Task, spooled: Spooled, data: bytes | AsyncIterator[bytes]) -> None:
        try:
            await self._store.put(
                spooled.name,
                data,
                content_type=spooled.output.mime_type,
                metadata=finishing.metadata_of(task, spooled.output),
            )
        except StorageFailed:
            raise StorageFailed("Failed to upload image to S3.") from None


async def read_back(lock: WorkerLock, spooled: Spooled) -> AsyncIterator[bytes]:
    """Read an output from the spool, a part at a time. Raises LeaseLost when whoever holds the task now removed it."""
    left = spooled.output.size_bytes
    part = 0
    while left:
        data = await steadily(partial(lock.spooled_part, spooled, part))
        if not data:
            # A whole object of its name may be in the store by now, and half of one must not take its place.
            raise LeaseLost(lock.id)
        yield data
        left -= len(data)
        part += 1


class ProgressNotes:
    """Writes down what happens in a task, no more often than a reader can use."""

    def __init__(self, lock: WorkerLock, store: Store) -> None:
        self._lock = lock
        self._store = store
        self._begun = lock.claimed.state != SUBMITTED
        self._stage = ""
        self._written_at = 0.0

    async def begin(self, provider: str, model: str) -> None:
        """Note that the work began; once."""
        if self._begun:
            return

        async def note() -> None:
            async with self._lock.change() as task:
                task.begin(provider, model, now_utc())

        await steadily(note)
        self._begun = True

    async def image_event(self, event: image_pb2.ImageEvent) -> None:
        """Note an event of waiting, loading or progress."""
        kind = event.WhichOneof("event")
        if kind == "queued" and event.queued.position:
            result = task_pb2.TaskProgress(stage="queued", step=0, steps=event.queued.position)
            await self.progress(_with_eta(result, event.queued))
        elif kind == "loading":
            await self.progress(
                task_pb2.TaskProgress(stage="loading", step=int(event.loading.fraction * 100), steps=100)
            )
        elif kind == "progress":
            await self.begin(self._lock.claimed.provider, self._lock.claimed.model)
            progress = event.progress
            result = task_pb2.TaskProgress(stage="diffusion", step=progress.step, steps=progress.steps)
            preview = progress.preview if progress.HasField("preview") else None
            await self.progress(_with_eta(result, progress), preview)

    async def desk_event(self, event: desk_pb2.DeskEvent) -> None:
        """Note an event of the desk."""
        kind = event.WhichOneof("event")
        if kind == "stage":
            stage = event.stage
            result = task_pb2.TaskProgress(stage=STAGES.get(stage.stage, ""), step=stage.step, steps=stage.steps)
            await self.progress(_with_eta(result, stage), stage.preview if stage.HasField("preview") else None)
        elif kind in ("seen", "item", "finished"):

            async def note() -> None:
                async with self._lock.change() as task:
                    if kind == "seen":
                        task.see(event.seen, now_utc())
                    elif kind == "item":
                        task.find(event.item, now_utc())
                    else:
                        task.skip(event.finished.skipped)

            await steadily(note)

    async def progress(self, progress: task_pb2.TaskProgress, preview: Any = None) -> None:
        """Note how far the task is: every change of stage, every picture, and of steps what is due."""
        now = time.monotonic()
        if progress.stage == self._stage and preview is None and now - self._written_at < _STEP_S:
            return
        self._stage, self._written_at = progress.stage, now
        try:
            if preview is not None:
                await self._preview(progress, preview)
            else:
                async with self._lock.change() as task:
                    task.advance(progress, now_utc())
            await self.report("logs")
        except (Unavailable, StorageFailed):
            # Nobody's result depends on it, and what does waits for the database by itself.
            pass

    async def report(self, event: str) -> None:
        """Report progress to a webhook that asked for it."""
        if event in self._lock.claimed.webhook_events:
            await self._lock.webhook(event)

    async def _preview(self, progress: task_pb2.TaskProgress, preview: Any) -> None:
        extension = finishing.EXTENSIONS.get(preview.mime_type, "png")
        progress.preview_name = object_name(self._lock.claimed.account_id, extension)
        await self._store.put(progress.preview_name, preview.data, content_type=preview.mime_type)
        await self._lock.preview(progress.preview_name, progress)


def _with_eta(progress: task_pb2.TaskProgress, of: Any) -> task_pb2.TaskProgress:
    if of.HasField("eta"):
        progress.eta.CopyFrom(of.eta)
    return progress
