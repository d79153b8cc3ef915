"""The models in memory: loaded on first use, shared, unloaded when room is needed or the catalogue changes them.

A model's key is its catalogue id and how it is loaded. A changed `load` is another key: new requests get the new
weights, running ones end on the old, which leave when the last of them ended.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol

import msgspec

from inference import metrics
from inference.engine import Standing
from services.catalogue import Model
from services.common import logs
from services.common.errors import MoaError, ModelMisconfigured, Unavailable

_log = logs.get("registry")

Report = Callable[[str, float], None]
"""Told the stage of loading and the part that is done, from any thread."""


class Engine(Protocol):
    """A loaded model with its loop."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights."""
        ...

    def start(self) -> None:
        """Start the loop's thread."""
        ...

    def stop(self) -> None:
        """End the loop and wait for its thread."""
        ...

    def standing(self) -> Standing:
        """Return what it has to do and does."""
        ...


Build = Callable[[Model, Report], Engine]
"""Loads a model; runs in the loader's thread."""

_Key = tuple[str, bytes]

_SPARE_BYTES = 128 << 20
"""Memory that no model may take: the process and its neighbours work in it."""


class _Resident:
    """One model: being loaded (`ready` is pending), loaded, or failed."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.ready: asyncio.Future[Engine] = asyncio.get_running_loop().create_future()
        self.users = 0
        self.used_at = time.monotonic()
        self.stale = False
        self.need = 0
        """Bytes that it takes, or will; 0 until it was let in."""
        self.stage: tuple[str, float] = ("waiting", 0.0)
        self.listeners: list[Report] = []
        self.gentle = False
        """Whether nobody asked for it yet: it is loaded in the background."""
        self.hurry: Callable[[], None] = lambda: None
        """Raises the priority of its load."""

    def report(self, stage: str, fraction: float) -> None:
        """Tell every listener; called from the loader's thread."""
        self.stage = (stage, fraction)
        for listener in tuple(self.listeners):
            listener(stage, fraction)

    @property
    def engine(self) -> Engine | None:
        """The engine, once it is loaded."""
        if self.ready.done() and not self.ready.cancelled() and self.ready.exception() is None:
            return self.ready.result()
        return None


class Held(NamedTuple):
    """A model in memory, or on its way there."""

    model: Model
    engine: Engine | None
    """None while it is loading."""
    users: int
    need: int
    """Bytes that it takes, or will; 0: not known yet."""
    stage: str
    part: float
    """Which part of the loading is done."""


