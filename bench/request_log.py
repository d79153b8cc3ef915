"""How long searches in the log of requests take, and writing: `python -m bench.request_log [ROWS]` (1,000,000).

Rows are spread over 90 days, 20 teams of which one has half, 200 accounts, 1,000 keys, 12 models and 50 tags; one in
fifty has an error. They are written with the indexes made afterwards. Each search asks for the newest 51, forty times.
Writing is through the adapter, 500 requests a batch, the indexes in place; at last a team's requests are removed.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from bench.spend import server_ms
from deploy.local.database import Database
from moa.requestlog.v1 import request_log_pb2 as pb
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.request_log import RequestLog
from services.auth.adapters.request_log_sweep import RequestLogSweep
from services.auth.domain.request_log import Search
from services.auth.migrations import migrate
from services.common.content_sealing import ContentKeys

_DAYS = 90
_TIMES = 40
_BATCHES = 20
_BATCH = 500
_KEYS = f"bench:{'5' * 64}"
_TEAMS = """
insert into accounts (id, name, role, key_count)
select 'acc_t' || n, 'bench', 'service', 1 from generate_series(0, 19) n;
insert into teams (id, name, account_id, rules, log_requests, log_content, log_days)
select 'team_' || n, 'bench', 'acc_t' || n, '[]', true, true, 366 from generate_series(0, 19) n
"""
_FILL = """
insert into request_log (id, at, team_id, account_id, key_id, request_id, model, status, error, tags, facts)
select 'log_' || lpad(to_hex(n), 12, '0') || substr(md5(n::text), 1, 20),
       %(now)s - n * %(days)s * interval '1 day' / %(rows)s,
       'team_' || case when k %% 2 = 0 then 0 else k %% 20 end, 'acc_' || k %% 200, 'key_' || k, 'r-' || n,
       'provider-' || m %% 3 || '/model-' || m,
       case when e < 200 then 429 when e < 202 then 502 else 200 end,
       case when e < 200 then 'rate_limited' when e < 202 then 'upstream_failed' else '' end,
       case when e %% 3 = 0 then array['tag-' || (k + n) %% 50] end, %(facts)s
from (select n, abs(hashint8(n)::bigint) %% 1000 as k, abs(hashint8(n + 1000000000)::bigint) %% 12 as m,
             abs(hashint8(n + 2000000000)::bigint) %% 10000 as e
      from generate_series(0::bigint, %(rows)s - 1) n) rows
