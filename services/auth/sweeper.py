"""Looks after blocks and leases in the background, and takes back what vanished holders had."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from services.auth.adapters.ledger import Ledger
from services.auth.domain.pools import Pools
from services.common import logs
from services.common.errors import Unavailable

_log = logs.get("sweeper")
_BATCH = 200
_TIDY_S = 60.0


class Sweeper:
    """Tends this replica's pools, and ends anybody's blocks whose time is over, while its context is open.

    Args:
        tidy: Forgets what is over and never counted as money; called once a minute.
        every_s: How often it looks.
        patience_s: After the database was away, how long it waits before it takes anything back: settlements that
            waited meanwhile come first.
    """

    def __init__(
        self,
        ledger: Ledger,
        pools: Pools,
        tidy: Callable[[], Awaitable[None]],
        *,
        every_s: float,
        patience_s: float,
    ) -> None:
        self._ledger = ledger
        self._pools = pools
        self._tidy = tidy
        self._tidy_at = time.monotonic() + _TIDY_S
        self._every_s = every_s
        self._patience_s = patience_s
        self._not_before = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="sweeper")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._round()
            except Unavailable:
                self._not_before = time.monotonic() + self._patience_s
                _log.warning("sweep.postponed")
            except Exception:
                # A bug must not end the only thing that gives lost quota back.
                _log.exception("sweep.failed")
            await asyncio.sleep(self._every_s)

    async def _round(self) -> None:
        patient = time.monotonic() < self._not_before
        await self._pools.tend(patient=patient)
        if patient:
            return
        while (ended := await self._ledger.expire(limit=_BATCH)) > 0:
            _log.info("blocks.expired", count=ended)
        while (lost := await self._ledger.lose(limit=_BATCH)) > 0:
            _log.info("reservations.lost", count=lost)
        if time.monotonic() > self._tidy_at:
            self._tidy_at = time.monotonic() + _TIDY_S
            await self._tidy()
