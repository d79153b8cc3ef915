"""The log of requests in PostgreSQL, by months."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final, LiteralString, NamedTuple

from moa.requestlog.v1 import request_log_pb2 as pb
from moa.requestlog.v1 import request_log_service_pb2
from services.auth.adapters.audit import audit
from services.auth.adapters.postgres import Link, Postgres
from services.auth.adapters.request_log_erasing import erase
from services.auth.adapters.request_log_exports import Exports
from services.auth.domain.request_log import ANY_ERROR, Erasure, Search, Wanted, kept
from services.common.content_sealing import ContentKeys, Sealed
from services.common.errors import NotFound

_WRITE: Final = (
    "insert into request_log (id, at, team_id, account_id, key_id, request_id, model, status, error, tags, facts,"
    " content_key, content) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing"
)
_TAG: Final = "insert into request_log_tags (team_id, tag, at, id) values (%s, %s, %s, %s) on conflict do nothing"
_DROPPED: Final = (
    "insert into request_log_dropped (team_id, day, holder, requests) values (%s, %s, %s, %s)"
    " on conflict (team_id, day, holder) do update"
    " set requests = greatest(request_log_dropped.requests, excluded.requests)"
)
# What is over, or erased, is gone for whoever reads, whenever it is removed.
_ALIVE: Final[LiteralString] = (
    " exists (select from teams t where t.id = r.team_id and r.at >= now() - make_interval(days => t.log_days))"
    " and not exists (select from request_log_erasures e where r.at <= e.upto"
    " and (e.team_id is null or e.team_id = r.team_id) and (e.account_id is null or e.account_id = r.account_id))"
)
_FILTERS: Final[dict[str, LiteralString]] = {
    "team_id": "r.team_id = %(team_id)s",
    "since": "r.at >= %(since)s",
    "until": "r.at < %(until)s",
    "account_id": "r.account_id = %(account_id)s",
    "key_id": "r.key_id = %(key_id)s",
    "model": "r.model = %(model)s",
    "status": "r.status = %(status)s",
    "error": "r.error = %(error)s",
    "request_id": "r.request_id = %(request_id)s",
}
_OF_TAG: Final[dict[str, LiteralString]] = {
    **_FILTERS,
    "tag": "g.tag = %(tag)s",
    "team_id": "g.team_id = %(team_id)s",
    "since": "g.at >= %(since)s",
    "until": "g.at < %(until)s",
}
"""The filters of a search by tag: it goes along the tags, which are in order of time, too."""
_IN_ORDER: Final = (
    "set local enable_sort = off; set local enable_hashjoin = off; set local enable_mergejoin = off;"
    " set local max_parallel_workers_per_gather = 0"
)
_WITH_ERROR: Final[LiteralString] = "r.error <> ''"
_NOT_OK: Final[LiteralString] = " and r.status <> 200 and r.error <> ''"  # what the indexes of failures have


class Found(NamedTuple):
    """A request as it is kept."""

    request: pb.LoggedRequest
    unreadable: bool
    """Whether it has content that no key opens."""


class RequestLog:
    """Keeps requests, and finds them.

    Args:
        keys: What encrypts content; without any, none is kept.
        exports: Takes what is written, in the same transaction; None: nothing is exported.
    """

    def __init__(self, postgres: Postgres, keys: ContentKeys, exports: Exports | None = None) -> None:
        self._postgres = postgres
        self._keys = keys
        self._exports = exports
        self._months: set[date] = set()
        """Whose partitions are there for sure."""

    async def write(
        self,
        requests: Sequence[pb.LoggedRequest],
        dropped: Iterable[request_log_service_pb2.Dropped] = (),
        *,
        holder: str = "",
    ) -> list[pb.LoggedRequest]:
        """Keep requests, once each however often they are told; return those that were not there, without content."""
        for month in sorted({_month(each) for each in requests} - self._months):
            async with self._postgres.transaction() as link:
                await link.execute("call make_request_log_month(%s)", (month,))
            self._months.add(month)
        async with self._postgres.transaction() as link:
            fresh = await self._fresh(link, requests)
            rows = await asyncio.to_thread(self._rows, fresh) if fresh else []
            async with link.cursor() as cursor:
                if rows:
                    await cursor.executemany(_WRITE, rows)
                if tags := [tag for each in fresh for tag in _tags(each)]:
                    await cursor.executemany(_TAG, tags)
                counted = [(each.team_id, each.day, holder, each.requests) for each in dropped]
                if counted:
                    await cursor.executemany(_DROPPED, counted)
            if fresh and self._exports is not None:
                await self._exports.add(link, fresh)
        return fresh

    async def _fresh(self, link: Link, requests: Sequence[pb.LoggedRequest]) -> list[pb.LoggedRequest]:
        """Return what is to be kept of these and is not there yet."""
        if not requests:
            return []
        teams = list({each.team_id for each in requests})
        cursor = await link.execute(
            "select id, log_requests, log_content from teams where id = any(%s) and deleted_at is null", (teams,)
        )
        wanted = {team_id: Wanted(on, content and bool(self._keys)) for team_id, on, content in await cursor.fetchall()}
        first = min(each.at.ToDatetime(UTC) for each in requests)
        cursor = await link.execute(
            "select team_id, account_id, upto from request_log_erasures where upto >= %s", (first,)
        )
        result = kept(requests, wanted, [Erasure(*row) for row in await cursor.fetchall()])
        cursor = await link.execute(
            "select id from request_log where id = any(%s) and at >= %s", ([each.log_id for each in result], first)
        )
        known = {log_id for (log_id,) in await cursor.fetchall()}
        return [each for each in result if each.log_id not in known]

    def _rows(self, requests: Iterable[pb.LoggedRequest]) -> list[tuple[Any, ...]]:
        """Return rows, and leave no content in the requests."""
        rows = []
        for each in requests:
            sealed = None
            if each.HasField("content"):
                sealed = self._keys.seal(each.log_id, each.content.SerializeToString())
                each.ClearField("content")
            rows.append(
                (
                    each.log_id,
                    each.at.ToDatetime(UTC),
                    each.team_id,
                    each.account_id,
                    each.key_id,
                    each.request_id,
                    # Callers write names, and no text of the database's holds NUL.
                    (each.model or each.asked).replace("\0", ""),
                    each.status,
                    each.error,
                    list(each.tags) or None,
                    each.SerializeToString(),
                    *(sealed or (None, None)),
                )
            )
        return rows

    async def page(
        self, search: Search, *, limit: int, after: tuple[datetime, str] | None = None
    ) -> tuple[list[pb.LoggedRequest], int]:
        """Return requests, the newest first, behind a place in that order, and how many were dropped on these days."""
        given: dict[str, Any] = {name: value for name, value in vars(search).items() if value}
        conditions = [_condition(name, given) for name in given]
        tables: LiteralString = "request_log r"
        place: LiteralString = "r"
        if search.tag:
            tables, place = "request_log_tags g join request_log r on (r.id, r.at) = (g.id, g.at)", "g"
        if after is not None:
            conditions.append(f"({place}.at, {place}.id) < (%(after_at)s, %(after_id)s)")
            given["after_at"], given["after_id"] = after
        wanted = "".join([condition + " and " for condition in conditions])
        async with self._postgres.transaction() as link:
            if search.tag:
                # The planner takes each row of a join by two columns for the only one, and reads all to sort them.
                await link.execute(_IN_ORDER)
            cursor = await link.execute(
                f"select r.facts from {tables} where {wanted}{_ALIVE}"
                f" order by {place}.at desc, {place}.id desc limit %(limit)s",
                {**given, "limit": limit},
            )
            found = [pb.LoggedRequest.FromString(facts) for (facts,) in await cursor.fetchall()]
            cursor = await link.execute(
                "select coalesce(sum(requests), 0)::bigint from request_log_dropped"
                " where (%(team_id)s = '' or team_id = %(team_id)s)"
                " and (%(since)s::timestamptz is null or day >= (%(since)s at time zone 'UTC')::date)"
                " and (%(until)s::timestamptz is null or day <= (%(until)s at time zone 'UTC')::date)",
                {"team_id": search.team_id, "since": search.since, "until": search.until},
            )
            row = await cursor.fetchone()
        return found, row[0] if row else 0

    async def get(self, log_id: str, team_id: str, *, actor: str) -> Found:
        """Return a request with its content, which is noted in the audit log. Raises NotFound.

        `team_id` is the team that it must be of; empty: any.
        """
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select r.facts, r.content_key, r.content from request_log r where r.id = %(id)s"
                f" and (%(team)s = '' or r.team_id = %(team)s) and {_ALIVE}",
                {"id": log_id, "team": team_id},
            )
            row = await cursor.fetchone()
            if row is None:
                raise NotFound("no such request in the log")
            request = pb.LoggedRequest.FromString(row[0])
            if row[2] is None:
                return Found(request, unreadable=False)
            details = f"team={request.team_id}", f"request={log_id}"
            await audit(link, actor, "request_log.content_read", request.account_id, *details)
        content = await asyncio.to_thread(self._keys.open, log_id, Sealed(row[1], bytes(row[2])))
        if content is None:
            return Found(request, unreadable=True)
        request.content.MergeFromString(content)
        return Found(request, unreadable=False)

    async def delete(self, log_id: str, team_id: str, *, actor: str) -> None:
        """Delete a request, where it is there. `team_id` is the team that it must be of; empty: any."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "with gone as (delete from request_log where id = %(id)s and (%(team)s = '' or team_id = %(team)s)"
                " returning *), untagged as (delete from request_log_tags g using gone where g.team_id = gone.team_id"
                " and g.tag = any(gone.tags) and g.at = gone.at and g.id = gone.id)"
                " select team_id, account_id from gone",
                {"id": log_id, "team": team_id},
            )
            if row := await cursor.fetchone():
                await audit(link, actor, "request_log.deleted", row[1], f"team={row[0]}", f"request={log_id}")

    async def erase(self, team_id: str, account_id: str, *, actor: str) -> None:
        """Have everything go that came until now, of a team, an account, or of an account in a team."""
        async with self._postgres.transaction() as link:
            await erase(link, team_id=team_id or None, account_id=account_id or None)
            await audit(link, actor, "request_log.erased", account_id, f"team={team_id}")


def _condition(name: str, given: dict[str, Any]) -> LiteralString:
    filters = _OF_TAG if "tag" in given else _FILTERS
    if name == "error" and given[name] == ANY_ERROR:
        return _WITH_ERROR
    if name == "status" and given[name] != 200:
        return filters[name] + _NOT_OK
    return filters[name]


def _tags(request: pb.LoggedRequest) -> list[tuple[Any, ...]]:
    return [(request.team_id, tag, request.at.ToDatetime(UTC), request.log_id) for tag in request.tags]


def _month(request: pb.LoggedRequest) -> date:
    return request.at.ToDatetime(UTC).date().replace(day=1)