"""


def _request(number: int, *, content: bool) -> pb.LoggedRequest:
    result = pb.LoggedRequest(
        log_id=f"log_{time.time_ns() // 1_000_000:012x}{number:020x}",
        request_id="5f0c8a52-1f8e-4d55-9f0c-0d8b4f1f2a37",
        team_id="team_0",
        account_id=f"acc_{number % 200}",
        key_id=f"key_{number % 1000}",
        operation="text",
        dialect="openai",
        asked="openai-text/gpt-4o-mini",
        model="openai-text/gpt-4o-mini",
        status=200,
        finish_reason="stop",
        nano_usd=12_345,
        tags=["nightly", "user:bo"],
    )
    result.at.FromDatetime(datetime.now(UTC))
    result.usage.prompt_tokens, result.usage.completion_tokens, result.usage.exact = 1000, 200, True
    for duration, ms in ((result.queued, 3), (result.first, 400), (result.total, 2000)):
        duration.FromMilliseconds(ms)
    result.attempts.add(model="openai-text/gpt-4o-mini").after.FromMilliseconds(3)
    if content:
        words = "The quick brown fox jumps over the lazy dog, and what it said of it was as follows. "
        result.content.text_request.messages.add().parts.add(text=f"{number} {words * 45}")
        result.content.text_answer.events.add().text.text = words * 10
    return result


def _fill(url: str, rows: int, now: datetime) -> float:
    began = time.monotonic()
    with psycopg.connect(url, autocommit=True) as link:
        link.execute("set maintenance_work_mem = '512MB'; set synchronous_commit = off")
        link.execute(_TEAMS)
        for days in range(0, _DAYS + 31, 28):
            link.execute("call make_request_log_month(%s)", ((now - timedelta(days=days)).date(),))
        made_again = link.execute(
            "select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index"
            " where indrelid = 'request_log'::regclass and not indisprimary"
        ).fetchall()
        for name, _ in made_again:
            link.execute(f"drop index {name}".encode())
        facts = _request(0, content=False).SerializeToString()
        link.execute(_FILL, {"rows": rows, "now": now, "days": _DAYS, "facts": facts})
        for _, definition in made_again:
            link.execute(definition.replace(" ON ONLY ", " ON ").encode())
        link.execute(
            "insert into request_log_tags (team_id, tag, at, id)"
            " select team_id, t.tag, at, id from request_log cross join lateral unnest(tags) t (tag)"
        )
        link.execute("vacuum analyze request_log, request_log_tags")
    return time.monotonic() - began


def _searches(now: datetime) -> dict[str, Search]:
    month: dict[str, Any] = {"since": now - timedelta(days=60), "until": now - timedelta(days=30)}
    return {
        "a team": Search(team_id="team_3"),
        "a team, a month": Search(team_id="team_3", **month),
        "everybody": Search(),
        "everybody, a month": Search(**month),
        "an account": Search(team_id="team_0", account_id="acc_6"),
        "a key": Search(team_id="team_0", key_id="key_6"),
        "a model": Search(team_id="team_0", model="provider-1/model-7"),
        "a model of a small team": Search(team_id="team_3", model="provider-1/model-7"),
        "a rare status": Search(status=502),
        "a rare status of a small team": Search(team_id="team_3", status=502),
        "a status of a small team": Search(team_id="team_3", status=429),
        "any error of a small team": Search(team_id="team_3", error="any"),
        "an error of a small team, a month": Search(team_id="team_3", error="upstream_failed", **month),
        "a tag": Search(team_id="team_0", tag="tag-7"),
        "a tag of a small team": Search(team_id="team_3", tag="tag-7"),
        "a tag that nobody has": Search(team_id="team_0", tag="none"),
        "a model that nobody has": Search(team_id="team_0", model="none"),
        "a request id": Search(request_id="r-123456"),
    }


async def _found(log: RequestLog, search: Search) -> tuple[list[float], int]:
    took, count = [], 0
    for _ in range(_TIMES):
        began = time.perf_counter()
        requests, _ = await log.page(search, limit=51)
        took.append((time.perf_counter() - began) * 1000)
        count = len(requests)
    return took, count


async def _write(log: RequestLog, pid: int, *, content: bool) -> tuple[float, float, float]:
    """Return the time, this process's and the database's processor time, of a request, in microseconds."""
    took, own, theirs = 0.0, 0.0, 0.0
    for batch in range(_BATCHES):
        requests = [_request(batch * _BATCH + number, content=content) for number in range(_BATCH)]
        before, used, began = server_ms(pid), time.process_time(), time.perf_counter()
        assert len(await log.write(requests)) == _BATCH
        took += time.perf_counter() - began
        own += time.process_time() - used
        theirs += (server_ms(pid) - before) / 1000
    each = 1e6 / (_BATCHES * _BATCH)
    return took * each, own * each, theirs * each


async def _measured(url: str, now: datetime) -> None:
    postgres = Postgres(url, size=1)
    await postgres.open()
    log = RequestLog(postgres, ContentKeys(_KEYS))
    try:
        for name, search in _searches(now).items():
            took, count = await _found(log, search)
            p95 = statistics.quantiles(took, n=20)[18]
            p50 = statistics.median(took)
            print(f"{name:32} {count:3} found, first {took[0]:7.1f} ms, p50 {p50:6.1f}, p95 {p95:6.1f}")
        async with postgres.transaction() as link:
            pid = link.info.backend_pid
        for content in (False, True):
            took_us, own_us, database_us = await _write(log, pid, content=content)
            what = "with 4.8 KB of content" if content else "without content"
            print(
                f"a request {what}: {took_us:.0f} us, of auth's CPU {own_us:.0f}, of the database's {database_us:.0f}"
            )
        await log.erase("team_3", "", actor="bench")
        rows, began = await _left(postgres), time.perf_counter()
        while await _left(postgres):
            await RequestLogSweep(postgres).tidy()
        print(f"{rows:,} requests of a team removed in {time.perf_counter() - began:.1f} s")
    finally:
        await postgres.close()


async def _left(postgres: Postgres) -> int:
    async with postgres.transaction() as link:
        cursor = await link.execute("select count(*)::int from request_log where team_id = 'team_3'")
        row = await cursor.fetchone()
    return row[0] if row else 0


def main() -> None:
    """Fill a database of our own, and print a line for each search and each way of writing."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as folder:
        server = Database(Path(folder) / "data", durable=False)
        server.start()
        try:
            url = server.create("moa")
            migrate(url)
            filled_s = _fill(url, rows, now)
            with psycopg.connect(url) as link:
                ((size,),) = link.execute(
                    "select sum(pg_total_relation_size(inhrelid)) / 1048576 from pg_inherits"
                    " where inhparent in ('request_log'::regclass, 'request_log_tags'::regclass)"
                ).fetchall()
            print(f"{rows:,} rows in {filled_s:.0f} s, {size:.0f} MB; load average {os.getloadavg()[0]:.1f}")
            asyncio.run(_measured(url, now))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
