"""How grpc.aio's server waits for its next call."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

from services.common.rpc.internals.library import LIBRARY, usable

Task = asyncio.Task[Any]


def install() -> None:
    """Have grpc.aio wait for one task by waiting for it.

    At every call it asks `asyncio.wait` for the first of several, which methods that are registered apart would be
    (`Server`): a future more, and two turns of the loop.
    """
    if usable():
        LIBRARY.asyncio = SimpleNamespace(**{**vars(asyncio), "wait": wait_first})


async def wait_first(tasks: Collection[Task], *, return_when: str) -> tuple[set[Task], set[Task]]:
    """Return the tasks that are done and those that are not, as `asyncio.wait` does."""
    if len(tasks) > 1:
        return await asyncio.wait(tasks, return_when=return_when)
    (task,) = tasks
    try:
        await task
    except BaseException:
        # How it ended, whoever asks for its result is told.
        if not task.done():
            raise
    return {task}, set()
