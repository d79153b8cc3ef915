"""What a worker writes down while it does a task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from moa.desk.v1 import desk_pb2
from moa.image.v1 import image_pb2
from moa.task.v1 import task_pb2
from services.common.errors import StorageFailed, Unavailable
from services.common.store import Store, object_name
from services.tasks.adapters.worker_lock import WorkerLock
from services.tasks.domain.task import SUBMITTED, now_utc
from services.tasks.worker import finishing

_STEP_S: Final = 0.5
"""How often steps are written down at most."""
_AGAIN_S: Final = 0.3

STAGES: Final = {
    desk_pb2.STAGE_FETCH: "fetch",
    desk_pb2.STAGE_VISION: "vision",
    desk_pb2.STAGE_PROMPT: "prompt",
    desk_pb2.STAGE_SYNTHESIS: "synthesis",
    desk_pb2.STAGE_STORE: "store",
    desk_pb2.STAGE_SHOPPING: "shopping",
}

T = TypeVar("T")


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


async def steadily(write: Callable[[], Awaitable[T]]) -> T:
    """Write to the database, again and again while it is away. The lease bounds it: whoever loses it is cancelled."""
    while True:
        try:
            return await write()
        except Unavailable:
            await asyncio.sleep(_AGAIN_S)
