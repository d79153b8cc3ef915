"""Connections to PostgreSQL, also to one that is there and does not answer: stopped, on a disk that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ClassVar, Final, Self
from weakref import WeakKeyDictionary

import psycopg
from prometheus_client import Counter, Gauge
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from services.common import logs
from services.common.cancelling import cancel_and_wait
from services.common.clock import CLOCK
from services.common.errors import InvalidField, Unavailable
from services.common.isolate import OneFailed
from services.common.reminder import Reminder

Link = psycopg.AsyncConnection[TupleRow]

READ_ONLY: Final = psycopg.errors.ReadOnlySqlTransaction
"""What is raised by a server that takes no writes: one that gave its place to another, or whose operator said so."""
AWAY: Final = (psycopg.OperationalError, psycopg.InterfaceError, READ_ONLY, PoolTimeout, OSError)
"""What is raised while the database is not there."""

LOST: Final = Gauge("moa_database_lost", "1 while this process finds its database away, and refuses what needs it.")
FULL: Final = Counter("moa_database_full_total", "Statements refused because the database's disk has no room.")

_log = logs.get("database")
_CHECK_S: Final = 1.0
_HEARD_S: Final = 0.05
"""How long a loop has to hear what came while it stood still."""
_PROBE_S: Final = 0.3
_MORE_S: Final = 1.0
_BACK_S: Final = 5.0
"""How much longer, each time, and how long at most who looks whether it is back waits for it. One that is slow, for
want of a processor, is not away; but nobody is served while a connection that is dead is waited for.
"""
_MOST_IDLE_S: Final = 5.0
"""After so long without need for it a session is ended, one in each such time: it takes 2 to 5 MB at the server, and a
start or many callers at once need a dozen for a moment. The next one takes some 5 ms of CPU."""
_TIME_S: Final = 5.0
"""How long a new connection is waited for to tell the time."""
BRIEFLY_S: Final = 2.0
"""For so long after the database was lost who asks for it waits for it: sessions that were ended are soon made anew."""
_FIRST_S: Final = 10.0
"""How long a first connection is waited for that nobody refuses."""
_LOOK_EVERY_S: Final = 0.05
_WORDS: Final = 300
"""Letters of what a server said that are logged."""


class CutOff(Unavailable):
    """The connection was lost amid a transaction, whose outcome nobody knows."""


class _Connection(psycopg.AsyncConnection[TupleRow]):
    """A connection that leaves word why none was had."""

    refusals: ClassVar[dict[str, str]] = {}
    """What was said last, by the URL that was asked."""

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """Return a connection."""
        try:
            link = await super().connect(conninfo, **kwargs)
        except psycopg.Error as error:
            cls.refusals[conninfo] = _words(error)
            raise
        cls.refusals.pop(conninfo, None)
        return link


class Database:
    """A pool of connections.

    Args:
        url: As libpq takes it.
        what: What cannot be reached without it, for callers: `accounts`.
        size: Connections at most.
        wait_s: How long a connection is waited for before the database counts as away.
        check_s: How long the sign of life of one that was kept.
        statement_s: How long the server works on one statement.
        lock_s: How long it waits for a lock.
        answer_s: How long a transaction may take: its statements are refused earlier by a server that is there.
        at_once: Whether callers are told at once, without a connection, until a database that was away is back.
        pooled: Whether a pooler is between that gives each transaction any of its sessions (PgBouncer's transaction
            mode): nothing is left in a session then, no setting and no prepared statement.
        tells_time: Whether this process goes by its time (`clock`): one server's, not that of a replica beside it.
    """

    def __init__(
        self,
        url: str,
        *,
        what: str,
        size: int,
        wait_s: float,
        check_s: float = _CHECK_S,
        statement_s: float,
        lock_s: float,
        answer_s: float,
        at_once: bool = False,
        pooled: bool = False,
        tells_time: bool = True,
    ) -> None:
        self.url = url
        self._what = what
        self._answer_s = answer_s
        self._at_once = at_once
        self._check_s = self._back_s = check_s
        self._answered_at = float("-inf")
        """When the database last did what a transaction asked for."""
        limits = {"statement_timeout": f"{statement_s * 1000:.0f}", "lock_timeout": f"{lock_s * 1000:.0f}"}
        self._begin = "; ".join(f"set local {name} = {value}" for name, value in limits.items()) if pooled else ""
        of_sessions: dict[str, Any] = {"options": " ".join(f"-c {name}={value}" for name, value in limits.items())}
        if pooled:
            of_sessions = {"prepare_threshold": None}
        self._tells_time = tells_time
        self._born: WeakKeyDictionary[Link, float] = WeakKeyDictionary()
        """When each connection was made."""
        self._lost_at = self._drained_at = float("-inf")
        self._pool: AsyncConnectionPool[Link] = AsyncConnectionPool(
            url,
            connection_class=_Connection,
            min_size=1,
            max_size=size,
            open=False,
            timeout=wait_s,
            # A restart of the database leaves dead connections in the pool.
            check=self._check,
            configure=self._begun,
            reconnect_timeout=5.0,
            max_idle=_MOST_IDLE_S,
            kwargs={"connect_timeout": 2, **of_sessions},
        )
        self._probe: asyncio.Task[None] | None = None
        self._reminders: dict[type[Exception], Reminder] = {
            psycopg.errors.DiskFull: Reminder(),
            READ_ONLY: Reminder(),
        }

    @property
    def is_away(self) -> bool:
        """Return whether the database was found to be away, and has not answered since; of one `at_once` alone."""
        return self._probe is not None

    async def open(self) -> None:
        """Start to connect; does not wait for the first connection."""
        await self._pool.open()

    async def look(self) -> None:
        """Return once there is a connection, or was refused: the database counts as away then, before anybody asks."""
        first = asyncio.create_task(self._connected())
        while not first.done() and self.url not in _Connection.refusals:
            await asyncio.wait({first}, timeout=_LOOK_EVERY_S)
        if not first.done():
            await cancel_and_wait(first)
            with contextlib.suppress(Unavailable):
                async with self.transaction():
                    pass

    async def _connected(self) -> None:
        with contextlib.suppress(*AWAY):
            async with self._lent(_FIRST_S):
                pass

    async def close(self) -> None:
        """Close every connection."""
        await cancel_and_wait(self._probe)
        await self._pool.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Link]:
        """Lend a connection inside a transaction, committed at the end.

        Raises Unavailable when the database is away or takes no writes (CutOff: amid the transaction), OneFailed when
        it is there and refused a statement. Whether the commit took place is not known then.
        """
        if self._probe is not None and not await self._is_back_soon():
            raise self._is_away()
        asked_at = time.monotonic()
        lent: Link | None = None
        try:
            async with self._lent() as link:
                lent = link
                with answering(link, within_s=self._answer_s):
                    if self._begin:
                        await link.execute(self._begin)
                    yield link
            self._answered_at = time.monotonic()
        except AWAY as error:
            if of_one_statement(error):
                raise OneFailed("the database did not answer in time; try again", retry_after_s=1) from error
            # Such a database is there: it reads, and writes what needs no more room. Who takes it for one that is away
            # refuses everything for a moment after each statement that failed.
            full = isinstance(error, psycopg.errors.DiskFull)
            self._remind(error)
            # Where others were answered meanwhile it is busy, and there.
            busy = isinstance(error, PoolTimeout) and self._answered_at > asked_at
            cut = lent is not None and _ends_session(error)
            if lent is not None and cut:
                await self._let_go(lent)
            if self._at_once and self._probe is None and not full and not busy:
                reason = _words(error) if lent is not None else _Connection.refusals.get(self.url, "")
                _log.warning("database.lost", why=type(error).__name__, words=reason)
                self._lost_at = time.monotonic()
                self._probe = asyncio.create_task(
                    self._until_back(writes=isinstance(error, READ_ONLY)), name="database probe"
                )
            if full:
                raise Unavailable(
                    f"{self._what} cannot be written now: the database has no room; try again", retry_after_s=1
                ) from error
            raise self._is_away(CutOff if cut else Unavailable) from error

    async def _begun(self, link: Link) -> None:
        self._born[link] = time.monotonic()
        if self._tells_time:
            await ask_time(link, within_s=_TIME_S)

    async def _check(self, link: Link) -> None:
        within_s, began = self._check_s if self._probe is None else self._back_s, time.monotonic()
        try:
            await check(link, within_s=within_s)
        except AWAY:
            # One that is not answered in time is slow, or hangs, which says nothing of the others.
            if time.monotonic() - began < within_s:
                await self._let_go(link)
            raise

    async def _let_go(self, link: Link) -> None:
        """Have connections made anew that are as old as one that was lost: a server that ends one mostly ends all.

        The pool, left to itself, finds that out one by one, two at once and a second after each further one.
        """
        if self._born.get(link, 0.0) > self._drained_at:
            self._drained_at = time.monotonic()
            await self._pool.drain()

    async def _is_back_soon(self) -> bool:
        """Wait for the end of a loss that has just begun; return whether it has ended."""
        left_s = self._lost_at + BRIEFLY_S - time.monotonic()
        if self._probe is not None and left_s > 0:
            await asyncio.wait({self._probe}, timeout=left_s)
        return self._probe is None

    @asynccontextmanager
    async def _lent(self, wait_s: float | None = None) -> AsyncIterator[Link]:
        """Lend a connection of the pool; raise CancelledError where the caller was cancelled while it waited for one.

        `wait_s`: how long it is waited for; None: as long as usual. The pool waits by `asyncio.wait_for`, which in
        Python 3.11 drops a cancellation that comes in the same moment as the connection.
        """
        task = asyncio.current_task()
        asked = task.cancelling() if task is not None else 0
        async with self._pool.connection(timeout=wait_s) as link:
            if task is not None and task.cancelling() > asked:
                raise asyncio.CancelledError
            yield link

    def _remind(self, error: Exception) -> None:
        """Tell the operator of a database that is there and does not write."""
        if isinstance(error, psycopg.errors.DiskFull):
            FULL.inc()
        reminder = self._reminders.get(type(error))
        if reminder is not None and reminder.is_due():
            event = "database.read_only" if isinstance(error, READ_ONLY) else "database.full"
            _log.error(event, why=str(error).partition("\n")[0])

    def _is_away(self, kind: type[Unavailable] = Unavailable) -> Unavailable:
        return kind(f"{self._what} cannot be reached now; try again", retry_after_s=1)

    async def _until_back(self, *, writes: bool) -> None:
        """Wait until the database answers; `writes`: until it takes writes, too."""
        self._back_s = self._check_s
        with LOST.track_inprogress():
            while True:
                try:
                    # What the pool lends has just answered.
                    async with self._lent(self._back_s) as link:
                        if writes:
                            with answering(link, within_s=self._back_s):
                                await _see_writes(link)
                except AWAY as error:
                    if isinstance(error, READ_ONLY):
                        await self._pool.drain()
                    self._back_s = min(_BACK_S, self._back_s + _MORE_S)
                    await asyncio.sleep(_PROBE_S)
                else:
                    break
        if writes:
            # Another may be left that was made while there were none.
            await self._pool.drain()
        _log.warning("database.found")
        self._probe = None


async def _see_writes(link: Link) -> None:
    """Raise ReadOnlySqlTransaction where the server takes no writes in this session."""
    row = await (await link.execute("show transaction_read_only")).fetchone()
    if row is not None and row[0] == "on":
        raise READ_ONLY("the server takes no writes")


@contextmanager
def answering(link: psycopg.AsyncConnection[Any], *, within_s: float) -> Iterator[None]:
    """Break the connection when what is done with it takes longer: it fails then as if the server had gone.

    A cancellation would not do. psycopg answers one by asking the server to stop, and waits for what it says.
    Raises InvalidField for a text with a NUL, which callers may send and PostgreSQL cannot hold.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def late() -> None:
        # Where this process itself was held up, the answer may have come: whoever waits for it goes on first.
        nonlocal timer
        timer = loop.call_later(_HEARD_S, _break, link)

    timer = loop.call_later(within_s, late)
    try:
        yield
    except psycopg.DataError as error:
        if error.sqlstate is not None:
            raise
        # psycopg itself said it: the server was never asked.
        raise InvalidField("a text holds the character NUL; leave it out") from error
    finally:
        timer.cancel()


