"""What others committed of accounts and teams, as the database tells it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg.pq import ExecStatus

from services.common import database, logs
from services.common.background_loop import BackgroundLoop
from services.common.beats import until_beat_s

_log = logs.get("feed")

_BEAT_S: Final = 0.1
ANSWER_S: Final = 0.3
_RETRY_S: Final = 0.2
_BUSY_S: Final = 2.0
"""How long after a use it still asks often."""
_REST_S: Final = 5.0


class Feed(BackgroundLoop):
    """Hears from PostgreSQL which accounts and teams changed, while its context is open.

    It knows when it may have missed one. That nothing was missed is known by asking: often while keys are taken from
    memory on its word, seldom while nobody asks for any. `sure_at` is the last moment up to which every change is known
    to have been heard.

    Args:
        changed: Called with the id of an account or a team that changed; with None when anything may have.
    """

    task_name = "feed"

    def __init__(self, url: str, changed: Callable[[str | None], None]) -> None:
        self._url = url
        self._changed = changed
        self._whole = True
        self._used_at = float("-inf")
        self._stirred = asyncio.Event()
        self.sure_at = float("-inf")

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
                with _Hearing(link, self._changed) as hearing:
                    busy = True
                    while busy:
                        busy = await self._asked(hearing)
                        await asyncio.sleep(_BEAT_S if busy else 0)
                await database.spoken(link, within_s=until_beat_s(_REST_S), stirred=self._stirred)

    async def _asked(self, hearing: _Hearing) -> bool:
        """Be sure up to now; return whether somebody relied on it of late."""
        asked_at = time.monotonic()
        async with asyncio.timeout(ANSWER_S + _BEAT_S):
            await hearing.ask()
        self.sure_at = asked_at
        self._stirred.clear()
        return asked_at - self._used_at < _BUSY_S


class _Hearing:
    """Hears notices as they come, and asks whether any is missing, while its block lasts.

    libpq, read as soon as there is something: psycopg's waiting takes five times the CPU, and a feed in use asks ten
    times a second.
    """

    def __init__(self, link: psycopg.AsyncConnection[Any], heard: Callable[[str], None]) -> None:
        self._wire = link.pgconn
        self._descriptor = link.pgconn.socket
        """libpq closes it once the server is gone, and tells it no more; -1: it is read no more."""
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[None] | None = None
        self._failure: psycopg.Error | None = None

    def __enter__(self) -> Self:
        self._loop.add_reader(self._descriptor, self._read)
        self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        """Read no more. Once: another connection may have the number soon after."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            self._descriptor = -1

    async def ask(self) -> None:
        """Return when every notice of what was committed before has been heard. Raises psycopg.Error."""
        if self._failure is not None:
            raise self._failure
        self._answer = self._loop.create_future()
        self._wire.send_query(b"select 1")
        self._wire.flush()
        await self._answer

    def _read(self) -> None:
        answered = False
        try:
            self._wire.consume_input()
            while self._answer is not None and not answered and not self._wire.is_busy():
                result = self._wire.get_result()
                answered = result is None
                if result is not None and result.status != ExecStatus.TUPLES_OK:
                    raise psycopg.OperationalError("the server does not answer as it should")
            # They come before the answer's end.
            while (notice := self._wire.notifies()) is not None:
                self._heard(notice.extra.decode())
        except psycopg.Error as error:
            self._failure = error
            self._leave()
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(error)
            return
        if answered and self._answer is not None:
            answer, self._answer = self._answer, None
            if not answer.done():
                answer.set_result(None)
