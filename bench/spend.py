"""How long reports of spending take over a year of the ledger: `python -m bench.spend [ROWS] [--data FOLDER]`.

ROWS are 10,000,000. With a folder the filled database stays in it, and is measured again where it is there already.

Rows are spread over a year, 1,000 keys of 200 accounts in 20 teams, 12 models of three providers and 50 tags: a key
uses a model, a dialect and two tags. They are written with the ledger's triggers off and its indexes made afterwards,
and their sums by the statement of the trigger itself, over what is alike in the ledger: a row at a time an hour goes
by. A last batch is booked with the triggers on, and what the sums tell in all must be what the ledger holds. Warm: a
report asked again and again; cold: the first of a new server, whose cache is empty. The machine's own cache of files
is not emptied. The processor time of the server's process is what a report takes where nobody else works.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import psycopg

from deploy.local.database import Database
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.spend import Spend
from services.auth.domain.spend import Report, read
from services.auth.migrations import migrate
from services.quota_client.amounts import DIMENSIONS

_AT_ONCE = 500_000
_BOOKED = 1_000
"""Rows that are booked with the triggers on."""
_FIRST = date(2025, 12, 1)
_TIMES = 40
_FILL = """
insert into ledger (kind, account_id, key_id, team_id, day, block_id, reference, tokens, images, nano_usd, operation,
                    provider, model, prompt_tokens, completion_tokens, requests, dialect, tags)
select 'settle', 'acc_' || k %% 200, 'key_' || k, 'team_' || k %% 20, %(began)s::date + (n * 365 / %(rows)s)::int,
       '00000000-0000-4000-8000-000000000000', 'r-' || n, 1200, 0, 1000 + n %% 20000, 1, 'provider-' || k %% 3,
       'model-' || k / 3 %% 4, 1000, 200, 1, (array['openai', 'google', 'anthropic'])[1 + k / 7 %% 3],
       array['tag-' || (k * 3 + m %% 2) %% 50]
from (select n, n %% 1000 as k, n / 1000 as m
      from generate_series(%(first)s::bigint, %(last)s::bigint) n) rows
"""


def _reports() -> dict[str, Report]:
    year = {"from_day": _FIRST.isoformat(), "to_day": (_FIRST + timedelta(days=364)).isoformat()}
    found = {
        f"{by} of everybody": read([by], **year) for by in ("month,team", "month,account", "month,key", "month,model")
    }
    found |= {f"{by} of everybody": read([by], **year) for by in ("month,provider", "month,dialect", "month,tag")}
    found |= {f"{by} of everybody": read([by], **year) for by in ("day,key", "day,model", "day,tag", "day,provider")}
    found |= {
        f"{by} of an account": read([by], **year, account_id="acc_7") for by in ("month,key", "day,model", "day,tag")
    }
    found |= {f"{by} of a team": read([by], **year, team_id="team_7") for by in ("month,account", "day,key")}
    return found


def _fill(url: str, rows: int) -> tuple[float, float]:
    """Fill the ledger and its sums; return how long each took."""
    began = time.monotonic()
    with psycopg.connect(url, autocommit=True) as link:
        link.execute("set maintenance_work_mem = '512MB'; set work_mem = '256MB'; set synchronous_commit = off")
        made_again = link.execute(
            "select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index"
            " where indrelid = 'ledger'::regclass"
            " and not exists (select from pg_constraint where conindid = indexrelid)"
        ).fetchall()
        for name, _ in made_again:
            link.execute(f"drop index {name}".encode())
        link.execute("alter table ledger disable trigger user")
        batches = -(-(rows - _BOOKED) // _AT_ONCE)
        for batch in range(batches):
            first, last = batch * _AT_ONCE, min((batch + 1) * _AT_ONCE, rows - _BOOKED)
            link.execute(_FILL, {"first": first, "last": last - 1, "began": _FIRST, "rows": rows})
        for _, definition in made_again:
            link.execute(definition.encode())
        filled = time.monotonic()
        link.execute(_summed(link))
        link.execute("alter table ledger enable trigger user")
        link.execute(_FILL, {"first": rows - _BOOKED, "last": rows - 1, "began": _FIRST, "rows": rows})
        link.execute("vacuum analyze spend")
        link.execute("vacuum analyze ledger")
        (held,) = link.execute("select count(*), sum(nano_usd)::bigint from ledger").fetchall()
        (told,) = link.execute(
            "select sum(requests)::bigint, sum(charged_nano_usd)::bigint from spend where scope = ''"
            " and grouping = 'dialect' and period = 'day'"
        ).fetchall()
        if held != told:
            raise SystemExit(f"the sums are not the ledger's: {told} of {held}")
    return filled - began, time.monotonic() - filled


_ALIKE = """
create temp table alike as
select kind, account_id, key_id, team_id, day, null::text as reference, provider, model, dialect, tags,
       false as price_unknown, count(*) as rows, sum(prompt_tokens)::bigint as prompt_tokens,
       sum(completion_tokens)::bigint as completion_tokens, {sums}
