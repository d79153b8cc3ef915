"""Run what goes on many times in a task of its own, so that whoever waits for its end is resumed once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def in_own_task(work: Coroutine[Any, Any, T]) -> T:
    """Run work in a task of its own; return what it returns, or raise what it raises.

    Each time a coroutine goes on, so do all that await it, one in the other. Of a stream of many pieces only the work
    at each piece need go on, and not the handler and the interceptor around it. Cancelling the caller cancels the work,
    whose end is awaited all the same.
    """
    # No name here holds the task: the traceback of its failure, which it holds, would hold it.
    return await asyncio.create_task(work)
