"""Doing one task: ask for the work, write each step down, store what was made, end it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, Final, TypeVar

from moa.desk.v1 import desk_pb2
from moa.image.v1 import image_pb2
from moa.task.v1 import task_pb2
from services.common.errors import StorageFailed, Unavailable, UpstreamBroken
from services.common.store import Store, object_name
from services.tasks.adapters.database import Database
from services.tasks.adapters.holding import Holding, Spooled
from services.tasks.adapters.quota import Quota
from services.tasks.adapters.upstream import Upstream
from services.tasks.domain.task import SUBMITTED, Task, now_utc
from services.tasks.worker import finishing
from services.tasks.worker.sealing import Seal

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


class Work:
    """Does tasks.

    Args:
        database: Where tasks are.
        upstream: Who does the work.
        quota: Who lends quota.
        store: Where outputs go.
        provenance: Whether outputs carry how they were made.
        seal: Signs that; none: it is not signed.
    """

    def __init__(
        self,
        database: Database,
        upstream: Upstream,
        quota: Quota,
        store: Store,
        *,
        provenance: bool = False,
        seal: Seal | None = None,
    ) -> None:
        self._database = database
        self._upstream = upstream
        self._quota = quota
        self._store = store
        self._provenance = provenance
        self._seal = seal

    async def do(self, task: Task) -> None:
        """Do a claimed task to its successful end. Raises MoaError, or LeaseLost when it is another's by now."""
        holding = Holding(self._database, task)
        kept = None
        if not task.made:
            await self._covered(holding)
            if task.attempts > 1:
                await steadily(holding.restart)
            if task.what.WhichOneof("work") == "desk":
                await self._desk(holding)
                await steadily(holding.succeed)
                return
            kept = await self._images(holding)
        await self._store_spooled(holding, kept)

    async def _covered(self, holding: Holding) -> None:
        """Make sure that quota is reserved: the lease that was taken at creation may have ended meanwhile."""
        task = holding.claimed
        if task.reservation_id:
            return
        hold = await self._quota.hold(
            provider=task.provider,
            model=task.model,
            images=max(1, task.what.image.count),
            request_id=task.id,
            key_id=task.key_id,
        )

        async def note() -> None:
            async with holding.change() as changed:
                changed.quota_lease, changed.reservation_id = hold.lease_id or None, hold.reservation_id or None

        await steadily(note)

    async def _images(self, holding: Holding) -> Spooled | None:
        """Make the images and keep them; give the one that is alone, which need not be read back."""
        task = holding.claimed
        request = task.what.image
        request.model, request.provider, request.stream = task.model, task.provider, True
        request.count = max(1, request.count)
        notes = Notes(holding, self._store)
        made: Spooled | None = None
        count = 0
        async with aclosing(self._upstream.images(request, task)) as events:
            async for event in events:
                kind = event.WhichOneof("event")
                if kind == "started":
                    await notes.begin(event.started.provider, event.started.model)
                elif kind == "image":
                    await notes.begin(task.provider, task.model)
                    made = await finishing.finished(
                        task, event.index, event.image, provenance=self._provenance, seal=self._seal
                    )
                    event.Clear()
                    count += 1
                    await steadily(partial(holding.spool, made, last=count == request.count))
                    if request.count > 1:
                        made = None
                else:
                    await notes.image_event(event)
        if not count:
            raise UpstreamBroken("no image was made")
        if count < request.count:
            # Fewer than asked for, and yet the end: what there is counts.
            await steadily(holding.made)
        return made

    async def _desk(self, holding: Holding) -> None:
        task = holding.claimed
        request = task.what.desk
        request.account_id = task.account_id
        notes = Notes(holding, self._store)
        async with aclosing(self._upstream.desk(request, task)) as events:
            async for event in events:
                await notes.begin(task.provider, task.model)
                await notes.desk_event(event)

    async def _store_spooled(self, holding: Holding, kept: Spooled | None) -> None:
        """Store what was made, one after the other; end the task with the last. `kept` is the only one, if known."""
        notes = Notes(holding, self._store)
        if kept is None:
            await notes.begin(holding.claimed.provider, holding.claimed.model)
        spooled = kept or await steadily(holding.next_spooled)
        left = 1 if kept else await steadily(holding.spooled)
        while spooled is not None:
            if kept is None:
                await notes.progress(task_pb2.TaskProgress(stage="storing", step=spooled.position))
            await self._put(holding.claimed, spooled)
            left -= 1
            await steadily(partial(holding.stored, spooled.output, last=left == 0))
            if left == 0:
                return
            spooled = await steadily(holding.next_spooled)
        # Everything was stored by an attempt that did not come to the end.
        await steadily(holding.succeed)

    async def _put(self, task: Task, spooled: Spooled) -> None:
        try:
            await self._store.put(
                spooled.name,
                spooled.data,
                content_type=spooled.output.mime_type,
                metadata=finishing.metadata_of(task, spooled.output),
            )
        except StorageFailed:
            raise StorageFailed("Failed to upload image to S3.") from None