from ledger group by 1, 2, 3, 4, 5, 7, 8, 9, 10
"""


def _summed(link: psycopg.Connection) -> bytes:
    """Return the trigger's own statement, over what is alike in the ledger in the place of what a statement booked."""
    ((source,),) = link.execute("select prosrc from pg_proc where proname = 'add_to_spend'").fetchall()
    body = source.replace("from booked n", "from alike n").replace("return null;", "return;")
    # No account has a thousand tags, and each of these stands for several rows.
    body, tagged = re.subn(r"tag_shown\(.*?::date, tag\)", "tag", body)
    body, counted = re.subn(r"else 1\s+end as requested", "else n.rows end as requested", body)
    assert (tagged, counted) == (1, 1)
    alike = _ALIKE.format(sums=", ".join(f"sum({name})::bigint as {name}" for name in DIMENSIONS))
    made = f"create function pg_temp.sum_up() returns void language plpgsql as $sum${body}$sum$"
    return f"{alike}; {made}; select pg_temp.sum_up()".encode()


def server_ms(pid: int) -> float:
    """Return what a server's process has used of processors (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


async def _asked(url: str, report: Report, times: int) -> tuple[list[float], float]:
    """Return how long each report took, and the server's processor time for one."""
    postgres = Postgres(url, size=1)
    await postgres.open()
    spend, took = Spend(postgres), []
    try:
        async with postgres.transaction() as link:
            pid = link.info.backend_pid
        before = server_ms(pid)
        for _ in range(times):
            began = time.perf_counter()
            await spend.read(report, limit=1001)
            took.append((time.perf_counter() - began) * 1000)
        cpu_ms = (server_ms(pid) - before) / times
    finally:
        await postgres.close()
    return took, cpu_ms


def _filled(server: Database, folder: Path, rows: int) -> str:
    """Return the URL of the filled database: the one in the folder, or a new one."""
    done = folder / "filled"
    if done.exists():
        server.start()
        return server.url("moa")
    if (folder / "data").exists():
        raise SystemExit(f"{folder} holds a database whose filling broke off; remove it")
    server.start()
    url = server.create("moa")
    migrate(url)
    filled_s, summed_s = _fill(url, rows)
    print(f"{rows:,} rows written in {filled_s:.0f} s and summed in {summed_s:.0f} s")
    done.write_text(f"{rows}\n")
    return url


def _measure(server: Database, url: str) -> None:
    with psycopg.connect(url) as link:
        (sums,) = link.execute(
            "select (select count(*) from ledger), count(*), pg_total_relation_size('spend') / 1048576,"
            " pg_total_relation_size('ledger') / 1048576 from spend"
        ).fetchall()
    print(f"{sums[0]:,} rows; {sums[1]:,} sums in {sums[2]:,} MB, ledger {sums[3]:,} MB", flush=True)
    print(f"{os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f}")
    for name, report in _reports().items():
        server.stop()
        server.start()
        (cold,), _ = asyncio.run(_asked(url, report, 1))
        warm, cpu_ms = asyncio.run(_asked(url, report, _TIMES))
        warm.sort()
        p95 = warm[int(len(warm) * 0.95) - 1]
        print(
            f"{name:28} cold {cold:6.0f} ms   warm p50 {statistics.median(warm):6.1f} ms  p95 {p95:6.1f} ms"
            f"   CPU {cpu_ms:5.1f} ms",
            flush=True,
        )


def main() -> None:
    """Fill a database of our own, and print a line for each report."""
    parser = argparse.ArgumentParser(prog="python -m bench.spend", description="Measure reports of spending.")
    parser.add_argument("rows", nargs="?", type=int, default=10_000_000, help="rows of the ledger (10,000,000)")
    parser.add_argument("--data", type=Path, help="where the filled database stays, and is found again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = given.data or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        server = Database(folder / "data", durable=False)
        try:
            _measure(server, _filled(server, folder, given.rows))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
