"""Connections to PostgreSQL, and what its absence means to callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from services.common import database, logs
from services.common.errors import Unavailable
from services.common.isolate import OneFailed

Link = psycopg.AsyncConnection[TupleRow]

_log = logs.get("postgres")

_PROBE_S: Final = 0.3
ANSWER_S: Final = 8.0
"""How long a transaction may take: its statements are refused earlier by a server that is there."""
_GONE: Final = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout, OSError)


class Postgres:
    """A pool of connections. Once the database is found to be away, callers are told at once, until it is back.

    Args:
        url: As libpq takes it.
        size: Connections at most.
        wait_s: How long a connection, or its sign of life, is waited for before the database counts as away.
    """

    def __init__(self, url: str, *, size: int = 8, wait_s: float = 1.0) -> None:
        self._pool: AsyncConnectionPool[Link] = AsyncConnectionPool(
            url,
            min_size=1,
            max_size=size,
            open=False,
            timeout=wait_s,
            # A restart of the database leaves dead connections in the pool.
            check=partial(database.check, within_s=wait_s),
            reconnect_timeout=5.0,
            kwargs={"connect_timeout": 2, "options": "-c statement_timeout=5000 -c lock_timeout=3000"},
        )
        self._probe: asyncio.Task[None] | None = None
        self._full = database.FullDisk()

    async def open(self) -> None:
        """Start to connect; does not wait for the first connection."""
        await self._pool.open()

    async def close(self) -> None:
        """Close every connection."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        await self._pool.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Link]:
        """Lend a connection inside a transaction, committed at the end.

        Raises Unavailable when the database is away, OneFailed when it is there and refused a statement.
        """
        if self._probe is not None:
            raise _away()
        try:
            async with self._pool.connection() as link:
                with database.answering(link, within_s=ANSWER_S):
                    yield link
        except _GONE as error:
            if database.of_one_statement(error):
                raise OneFailed("the database did not answer in time; try again", retry_after_s=1) from error
            if self._probe is None and not self._full.saw(error):
                _log.warning("database.lost", why=type(error).__name__)
                self._probe = asyncio.create_task(self._until_back(), name="database probe")
            raise _away() from error

    async def _until_back(self) -> None:
        while True:
            try:
                # What the pool lends has just answered.
                async with self._pool.connection():
                    pass
            except _GONE:
                await asyncio.sleep(_PROBE_S)
            else:
                _log.warning("database.found")
                self._probe = None
                return


def _away() -> Unavailable:
    return Unavailable("accounts cannot be reached now; try again", retry_after_s=1)
