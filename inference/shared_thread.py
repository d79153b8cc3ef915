"""Work for a processor, done in pieces by one thread, so that what takes long holds nobody up.

Whoever has had the least of the thread goes next, by the seconds that pieces took (`inference.fair`); the works of one
flow take turns. So a short work waits for one piece of each other flow at most, however long others' works are.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Final, TypeVar

from inference.fair import NAMELESS, Flow, Shares, crowded
from services.common.errors import QueueFull

T = TypeVar("T")

MOST_WAITING: Final = 64 * 1024 * 1024
"""How much of one flow's may wait, in the unit of works' sizes."""
_CREDIT_S: Final = 0.05
"""How far behind the others a flow comes back that was away."""
_LATER_S: Final = 2.0
RESTS: Final = 2.0
"""How long the thread rests beside others' work, in pieces."""


class _Work:
    __slots__ = ("begun", "done", "flow", "left", "pieces", "size")

    def __init__(self, pieces: Generator[None, None, Any], flow: Flow, size: int, done: asyncio.Future[Any]) -> None:
        self.pieces = pieces
        self.flow = flow
        self.size = size
        self.done = done
        self.begun = False
        self.left = False
        """Whether nobody waits for it any more."""


class SharedThread:
    """Does works piece by piece.

    Args:
        name: The thread's.
        most_waiting: As MOST_WAITING.
        busy: Tells whether others need the processor: then the thread rests after each piece of a work that goes on,
            RESTS times as long as that took, unless there is something new to begin.
        clock: Tells how long pieces take, in seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        most_waiting: int = MOST_WAITING,
        busy: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._name = name
        self._most_waiting = most_waiting
        self._busy = busy
        self._fresh = 0
        """How many works have not begun."""
        self._clock = clock
        self._works: dict[Flow, deque[_Work]] = {}
        self._sizes: dict[Flow, int] = {}
        self._shares = Shares()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False

    async def do(self, pieces: Generator[None, None, T], *, flow: Flow = NAMELESS, size: int = 0) -> T:
        """Return what a work returns; it yields wherever another may have its turn.

        What it raises is raised. A work whose caller is cancelled is not gone on with. Raises QueueFull.
        """
        work = _Work(pieces, flow, size, asyncio.get_running_loop().create_future())
        with self._changed:
            mine = self._sizes.get(flow, 0) + size
            if size and crowded(mine, sum(self._sizes.values()) + size, self._most_waiting):
                raise QueueFull(f"too many requests wait to be read ({self._name})", retry_after_s=_LATER_S)
            self._sizes[flow] = mine
            self._shares.enter(flow, self._works.keys(), _CREDIT_S)
            self._works.setdefault(flow, deque()).append(work)
            self._fresh += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            result: T = await work.done
        finally:
            work.left = True
        return result

    def stop(self) -> None:
        """End the thread after the piece that it does; what waits is never done."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def _loop(self) -> None:
        while (work := self._next()) is not None:
            began = self._clock()
            over = self._one(work)
            with self._changed:
                took = self._clock() - began
                self._shares.charge(work.flow, took)
                self._fresh -= not work.begun
                work.begun = True
                if over is not None:
                    self._forget(work)
                else:
                    # The flow's others have their turns before it.
                    self._works[work.flow].rotate(-1)
                    if self._busy():
                        self._changed.wait_for(lambda: self._fresh > 0 or self._stopping, took * RESTS)
            # Who has the result finds the room of its work free.
            if over is not None:
                over()

    def _next(self) -> _Work | None:
        """Return whose turn it is, the first of its flow's; None at the end."""
        with self._changed:
            while not self._works and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return None
            return self._works[min(self._works, key=self._shares.clock)][0]

    def _forget(self, work: _Work) -> None:
        works = self._works[work.flow]
        works.popleft()
        self._sizes[work.flow] -= work.size
        if not works:
            del self._works[work.flow], self._sizes[work.flow]

    def _one(self, work: _Work) -> Callable[[], None] | None:
        """Do a piece; return what hands the result over when it was the last."""
        if work.left:
            work.pieces.close()
            return lambda: None
        try:
            next(work.pieces)
        except StopIteration as end:
            return partial(self._hand, work, end.value, None)
        except Exception as error:
            return partial(self._hand, work, None, error)
        return None

    @staticmethod
    def _hand(work: _Work, result: Any, error: Exception | None) -> None:
        def hand() -> None:
            if work.done.done():
                return
            if error is not None:
                work.done.set_exception(error)
            else:
                work.done.set_result(result)

        loop = work.done.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(hand)
