"""Connections to PostgreSQL, and word of what others committed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from services.common import database, logs
from services.common.beats import until_beat_s
from services.common.errors import Unavailable

_log = logs.get("tasks.database")

Link = database.Link
T = TypeVar("T")

QUEUE: Final = "tasks_queue"
"""Told when something new can be claimed."""
EVENTS: Final = "tasks_events"
"""Told a task's id when its log grew."""
CANCEL: Final = "tasks_cancel"
"""Told when a running task's account asked for its end."""
WEBHOOKS: Final = "tasks_webhooks"
"""Told when a webhook is due."""
BATCHES: Final = "tasks_batches"
"""Told when a request of a batch of messages can be claimed."""
OWED: Final = "tasks_owed"
"""Told when a task ended whose quota is to be booked."""

REST_S: Final = 20.0
"""How long, in the mean, nothing is looked for where there is nothing to do: what begins is told."""
_CALLED: Final = "moa tasks, objects in "
_ALIVE_S: Final = 60.0
"""After so long without word the connection is asked whether it stands."""
_CHECK_S: Final = 5.0
_EVERY_S: Final = 2.0
_AGAIN_S: Final = 0.3
"""How long after a write that failed it is tried again."""
_ANSWER_S: Final = 25.0
"""How long a transaction may take: its statements are refused earlier by a server that is there."""


class Database(database.Database):
    """A pool of connections.

    Args:
        url: As libpq takes it.
        size: Connections at most.
        wait_s: How long one is waited for.
        pooled: As `database.Database`.
    """

    def __init__(self, url: str, *, size: int = 12, wait_s: float = 5.0, pooled: bool = False) -> None:
        super().__init__(
            url,
            what="tasks",
            size=size,
            wait_s=wait_s,
            statement_s=20,
            lock_s=10,
            answer_s=_ANSWER_S,
            pooled=pooled,
        )


async def steadily(write: Callable[[], Awaitable[T]]) -> T:
    """Write to the database, again and again while it is away. The lease bounds it: whoever loses it is cancelled."""
    while True:
        try:
            return await write()
        except Unavailable:
            await asyncio.sleep(_AGAIN_S)


class Notices:
    """Wakes whoever waits for something of a name to change. Spurious wakes are part of the deal."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)

    def notify(self, name: str) -> None:
        """Wake all who wait for `name`."""
        for event in self._waiting.get(name, ()):
            event.set()

    def notify_all(self) -> None:
        """Wake everybody: something may have been missed."""
        for name in self._waiting:
            self.notify(name)

    @contextmanager
    def listening(self, name: str) -> Iterator[asyncio.Event]:
        """Return an event that is set at each notice of `name`; clear it before looking."""
        event = asyncio.Event()
        self._waiting[name].add(event)
        try:
            yield event
        finally:
            self._waiting[name].discard(event)
            if not self._waiting[name]:
                del self._waiting[name]


class Listener:
    """Turns the database's notifications into notices, over one connection that is made anew when it breaks.

    Args:
        url: The database, without a pooler.
        notices: Who is woken.
        objects: What tells this process's store of objects from others'. Its connection is called by it, so that
            processes whose stores are apart see each other: a task's pictures are where the worker is that took it.
    """

    def __init__(self, url: str, notices: Notices, *, objects: str = "") -> None:
        self._url = url
        self._notices = notices
        self._name = f"{_CALLED}{objects}" if objects else ""

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                await self._listen()
            except database.AWAY as error:
                _log.warning("listener.lost", why=type(error).__name__)
            except Exception:
                # A bug must not leave everybody waiting for notices.
                _log.exception("listener.failed")
            await asyncio.sleep(0.5)

    async def _listen(self) -> None:
        url = make_conninfo(self._url, application_name=self._name) if self._name else self._url
        link = await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=2)
        async with link:
            for channel in (QUEUE, EVENTS, CANCEL, WEBHOOKS, OWED, BATCHES):
                await link.execute(f"listen {channel}")
            self._notices.notify_all()
            await self._look_for_others(link)
            while True:
                async for note in link.notifies(timeout=0):
                    self._notices.notify(note.payload or note.channel)
                await database.spoken(link, within_s=_ALIVE_S)
                with database.answering(link, within_s=_CHECK_S):
                    await link.execute("select 1")

    async def _look_for_others(self, link: psycopg.AsyncConnection[TupleRow]) -> None:
        """Tell the operator of processes whose objects are elsewhere: what they make is not found through this one."""
        if self._name:
            with database.answering(link, within_s=_CHECK_S):
                others = await link.execute(
                    "select distinct application_name from pg_stat_activity where datname = current_database() "
                    "and starts_with(application_name, %s) and application_name <> %s",
                    (_CALLED, self._name),
                )
                if found := len(await others.fetchall()):
                    _log.error("store.apart", others=found)


async def wait(event: asyncio.Event, at_most_s: float = _EVERY_S) -> None:
    """Wait for a notice, or for so long: a notification that was lost with its connection delays, and loses nothing."""
    if at_most_s == REST_S:
        at_most_s = until_beat_s(REST_S)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await event.wait()
