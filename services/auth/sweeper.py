"""Looks after blocks and leases in the background, and takes back what vanished holders had."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from uuid import UUID

from services.auth.adapters.ledger import Ledger
from services.auth.domain.pools import Pools
from services.common import logs
from services.common.background_loop import BackgroundLoop
from services.common.beats import until_beat_s
from services.common.errors import Unavailable
from services.common.isolate import Isolation

_log = logs.get("sweeper")
_BATCH = 200
TIDY_S = 60.0


class Sweeper(BackgroundLoop):
    """Tends this replica's pools, and ends anybody's blocks whose time is over, while its context is open.

    Args:
        tidy: What forgets things that are over and never counted as money, by name; called once a minute.
        every_s: How often it looks.
        rest_s: How often it looks while no block and no reservation is open.
        patience_s: After the database was away, how long it waits before it takes anything back: settlements that
            waited meanwhile come first.
    """

    task_name = "sweeper"

    def __init__(
        self,
        ledger: Ledger,
        pools: Pools,
        tidy: Mapping[str, Callable[[], Awaitable[None]]],
        *,
        every_s: float,
        rest_s: float,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._pools = pools
        self._tidy = tidy
        self._clock = clock
        self._tidy_at = clock() + TIDY_S
        self._every_s = every_s
        self._rest_s = rest_s
        self._patience_s = patience_s
        self._not_before = 0.0
        self._duties: Isolation[str] = Isolation("sweep", clock=clock)
        self._blocks: Isolation[UUID] = Isolation("expire", clock=clock)
        self._reservations: Isolation[str] = Isolation("lose", clock=clock)

    async def _run(self) -> None:
        while True:
            pause_s = self._every_s
            try:
                if await self._has_work():
                    await self.round()
                else:
                    # What is borrowed from here on is due later than the next look.
                    pause_s = until_beat_s(self._rest_s)
            except Unavailable:
                self._not_before = self._clock() + self._patience_s
                _log.warning("sweep.postponed")
            except Exception:
                # A bug must not end the only thing that gives lost quota back.
                _log.exception("sweep.failed")
            await asyncio.sleep(pause_s)

    async def _has_work(self) -> bool:
        """Return whether any duty may have anything to do. Raises Unavailable."""
        if self._pools.in_use or self._clock() > self._tidy_at:
            return True
        try:
            return await self._ledger.owes()
        except Unavailable:
            raise
        except Exception:
            return True

    async def round(self) -> None:
        """Do every duty once. What fails, a row or a duty, keeps no other back. Raises Unavailable."""
        patient = self._clock() < self._not_before
        duties = [self._tended] if patient else [self._tended, self._expired, self._lost, self._tidied]
        await self._each({duty.__name__.strip("_"): partial(duty, patient=patient) for duty in duties})

    async def _each(self, duties: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
        async def do(names: Sequence[str]) -> None:
            for name in names:
                await duties[name]()

        for name in duties:
            await self._duties.do([name], do)

    async def _tended(self, *, patient: bool) -> None:
        await self._pools.tend(patient=patient)

    async def _expired(self, *, patient: bool) -> None:
        while True:
            due = await self._ledger.overdue(limit=_BATCH, but=[UUID(name) for name in self._blocks.resting()])
            ended = sum(await self._blocks.do(due, self._ledger.expire))
            if ended == 0:
                return
            _log.info("blocks.expired", count=ended)

    async def _lost(self, *, patient: bool) -> None:
        while True:
            due = await self._ledger.stale(limit=_BATCH, but=self._reservations.resting())
            lost = sum(await self._reservations.do(due, self._ledger.lose))
            if lost == 0:
                return
            _log.info("reservations.lost", count=lost)

    async def _tidied(self, *, patient: bool) -> None:
        if self._clock() > self._tidy_at:
            self._tidy_at = self._clock() + TIDY_S
            await self._each(self._tidy)
