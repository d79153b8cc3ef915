"""The database of accounts."""

from __future__ import annotations

from typing import Final

from services.common import database

Link = database.Link

ANSWER_S: Final = 8.0
"""How long a transaction may take: its statements are refused earlier by a server that is there."""


class Postgres(database.Database):
    """A pool of connections. Once the database is found to be away, callers are told at once, until it is back.

    Args:
        url: As libpq takes it.
        size: Connections at most.
        wait_s: How long a connection, or its sign of life, is waited for before the database counts as away.
        pooled, tells_time, at_once: As `database.Database`.
    """

    def __init__(
        self,
        url: str,
        *,
        size: int = 8,
        wait_s: float = 1.0,
        pooled: bool = False,
        tells_time: bool = True,
        at_once: bool = True,
    ) -> None:
        super().__init__(
            url,
            what="accounts",
            size=size,
            wait_s=wait_s,
            check_s=wait_s,
            statement_s=5,
            lock_s=3,
            answer_s=ANSWER_S,
            at_once=at_once,
            pooled=pooled,
            tells_time=tells_time,
        )