class Registry:
    """Loads and holds the engines of catalogue models.

    Args:
        build: Loads a model.
        budget_bytes: Bytes that the weights in memory may have together; idle models leave for a new one, the least
            recently used first. 0: no bound.
        tidy: Gives an unloaded model's memory back.
        locate: Gives a model with its files' place; raises Unavailable while they are not here.
        needs: Tells how many bytes a model will take; 0: it cannot tell.
        available: Tells how many bytes the machine can still give; None: it cannot tell.
        wait_s: How long a model waits for room that others use.
        lower: Lowers the calling thread's priority, for what is loaded in the background; returns what raises it again.
    """

    def __init__(
        self,
        build: Build,
        *,
        budget_bytes: int = 0,
        tidy: Callable[[], object] = gc.collect,
        locate: Callable[[Model], Model] = lambda model: model,
        needs: Callable[[Model], int] = lambda model: 0,
        available: Callable[[], int | None] = lambda: None,
        wait_s: float = 30.0,
        lower: Callable[[], Callable[[], None]] = lambda: lambda: None,
    ) -> None:
        self._lower = lower
        self._needs = needs
        self._available = available
        self._wait_s = wait_s
        self._freed = asyncio.Event()
        self._build = build
        self._locate = locate
        self._tidy = tidy
        self.budget_bytes = budget_bytes
        self._residents: dict[_Key, _Resident] = {}
        # One load at a time: two at once would need both models' memory at its peak. Those of the background have a
        # thread of their own, whose priority cannot be raised again as a rule.
        self._loading = asyncio.Lock()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._warmer = ThreadPoolExecutor(1, thread_name_prefix="warmer")
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def use(self, model: Model, report: Report | None = None) -> AsyncIterator[Engine]:
        """Hold a model in memory for the body; load it first if need be, telling `report` how far it is.

        Raises what loading raised.
        """
        resident = self._resident(self._locate(model))
        if resident.gentle:
            resident.gentle = False
            resident.hurry()
        resident.users += 1
        try:
            if report is not None and not resident.ready.done():
                report(*resident.stage)
                resident.listeners.append(report)
            try:
                engine = await asyncio.shield(resident.ready)
            finally:
                if report in resident.listeners:
                    resident.listeners.remove(report)
            yield engine
        finally:
            resident.users -= 1
            resident.used_at = time.monotonic()
            if not resident.users:
                self._left(resident)

    async def warm(self, model: Model) -> None:
        """Load a model at low priority, if it has room beside what is loaded.

        Raises what loading raised, and Unavailable where there is no room.
        """
        resident = self._resident(self._locate(model), gentle=True)
        await asyncio.shield(resident.ready)

    def loading(self, model: Model) -> float | None:
        """Tell which part of a model's loading is done; None while it is not being loaded."""
        found = next((r for r in reversed(self._residents.values()) if r.model.full_id == model.full_id), None)
        return None if found is None or found.ready.done() else found.stage[1]

    def held(self) -> list[Held]:
        """Return the models in memory and on their way there, in the order in which they came."""
        return [Held(r.model, r.engine, r.users, r.need, *r.stage) for r in self._residents.values()]

    def loaded(self) -> list[str]:
        """List the ids of the models in memory, the most recently used last."""
        ready = [r for r in self._residents.values() if r.engine is not None]
        return [r.model.id for r in sorted(ready, key=lambda r: r.used_at)]

    def engines(self) -> dict[str, Engine]:
        """Return the engines of loaded models, by the models' ids."""
        return {r.model.id: r.engine for r in self._residents.values() if r.engine is not None}

    @property
    def busy(self) -> bool:
        """Whether any engine has work; for any thread."""
        residents = list(self._residents.values())
        return any(getattr(resident.engine, "busy", False) for resident in residents)

    async def close(self) -> None:
        """Stop every engine."""
        for resident in list(self._residents.values()):
            await self._unload(resident)
        self._residents.clear()
        for pool in (self._loader, self._warmer):
            pool.shutdown(wait=False, cancel_futures=True)

    def _left(self, resident: _Resident) -> None:
        """Do what follows when nobody uses a model any more."""
        self._freed.set()
        if resident.stale:
            self._spawn(self._unload(resident))
        elif resident.model.load is not None and (idle_s := resident.model.load.idle_s):
            asyncio.get_running_loop().call_later(idle_s, self._retire_idle, resident, resident.used_at)

    def _retire_idle(self, resident: _Resident, used_at: float) -> None:
        """Unload a model that was not used since."""
        if resident.users or resident.used_at != used_at or resident.engine is None:
            return
        for key in [key for key, other in self._residents.items() if other is resident]:
            del self._residents[key]
            self._spawn(self._unload(resident))

    def _resident(self, model: Model, *, gentle: bool = False) -> _Resident:
        key = _key(model)
        resident = self._residents.get(key)
        if resident is None:
            resident = self._residents[key] = _Resident(model)
            resident.gentle = gentle
            self._retire_older(key)
            self._spawn(self._load(key, resident))
        return resident

    def _retire_older(self, key: _Key) -> None:
        """Let earlier versions of the same model go once nobody uses them."""
        for other in [k for k in self._residents if k[0] == key[0] and k != key]:
            resident = self._residents.pop(other)
            resident.stale = True
            if not resident.users:
                self._spawn(self._unload(resident))

    async def _load(self, key: _Key, resident: _Resident) -> None:
        model = resident.model
        started = time.perf_counter()
        try:
            await self._let_in(resident, await asyncio.to_thread(self._needs, model))
            engine = await self._built(resident)
        except Exception as error:
            self._residents.pop(key, None)
            self._freed.set()
            if isinstance(error, MoaError):
                _log.error("model.refused", model=model.id, why=error.message)
                resident.ready.set_exception(error)
            else:
                _log.exception("model.failed", model=model.id)
                resident.ready.set_exception(Unavailable(f"model {model.id} could not be loaded"))
            resident.ready.exception()  # nobody may be waiting any more
            return
        engine.start()
        took = time.perf_counter() - started
        metrics.LOAD_SECONDS.labels(model.id).observe(took)
        metrics.RESIDENT_BYTES.labels(model.id).set(engine.size_bytes)
        _log.info("model.loaded", model=model.id, size_bytes=engine.size_bytes, seconds=round(took, 2))
        resident.need = max(resident.need, engine.size_bytes)
        resident.ready.set_result(engine)
        if not resident.users:
            self._left(resident)
        # Where the size was not known before.
        while self.budget_bytes < sum(r.need for r in self._residents.values()) and self.budget_bytes:
            if not await self._retire_oldest(spare=resident):
                break

    async def _built(self, resident: _Resident) -> Engine:
        """Load a model, after those that are being loaded."""
        loop = asyncio.get_running_loop()

        def gently() -> Engine:
            resident.hurry = self._lower()
            if not resident.gentle:  # somebody asked meanwhile
                resident.hurry()
            return self._build(resident.model, resident.report)

        async with self._loading:
            if resident.gentle:
                return await loop.run_in_executor(self._warmer, gently)
            return await loop.run_in_executor(self._loader, self._build, resident.model, resident.report)

    async def _let_in(self, resident: _Resident, need: int) -> None:
        """Unload idle models, least recently used first, until there is room; wait for those that answer.

        Raises ModelMisconfigured when the model never has room here, Unavailable when it has none within `wait_s`.
        """
        name, loop = resident.model.id, asyncio.get_running_loop()
        until = loop.time() + self._wait_s
        if self.budget_bytes and need > self.budget_bytes:
            raise ModelMisconfigured(
                f"model {name} needs {_mb(need)} of memory; {_mb(self.budget_bytes)} are for models here"
            )
        while not self._fits(need):
            if resident.gentle:
                raise Unavailable(f"model {name} is not loaded in the background, for it has no room beside the others")
            self._freed.clear()
            if await self._retire_oldest():
                continue
            others = [r for r in self._residents.values() if r is not resident and (r.need or r.users)]
            if not any(r.need for r in others):
                raise Unavailable(f"model {name} needs {_mb(need)} of memory, which this machine does not have now")
            try:
                async with asyncio.timeout_at(until):
                    await self._freed.wait()
            except TimeoutError:
                using = ", ".join(sorted({r.model.id for r in others if r.need}))
                message = f"model {name} has no room in memory beside what is answering ({using}); try again"
                raise Unavailable(message, retry_after_s=5) from None
        resident.need = need

    def _fits(self, need: int) -> bool:
        """Return whether so many bytes have room beside what is loaded and what is being loaded."""
        others = self._residents.values()
        if self.budget_bytes and need + sum(r.need for r in others) > self.budget_bytes:
            return False
        free = self._available() if need else None
        coming = sum(r.need for r in others if r.engine is None)
        return free is None or need + coming + _SPARE_BYTES <= free

    async def _retire_oldest(self, spare: _Resident | None = None) -> bool:
        """Unload the idle model that was used longest ago; tell whether there was one."""
        idle = [(k, r) for k, r in self._residents.items() if r.engine is not None and not r.users and r is not spare]
        if not idle:
            return False
        key, resident = min(idle, key=lambda pair: pair[1].used_at)
        del self._residents[key]
        await self._unload(resident)
        return True

    async def _unload(self, resident: _Resident) -> None:
        engine = resident.engine
        if engine is None:
            return
        await asyncio.to_thread(engine.stop)
        resident.ready = asyncio.get_running_loop().create_future()  # nothing may hold the engine any more
        del engine
        await asyncio.to_thread(self._tidy)
        self._freed.set()
        metrics.RESIDENT_BYTES.labels(resident.model.id).set(0)
        _log.info("model.unloaded", model=resident.model.id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _mb(size_bytes: int) -> str:
    return f"{-(-size_bytes // 10**6)} MB"


def _key(model: Model) -> _Key:
    return model.full_id, msgspec.json.encode((model.load, model.context_tokens))
