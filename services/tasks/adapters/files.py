"""Files that callers uploaded: rows here, bytes in the store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from services.common import logs
from services.common.errors import Conflict, NotFound
from services.common.images import ImageInfo, digest
from services.common.store import Store
from services.common.store.names import object_name
from services.tasks.adapters.database import Database, Link

_log = logs.get("tasks.files")

KEEP: Final = timedelta(hours=24)
"""How long a file is there."""
MOST: Final = 100
MOST_BYTES: Final = 256 * 2**20
"""What one account may have at a time."""
_BATCH: Final = 100
_CLEAN_S: Final = 60.0
_OWN: Final[LiteralString] = (
    "select name, filename, content_type, size_bytes, sha256, metadata, created_at, expires_at from tasks.files"
    " where account_id = %s and stored and expires_at > now()"
)


@dataclass(frozen=True, slots=True)
class File:
    """An uploaded file."""

    name: str
    """Its object's name, and its id."""
    filename: str
    content_type: str
    size_bytes: int
    sha256: str
    metadata: dict[str, Any]
    created_at: datetime
    expires_at: datetime


class Files:
    """Keeps callers' files for a day.

    Args:
        database: Where their rows are.
        store: Where their bytes are.
    """

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store

    async def create(
        self, account_id: str, data: bytes, info: ImageInfo, *, filename: str, metadata: dict[str, Any]
    ) -> File:
        """Store a file. Raises Conflict where the account has as many, or as much, as it may."""
        name = object_name(account_id, info.format)
        row = (name, account_id, filename, info.mime_type, len(data), await digest(data), Jsonb(metadata))
        async with self._database.transaction() as link:
            await _check_room(link, account_id, len(data))
            await link.execute(
                "insert into tasks.files (name, account_id, filename, content_type, size_bytes, sha256, metadata,"
                " expires_at) values (%s, %s, %s, %s, %s, %s, %s, now() + %s)",
                (*row, KEEP),
            )
        # What is left behind by a failure here ends as every file does.
        await self._store.put(name, data, content_type=info.mime_type)
        async with self._database.transaction() as link:
            await link.execute("update tasks.files set stored = true where name = %s", (name,))
        return await self.get(account_id, name)

    async def get(self, account_id: str, name: str) -> File:
        """Return an account's file. Raises NotFound."""
        async with self._database.transaction() as link, link.cursor(row_factory=class_row(File)) as cursor:
            await cursor.execute(_OWN + " and name = %s", (account_id, name))
            found = await cursor.fetchone()
        if found is None:
            raise NotFound("no such file")
        return found

    async def list(self, account_id: str) -> list[File]:
        """Return an account's files, the newest first."""
        async with self._database.transaction() as link, link.cursor(row_factory=class_row(File)) as cursor:
            await cursor.execute(_OWN + " order by created_at desc, name", (account_id,))
            return await cursor.fetchall()

    async def delete(self, account_id: str, name: str) -> None:
        """Remove an account's file. Raises NotFound."""
        await self.get(account_id, name)
        await self._remove(name)

    async def run(self) -> None:
        """Remove what has ended, now and then, until cancelled."""
        while True:
            try:
                await self.clean()
            except Exception as error:  # what fails is done the next time
                _log.warning("files.not_cleaned", why=str(error))
            await asyncio.sleep(_CLEAN_S)

    async def clean(self) -> int:
        """Remove what has ended; return how many files went."""
        async with self._database.transaction() as link:
            found = await link.execute("select name from tasks.files where expires_at <= now() limit %s", (_BATCH,))
            names = [row[0] for row in await found.fetchall()]
        for name in names:
            await self._remove(name)
        return len(names)

    async def _remove(self, name: str) -> None:
        await self._store.delete(name)
        async with self._database.transaction() as link:
            await link.execute("delete from tasks.files where name = %s", (name,))


async def _check_room(link: Link, account_id: str, size_bytes: int) -> None:
    # Uploads of one account at once are counted one after another.
    await link.execute("select pg_advisory_xact_lock(hashtextextended('tasks.files ' || %s, 0))", (account_id,))
    found = await link.execute(
        "select count(*), coalesce(sum(size_bytes), 0)::bigint from tasks.files"
        " where account_id = %s and expires_at > now()",
        (account_id,),
    )
    count, held = await found.fetchone() or (0, 0)
    if count >= MOST or held + size_bytes > MOST_BYTES:
        raise Conflict(
            f"an account may have {MOST} files of {MOST_BYTES >> 20} MB together; delete one, or wait: each stays a day"
        )
