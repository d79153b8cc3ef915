"""A task as callers see it: with links that are made anew at each read."""

from __future__ import annotations

from collections.abc import Sequence

from moa.task.v1 import task_pb2
from services.common.store import Links
from services.tasks.domain.task import Task, error_of


class Views:
    """Turns stored tasks and events into the contract's messages."""

    def __init__(self, links: Links) -> None:
        self._links = links

    def task(self, task: Task, outputs: Sequence[task_pb2.TaskOutput]) -> task_pb2.Task:
        """Return a task. Input images that were given as bytes are left out."""
        shown = task_pb2.Task(
            id=task.id,
            state=task.state,
            work=_without_bytes(task.what),
            model=task.model,
            provider=task.provider,
            outputs=[self.output(output) for output in outputs],
            consumed_micros=task.consumed_micros,
            attempts=task.attempts,
            last_sequence=task.last_sequence,
        )
        shown.created_at.FromDatetime(task.created_at)
        shown.deadline.FromDatetime(task.deadline)
        if task.started_at is not None:
            shown.started_at.FromDatetime(task.started_at)
        if task.ended_at is not None:
            shown.ended_at.FromDatetime(task.ended_at)
        if task.progress is not None:
            shown.progress.CopyFrom(self._progress(task_pb2.TaskProgress.FromString(task.progress)))
        if task.desk is not None:
            shown.desk.ParseFromString(task.desk)
        error = error_of(task)
        if error is not None:
            shown.error.CopyFrom(error)
        return shown

    def output(self, output: task_pb2.TaskOutput) -> task_pb2.TaskOutput:
        """Return an output with a link."""
        output.link = self._links.make(output.name)
        return output

    def event(self, event: task_pb2.TaskEvent) -> task_pb2.TaskEvent:
        """Return an event with links."""
        if event.HasField("output"):
            self.output(event.output)
        elif event.HasField("progress"):
            self._progress(event.progress)
        return event

    def _progress(self, progress: task_pb2.TaskProgress) -> task_pb2.TaskProgress:
        if progress.preview_name:
            progress.preview_link = self._links.make(progress.preview_name)
        return progress


def _without_bytes(work: task_pb2.TaskWork) -> task_pb2.TaskWork:
    if work.WhichOneof("work") == "image":
        image = work.image
        kept = [given for given in image.images if given.url]
        del image.images[:]
        image.images.extend(kept)
        if image.mask.data:
            image.ClearField("mask")
    elif work.desk.initial_image_url.startswith("data:"):
        work.desk.ClearField("initial_image_url")
    return work
