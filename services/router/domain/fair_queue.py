"""A queue in which accounts have turns, whatever each has waiting in it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from services.common.cancelling import cancel_and_wait

T = TypeVar("T")

MOST_WAITING: Final = 1000
"""How many may wait in one queue."""
MOST_OF_ACCOUNT: Final = 100
"""How many of them may be one account's."""


class QueueFull(Exception):
    """No more may wait."""


@dataclass(eq=False)
class _Waiter(Generic[T]):
    account: str
    take: Callable[[], Awaitable[T | float]]
    got: asyncio.Future[T] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class FairQueue(Generic[T]):
    """Those who wait for the same thing. One is served at a time; the first of each account in turn.

    Args:
        pause: Passes time, in seconds.
        give_back: Takes back what a waiter was given that had left.
        changed: Told how many wait, whenever that changes.
    """

    def __init__(
        self,
        pause: Callable[[float], Awaitable[None]],
        give_back: Callable[[T], None],
        changed: Callable[[int], None],
    ) -> None:
        self._pause = pause
        self._give_back = give_back
        self._changed = changed
        self._waiting: OrderedDict[str, deque[_Waiter[T]]] = OrderedDict()
        self._count = 0
        self._serving: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Return how many wait."""
        return self._count

    async def wait(self, account: str, take: Callable[[], Awaitable[T | float]]) -> T:
        """Wait until `take` gives something, in this account's turns.

        `take` returns what it has, or in how many seconds it may have it. Whoever stops waiting leaves at once. Raises
        QueueFull, and what `take` raises.
        """
        mine = self._waiting.get(account)
        if self._count >= MOST_WAITING or (mine is not None and len(mine) >= MOST_OF_ACCOUNT):
            raise QueueFull
        waiter = _Waiter(account, take)
        self._waiting.setdefault(account, deque()).append(waiter)
        self._add(1)
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve(), name="fair_queue")
        try:
            return await waiter.got
        except asyncio.CancelledError:
            if waiter.got.done() and not waiter.got.cancelled() and waiter.got.exception() is None:
                self._give_back(waiter.got.result())
            raise
        finally:
            self._leave(waiter)

    async def aclose(self) -> None:
        """End serving."""
        await cancel_and_wait(self._serving)

    def _add(self, count: int) -> None:
        self._count += count
        self._changed(self._count)

    def _leave(self, waiter: _Waiter[T]) -> None:
        of_account = self._waiting.get(waiter.account)
        if of_account is None or waiter not in of_account:
            return
        of_account.remove(waiter)
        if not of_account:
            del self._waiting[waiter.account]
        self._add(-1)

    async def _serve(self) -> None:
        try:
            while self._waiting:
                waiter = next(iter(self._waiting.values()))[0]
                try:
                    got = await waiter.take()
                except Exception as error:
                    self._leave(waiter)
                    if not waiter.got.done():
                        waiter.got.set_exception(error)
                    continue
                if isinstance(got, float):
                    await self._pause(got)
                    continue
                self._leave(waiter)
                if waiter.account in self._waiting:
                    self._waiting.move_to_end(waiter.account)
                if waiter.got.done():
                    self._give_back(got)
                else:
                    waiter.got.set_result(got)
        finally:
            self._serving = None
