"""Simulated time: SimPy's clock, for asyncio and for whoever reads `time`.

The code of quotas is asyncio's. A loop whose selector waits for SimPy's next event, instead of for sockets, runs it
unchanged: what sleeps there wakes when SimPy's clock has come so far.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from selectors import BaseSelector, SelectorKey
from typing import Any, Final, TypeVar

import simpy

from services.auth.domain.pools import Pools
from services.auth.domain.recalls import Recalls
from services.auth.sweeper import Sweeper
from services.common.beats import until_beat_s
from services.common.isolate import Isolation
from services.common.rpc.client import ConnectionWatch
from services.common.throttle import Throttle

T = TypeVar("T")

BEGAN: Final = 1_800_000_000.0
"""Seconds since 1970 when every simulation begins."""
_TOOK_THE_CLOCK: Final = (
    until_beat_s,
    *(made.__init__ for made in (Pools, Recalls, Sweeper, Isolation, ConnectionWatch, Throttle)),
)
"""What has `time.monotonic` as a default, which was read when it was defined."""


class SimulatedTime(asyncio.SelectorEventLoop):
    """A loop in the time of a SimPy environment."""

    def __init__(self, env: simpy.Environment) -> None:
        super().__init__(_Waiting(self))
        self.env = env

    def time(self) -> float:
        """Return the seconds that were simulated."""
        return float(self.env.now)

    @property
    def is_due(self) -> bool:
        """Whether anything can run at this moment."""
        return bool(self._ready)  # type: ignore[attr-defined]  # what asyncio's own base loop has


class _Waiting(BaseSelector):
    """Lets SimPy go on where a selector would wait. Sockets are not looked at: a simulation has none."""

    def __init__(self, loop: SimulatedTime) -> None:
        self._loop = loop
        self._map: dict[Any, SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        key = self._map[fileobj] = SelectorKey(fileobj, 0, events, data)
        return key

    def unregister(self, fileobj: Any) -> SelectorKey:
        return self._map.pop(fileobj)

    def get_map(self) -> Any:
        return self._map

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        if timeout == 0 or self._loop.is_due:
            return []
        env = self._loop.env
        until = float("inf") if timeout is None else env.now + timeout
        while env.peek() <= until:
            if env.peek() == float("inf"):
                raise RuntimeError("the simulation waits for what never comes")
            env.step()
            if self._loop.is_due:
                return []
        env.run(until=until)
        return []


async def come(event: simpy.Event) -> Any:
    """Return what an event of SimPy brings, once it has come."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()

    def told(done: simpy.Event) -> None:
        if not result.done():
            result.set_result(done.value)

    if event.callbacks is None:
        return event.value
    event.callbacks.append(told)
    return await result


def simulated(work: Callable[[simpy.Environment], Awaitable[T]]) -> T:
    """Run work in simulated time, and return what it returns."""
    env = simpy.Environment()
    loop = SimulatedTime(env)
    with _clock(lambda: float(env.now)):
        try:
            return loop.run_until_complete(_ended(work(env)))
        finally:
            loop.close()


async def _ended(work: Awaitable[T]) -> T:
    try:
        return await work
    finally:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@contextlib.contextmanager
def _clock(now: Callable[[], float]) -> Iterator[None]:
    """Have everybody who reads a clock read this one."""
    real = time.monotonic
    defaults = {one: (one.__defaults__, one.__kwdefaults__) for one in _TOOK_THE_CLOCK}
    instead: dict[str, Callable[[], float]] = {
        "monotonic": now,
        "time": lambda: BEGAN + now(),
        "time_ns": lambda: int((BEGAN + now()) * 1e9),
    }
    before = {name: getattr(time, name) for name in instead}
    try:
        for one, (positional, named) in defaults.items():
            one.__defaults__ = positional and tuple(now if value is real else value for value in positional)
            one.__kwdefaults__ = named and {name: now if value is real else value for name, value in named.items()}
        for name, read in instead.items():
            setattr(time, name, read)
        yield
    finally:
        for name, read in before.items():
            setattr(time, name, read)
        for one, (positional, named) in defaults.items():
            one.__defaults__, one.__kwdefaults__ = positional, named


def after(env: simpy.Environment, delay_s: float, do: Callable[[], object]) -> None:
    """Have something done once so many seconds were simulated."""

    def process() -> Generator[simpy.Event, Any, None]:
        yield env.timeout(delay_s)
        do()

    env.process(process())