class Notes:
    """Writes down what happens in a task, no more often than a reader can use."""

    def __init__(self, holding: Holding, store: Store) -> None:
        self._holding = holding
        self._store = store
        self._begun = holding.claimed.state != SUBMITTED
        self._stage = ""
        self._written_at = 0.0

    async def begin(self, provider: str, model: str) -> None:
        """Note that the work began; once."""
        if self._begun:
            return

        async def note() -> None:
            async with self._holding.change() as task:
                task.begin(provider, model, now_utc())

        await steadily(note)
        self._begun = True

    async def image_event(self, event: image_pb2.ImageEvent) -> None:
        """Note an event of waiting, loading or progress."""
        kind = event.WhichOneof("event")
        if kind == "queued" and event.queued.position:
            found = task_pb2.TaskProgress(stage="queued", step=0, steps=event.queued.position)
            await self.progress(_with_eta(found, event.queued))
        elif kind == "loading":
            await self.progress(
                task_pb2.TaskProgress(stage="loading", step=int(event.loading.fraction * 100), steps=100)
            )
        elif kind == "progress":
            await self.begin(self._holding.claimed.provider, self._holding.claimed.model)
            progress = event.progress
            found = task_pb2.TaskProgress(stage="diffusion", step=progress.step, steps=progress.steps)
            preview = progress.preview if progress.HasField("preview") else None
            await self.progress(_with_eta(found, progress), preview)

    async def desk_event(self, event: desk_pb2.DeskEvent) -> None:
        """Note an event of the desk."""
        kind = event.WhichOneof("event")
        if kind == "stage":
            stage = event.stage
            found = task_pb2.TaskProgress(stage=STAGES.get(stage.stage, ""), step=stage.step, steps=stage.steps)
            await self.progress(_with_eta(found, stage), stage.preview if stage.HasField("preview") else None)
        elif kind == "styled":
            styled = event.styled
            output = task_pb2.TaskOutput(
                name=styled.object_name,
                mime_type=styled.mime_type,
                width=styled.width,
                height=styled.height,
                size_bytes=styled.size_bytes,
            )
            if styled.HasField("receipt"):
                output.receipt.CopyFrom(styled.receipt)
                output.sha256 = styled.receipt.sha256
            await steadily(partial(self._holding.stored, output))
        elif kind in ("seen", "item", "finished"):

            async def note() -> None:
                async with self._holding.change() as task:
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
                async with self._holding.change() as task:
                    task.advance(progress, now_utc())
            await self.report("logs")
        except (Unavailable, StorageFailed):
            # Nobody's result depends on it, and what does waits for the database by itself.
            pass

    async def report(self, event: str) -> None:
        """Report progress to a webhook that asked for it."""
        if event in self._holding.claimed.webhook_events:
            await self._holding.webhook(event)

    async def _preview(self, progress: task_pb2.TaskProgress, preview: Any) -> None:
        extension = finishing.EXTENSIONS.get(preview.mime_type, "png")
        progress.preview_name = object_name(self._holding.claimed.account_id, extension)
        await self._store.put(progress.preview_name, preview.data, content_type=preview.mime_type)
        await self._holding.preview(progress.preview_name, progress)


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
