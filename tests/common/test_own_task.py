"""Work in a task of its own ends as if whoever waits for it did it."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

import pytest

from services.common.own_task import in_own_task


class Turns:
    """Goes on so many times."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __await__(self) -> Generator[Any, Any, int]:
        for _ in range(self._count):
            yield
        return self._count


async def test_whoever_waits_does_not_go_on_with_the_work() -> None:
    """Work that goes on a hundred times resumes whoever waits for its end once, and gives what it gave."""
    resumed = 0

    async def work() -> int:
        return await Turns(100)

    async def waiting() -> int:
        return await in_own_task(work())

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal resumed
        resumed += event == "call" and frame.f_code is waiting.__code__

    sys.setprofile(note)
    try:
        assert await waiting() == 100
    finally:
        sys.setprofile(None)
    assert resumed == 2, "begun and ended"


async def test_a_failure_is_whose_who_waits() -> None:
    """What the work raises is raised to whoever waits for it."""

    async def work() -> None:
        await Turns(1)
        raise ValueError("it failed")

    with pytest.raises(ValueError, match="it failed"):
        await in_own_task(work())


async def _cancelled(work: Callable[[], Any], *, turns: int) -> BaseException | None:
    """Cancel after so many turns whoever waits for work; return what that raised."""
    task = asyncio.create_task(in_own_task(work()))
    await Turns(turns)
    task.cancel()
    await asyncio.wait([task])
    return asyncio.CancelledError() if task.cancelled() else task.exception()


async def test_who_is_cancelled_waits_until_the_work_has_ended() -> None:
    """Cancelling whoever waits cancels the work, and what that does at its end is done when the waiting is over."""
    done: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await Turns(3)
            done.append("cleaned up")

    assert isinstance(await _cancelled(work, turns=3), asyncio.CancelledError)
    assert done == ["cleaned up"]


async def test_a_failure_that_a_cancellation_overtakes_is_no_loose_end() -> None:
    """Work that fails in the turn in which whoever waits is cancelled leaves no failure that nobody has seen."""
    loose: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loose.append(context))

    async def work() -> None:
        await Turns(3)
        raise ValueError("it failed")

    # In one of these turns both come together.
    outcomes = [type(await _cancelled(work, turns=turns)) for turns in range(1, 9)]
    gc.collect()
    assert {ValueError, asyncio.CancelledError} == set(outcomes)
    assert not loose
