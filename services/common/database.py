"""PostgreSQL that is connected and does not answer: stopped, behind a broken network, on a disk that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg_pool import AsyncConnectionPool

from services.common import logs
from services.common.errors import InvalidField

_log = logs.get("database")
_CHECK_S: Final = 1.0


@contextmanager
def answering(link: psycopg.AsyncConnection[Any], *, within_s: float) -> Iterator[None]:
    """Break the connection when what is done with it takes longer: it fails then as if the server had gone.

    A cancellation would not do. psycopg answers one by asking the server to stop, and waits for what it says.
    Raises InvalidField for a text with a NUL, which callers may send and PostgreSQL cannot hold.
    """
    timer = asyncio.get_running_loop().call_later(within_s, _break, link)
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


def of_one_statement(error: Exception) -> bool:
    """Return whether the server answered and refused one statement: too slow, behind a lock, in a deadlock."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    # Classes 08 (connection), 57P (shut down) and 53 (out of resources) are the server's own trouble.
    return state is not None and not state.startswith(("08", "57P", "53"))


class FullDisk:
    """Tells the operator that the database has no room, once in a while.

    Such a database is there: it reads, and writes what needs no more room. Who takes it for one that is away refuses
    everything for a moment after each statement that failed.
    """

    def __init__(self, *, again_s: float = 60.0) -> None:
        self._again_s = again_s
        self._told_at: float | None = None

    def saw(self, error: Exception) -> bool:
        """Return whether a statement failed for want of room on the database's disk."""
        if not isinstance(error, psycopg.errors.DiskFull):
            return False
        now = time.monotonic()
        if self._told_at is None or now - self._told_at >= self._again_s:
            self._told_at = now
            _log.error("database.full", why=str(error.diag.message_primary or ""))
        return True


def _break(link: psycopg.AsyncConnection[Any]) -> None:
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(link.fileno())) as connected:
        connected.shutdown(socket.SHUT_RDWR)
