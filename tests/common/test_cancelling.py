"""Tasks in the background end when they are cancelled."""

from __future__ import annotations

import asyncio

import pytest

from services.common.cancelling import cancel_and_wait


async def forever() -> None:
    await asyncio.Event().wait()


async def begun(*tasks: asyncio.Task[None]) -> None:
    """Return once every task waits."""
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def test_every_task_has_ended() -> None:
    """All tasks have ended when the call returns, those that had ended before and those that fail as well."""

    async def failing() -> None:
        try:
            await forever()
        finally:
            raise ValueError("while ending")

    over, waiting, failed = (
        asyncio.create_task(asyncio.sleep(0)),
        asyncio.create_task(forever()),
        asyncio.create_task(failing()),
    )
    await over
    await begun(waiting, failed)
    await cancel_and_wait(over, None, waiting, failed)
    assert over.done()
    assert not over.cancelled()
    assert waiting.cancelled()
    assert isinstance(failed.exception(), ValueError)


async def test_a_cancellation_that_was_lost_is_asked_for_again() -> None:
    """A loop that loses two cancellations is cancelled a third time."""
    lost = 0

    async def losing() -> None:
        nonlocal lost
        while True:
            try:
                await forever()
            except asyncio.CancelledError:
                if lost == 2:
                    raise
                lost += 1

    task = asyncio.create_task(losing())
    await begun(task)
    async with asyncio.timeout(20):
        await cancel_and_wait(task, again_s=0.01)
    assert task.cancelled()
    assert lost == 2


async def test_a_task_may_clean_up() -> None:
    """What a task does while it ends is awaited, and not interrupted within its time."""
    cleaned = asyncio.Event()

    async def cleaning() -> None:
        try:
            await forever()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            cleaned.set()

    task = asyncio.create_task(cleaning())
    await begun(task)
    await cancel_and_wait(task, again_s=60)
    assert cleaned.is_set()


async def test_whoever_waits_may_be_cancelled() -> None:
    """A caller that is cancelled while it waits for a task that does not end is cancelled."""

    async def stubborn(until: asyncio.Event) -> None:
        while not until.is_set():
            try:
                await until.wait()
            except asyncio.CancelledError:
                continue

    until = asyncio.Event()
    task = asyncio.create_task(stubborn(until))
    await begun(task)
    caller = asyncio.create_task(cancel_and_wait(task, again_s=60))
    await begun(caller)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert not task.done()
    until.set()
    await task
