"""Logged requests on their way to a bucket: JSON lines that wait in the database.

They are written with the requests, so none is lost, whatever dies. Lines that go out together are given the name of
their object for good before it is put: where that failed they go out under it again, and nothing is there twice.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol

from prometheus_client import Counter

from moa.requestlog.v1 import request_log_pb2 as pb
from services.auth.adapters.postgres import Link, Postgres
from services.auth.domain.request_log import line
from services.common import logs
from services.common.errors import MoaError

_log = logs.get("request_log_exports")

EXPORTED: Final = Counter(
    "moa_request_log_objects_total", "Objects of logged requests put to the bucket, by outcome.", ["outcome"]
)
LOST: Final = Counter("moa_request_log_exports_lost_total", "Batches of logged requests that no bucket took in time.")

_AT_ONCE: Final = 500
"""Batches in one object."""
_KEPT_DAYS: Final = 7
"""For how long lines wait for a bucket that takes none."""

_BEGIN: Final = """
update request_log_exports set object = %(prefix)s || to_char(hour at time zone 'UTC', 'YYYY/MM/DD/HH24/')
       || %(first)s || '.jsonl.gz'
where id in (select id from request_log_exports where object is null and hour = %(hour)s order by id limit %(limit)s
             for update skip locked)
"""


class Bucket(Protocol):
    """Where objects are put."""

    async def put(self, name: str, data: bytes, *, content_type: str) -> object:
        """Store an object, in the place of one of this name. Raises MoaError."""


class _Waiting(NamedTuple):
    id: int
    hour: datetime


class Exports:
    """Takes requests in the transaction that writes them, and puts them to a bucket.

    Args:
        prefix: What objects' names begin with; empty, or with a `/` at its end.
    """

    def __init__(self, postgres: Postgres, bucket: Bucket, *, prefix: str = "") -> None:
        self._postgres = postgres
        self._bucket = bucket
        self._prefix = prefix

    async def add(self, link: Link, requests: Iterable[pb.LoggedRequest]) -> None:
        """Have requests wait for the bucket, each with those of its hour."""
        by_hour: dict[datetime, list[pb.LoggedRequest]] = defaultdict(list)
        for each in requests:
            by_hour[each.at.ToDatetime(UTC).replace(minute=0, second=0, microsecond=0)].append(each)
        for hour, those in by_hour.items():
            lines = await asyncio.to_thread(_packed, those)
            await link.execute("insert into request_log_exports (hour, lines) values (%s, %s)", (hour, lines))

    async def round(self) -> bool:
        """Put what waits, an object or what an earlier try began; return whether anything was put. Raises Unavailable.

        What the bucket does not take is tried again by the next round.
        """
        object_name = await self._begun() or await self._begin()
        if object_name is None:
            return False
        ids, data = await self._lines(object_name)
        if ids:
            try:
                await self._bucket.put(object_name, data, content_type="application/gzip")
            except MoaError as error:
                EXPORTED.labels("failed").inc()
                _log.warning("export.postponed", object=object_name, why=error.message)
                return False
            EXPORTED.labels("put").inc()
            async with self._postgres.transaction() as link:
                await link.execute("delete from request_log_exports where id = any(%s)", (ids,))
        return True

    async def tidy(self) -> None:
        """Drop what no bucket took for days."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "delete from request_log_exports where created_at < now() - make_interval(days => %s)", (_KEPT_DAYS,)
            )
        if cursor.rowcount:
            LOST.inc(cursor.rowcount)
            _log.error("exports.lost", batches=cursor.rowcount, days=_KEPT_DAYS)

    async def _begun(self) -> str | None:
        """Return the object of an earlier try."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute("select min(object) from request_log_exports where object is not null")
            row = await cursor.fetchone()
        return row[0] if row else None

    async def _begin(self) -> str | None:
        """Name the object of the oldest lines that wait, for good; None where none wait."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select id, hour from request_log_exports where object is null order by id limit 1"
                " for update skip locked"
            )
            row = await cursor.fetchone()
            if row is None:
                return None
            first = _Waiting(*row)
            given = {"prefix": self._prefix, "first": f"{first.id:016}", "hour": first.hour, "limit": _AT_ONCE}
            await link.execute(_BEGIN, given)
            cursor = await link.execute("select object from request_log_exports where id = %s", (first.id,))
            named = await cursor.fetchone()
        return named[0] if named else None

    async def _lines(self, object_name: str) -> tuple[Sequence[int], bytes]:
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select id, lines from request_log_exports where object = %s order by id", (object_name,)
            )
            rows = await cursor.fetchall()
        # Members of one gzip file may follow each other.
        return [row_id for row_id, _ in rows], b"".join(bytes(lines) for _, lines in rows)


def _packed(requests: Iterable[pb.LoggedRequest]) -> bytes:
    lines = "".join(json.dumps(line(each), ensure_ascii=False, separators=(",", ":")) + "\n" for each in requests)
    return gzip.compress(lines.encode(), 6, mtime=0)
