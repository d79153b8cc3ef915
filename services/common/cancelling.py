"""Ending tasks that run in the background."""

from __future__ import annotations

import asyncio
from typing import Any, Final

AGAIN_S: Final = 1.0
"""How long a loop with nothing to clean up may take to end."""
CLEANING_S: Final = 10.0
"""How long work may take that gives back what it holds, over the network or in the database."""


async def cancel_and_wait(*tasks: asyncio.Future[Any] | None, again_s: float = AGAIN_S) -> None:
    """Cancel tasks and return once each has ended, however it ended.

    A cancellation can be lost on its way: `asyncio.wait_for` of Python 3.11 drops one that comes in the same moment as
    a result, and what fails while a task ends replaces it. A loop that survives failures goes on then, so it is
    cancelled again.

    Args:
        again_s: After how long a task that has not ended is cancelled again; longer than its own clean-up.
    """
    asked = [task for task in tasks if task is not None]
    running = {task for task in asked if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=again_s)
    for task in asked:
        if not task.cancelled():
            task.exception()  # Nobody else asks for it, and asyncio logs failures that nobody asked for.
