"""Hears from PostgreSQL which accounts changed, and knows when it may have missed something.

That nothing was missed is known by asking: often while keys are taken from memory on its word, seldom while nobody
asks for any.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import psycopg

from services.common import database, logs

_log = logs.get("feed")

_BEAT_S: Final = 0.1
ANSWER_S: Final = 0.3
_RETRY_S: Final = 0.2
_BUSY_S: Final = 2.0
"""How long after a use it still asks often."""
_REST_S: Final = 5.0


class Feed:
    """Listens while its context is open.

    `sure_at` is the last moment up to which every change is known to have been heard.

    Args:
        changed: Called with the id of an account that changed; with None when anything may have.
    """

    def __init__(self, url: str, changed: Callable[[str | None], None]) -> None:
        self._url = url
        self._changed = changed
        self._task: asyncio.Task[None] | None = None
        self._whole = True
        self._used_at = float("-inf")
        self._stirred = asyncio.Event()
        self.sure_at = float("-inf")

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="feed")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def used(self, now: float) -> None:
        """Note that somebody relies on what is heard."""
        self._used_at = now
        self._stirred.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (psycopg.Error, OSError, TimeoutError) as error:
                if self._whole:
                    self._whole = False
                    _log.warning("feed.broken", why=type(error).__name__)
            await asyncio.sleep(_RETRY_S)

    async def _listen(self) -> None:
        async with asyncio.timeout(5):
            link = await psycopg.AsyncConnection.connect(self._url, autocommit=True, connect_timeout=2)
        async with link:
            await link.execute("listen moa_accounts")
            self._whole = True
            # What changed while nobody listened is unknown.
            self._changed(None)
            while True:
                asked_at = time.monotonic()
                async with asyncio.timeout(ANSWER_S + _BEAT_S):
                    await link.execute("select 1")
                    # Notices of what was committed before the statement began have arrived with its answer.
                    async for notice in link.notifies(timeout=0):
                        self._changed(notice.payload)
                    self.sure_at = asked_at
                    self._stirred.clear()
                    busy = asked_at - self._used_at < _BUSY_S
                    async for notice in link.notifies(timeout=_BEAT_S if busy else 0):
                        self._changed(notice.payload)
                if not busy:
                    await database.spoken(link, within_s=_REST_S, stirred=self._stirred)