async def check(link: psycopg.AsyncConnection[Any], *, within_s: float = _CHECK_S) -> None:
    """Return when the server answers on this connection; raise psycopg.OperationalError when it does not, soon."""
    with answering(link, within_s=within_s):
        await AsyncConnectionPool.check_connection(link)


async def ask_time(link: psycopg.AsyncConnection[Any], *, within_s: float) -> None:
    """Ask a new connection's server for the time, which this process then goes by (`clock`)."""
    asked_at = CLOCK.elapsed()
    with answering(link, within_s=within_s):
        row = await (await link.execute("select clock_timestamp()")).fetchone()
        await link.rollback()
    if row is not None:
        CLOCK.learn(row[0], asked_at)


async def spoken(link: psycopg.AsyncConnection[Any], *, within_s: float, stirred: asyncio.Event | None = None) -> None:
    """Return when the server sends something unasked or is gone, when `stirred` is set, or after so long.

    What was sent is then in `link.notifies(timeout=0)`. psycopg's own waiting looks ten times a second.
    """
    loop, descriptor = asyncio.get_running_loop(), link.fileno()
    event = stirred or asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        pass
    finally:
        loop.remove_reader(descriptor)


def refusal() -> str:
    """Return why a database of this process's could not be connected to, in its words; empty where all could."""
    return next(iter(_Connection.refusals.values()), "")


def _ends_session(error: Exception) -> bool:
    """Return whether a session is over with what was raised in it: the server ended it, or does not answer any more."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    return state is None or state.startswith(("08", "57P"))


def _words(error: Exception) -> str:
    """Return what a server said, on one line."""
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())[:_WORDS]


def of_one_statement(error: Exception) -> bool:
    """Return whether the server answered and refused one statement: too slow, behind a lock, in a deadlock."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    # Classes 08 (connection), 57P (shut down) and 53 (out of resources), and no writes are the server's own trouble.
    return state is not None and not state.startswith(("08", "57P", "53", "25006"))


def _break(link: psycopg.AsyncConnection[Any]) -> None:
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(link.fileno())) as connected:
        connected.shutdown(socket.SHUT_RDWR)
