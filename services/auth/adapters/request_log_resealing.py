"""Encrypts logged content and providers' keys anew that an older of the operator's keys encrypted: it can then go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from services.auth.adapters.postgres import Postgres
from services.auth.adapters.provider_keys import ProviderKeys
from services.common import logs
from services.common.content_sealing import ContentKeys, Sealed

_log = logs.get("request_log")

LOOKED_AT: Final = 2000
"""Rows that are looked through at once, along the primary key."""
AT_ONCE: Final = 100
"""Rows that are encrypted anew in one transaction: each may hold 256 KiB."""
_AT_WORK_S: Final = 1.0
_REST_S: Final = 24 * 3600.0
"""Processes that were started before the change of keys may have written by the older one meanwhile."""


class Resealing:
    """Goes through providers' keys and the log, and again a day later; replicas may do so at the same time."""

    def __init__(self, postgres: Postgres, keys: ContentKeys, clock: Callable[[], float] = time.monotonic) -> None:
        self._postgres = postgres
        self._keys = keys
        self._provider_keys = ProviderKeys(postgres, keys)
        self._clock = clock
        self._rest_until = clock()
        self._behind = ""
        self._sealed = self._unreadable = 0

    async def tidy(self) -> bool:
        """Encrypt some anew, for a moment. Returns whether there is more to look through."""
        if not self._keys or self._clock() < self._rest_until:
            return False
        if not self._behind and (resealed := await self._provider_keys.reseal()):
            _log.info("provider_keys.resealed", rows=resealed)
        until = self._clock() + _AT_WORK_S
        while self._clock() < until:
            if not await self._step():
                if self._sealed or self._unreadable:
                    _log.info("request_log.resealed", rows=self._sealed, unreadable=self._unreadable)
                self._behind, self._sealed, self._unreadable = "", 0, 0
                self._rest_until = self._clock() + _REST_S
                return False
        return True

    async def _step(self) -> bool:
        """Look through the next rows. Returns whether there are more."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select max(id), count(*)::int"
                " from (select id from request_log where id > %s order by id limit %s) looked_at",
                (self._behind, LOOKED_AT),
            )
            ((last, count),) = await cursor.fetchall()
        if not count:
            return False
        while True:
            async with self._postgres.transaction() as link:
                cursor = await link.execute(
                    "select id, at, content_key, content from request_log where id > %s and id <= %s"
                    " and content_key <> %s order by id limit %s for update skip locked",
                    (self._behind, last, self._keys.first, AT_ONCE),
                )
                rows = await cursor.fetchall()
                if not rows:
                    break
                anew = await asyncio.to_thread(self._anew, [(log_id, key, content) for log_id, _, key, content in rows])
                async with link.cursor() as writing:
                    await writing.executemany(
                        "update request_log set content_key = %s, content = %s where id = %s and at = %s",
                        [(*anew[log_id], log_id, at) for log_id, at, _, _ in rows if log_id in anew],
                    )
            self._sealed += len(anew)
            self._unreadable += len(rows) - len(anew)
            self._behind = rows[-1][0]
        self._behind = last
        return bool(count == LOOKED_AT)

    def _anew(self, rows: list[tuple[str, str, bytes]]) -> dict[str, Sealed]:
        found: dict[str, Sealed] = {}
        for log_id, key, content in rows:
            plain = self._keys.open(log_id, Sealed(key, bytes(content)))
            if plain is not None:
                found[log_id] = self._keys.seal(log_id, plain)
        return found
