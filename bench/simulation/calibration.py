"""The same load by four routers on the real ledger and in the simulation, and how far these are apart."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

import grpc
import psycopg

from bench.simulation.database import Cost
from bench.simulation.load import Driver, Load, Outcome, Request
from bench.simulation.world import Plan, simulate
from deploy.local.database import Database
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.keys import Keys
from services.auth.adapters.postgres import Postgres
from services.auth.domain import keys
from services.auth.domain.accounts import EVERYTHING, Limits
from services.auth.migrations import migrate
from services.common.rpc.client import channel
from services.quota_client import Admission
from tests.auth.asking import PEPPER, TOKEN
from tests.auth.conftest import spawned

_REPLICAS: Final = 2
_METHODS: Final = ("Admit", "Refresh", "Settle", "ReturnLeases")
_SETTLED_S: Final = 2.5
"""How long after the last request everything is counted: PostgreSQL tells its statistics with a delay."""
_TIGHT: Final = Load(routers=4, keys=1, a_second=40.0, lasts_s=30.0)
PLANS: Final = (
    Plan(name="10 keys, plenty", load=Load(routers=4, keys=10, a_second=40.0, lasts_s=30.0), replicas=_REPLICAS),
    Plan(name="1 key, room for 60 %", load=_TIGHT, replicas=_REPLICAS, tokens_a_day=360_000),
)
_COUNTED: Final = "select xact_commit from pg_stat_database where datname = current_database()"
_HELD: Final = (
    "select coalesce(sum(tokens - settled_tokens - returned_tokens), 0)::bigint from blocks where closed_at is null"
)


@dataclass(kw_only=True)
class Figures:
    """What is compared."""

    calls: dict[str, float]
    transactions_a_second: float
    stranded_mean: float
    outcome: Outcome
    wal_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """How long calls took, the median by method: few that a busy machine holds up for seconds say nothing of others."""

    def rows(self) -> dict[str, float]:
        """Return the figures by name."""
        return {
            **{
                f"{name} a second": self.calls.get(name, 0.0) for name in ("Admit", "Refresh", "Settle", "ReturnLeases")
            },
            "calls of auth a second": sum(self.calls.values()),
            "transactions a second": self.transactions_a_second,
            "stranded tokens, mean": self.stranded_mean,
            "refused for want of quota": self.outcome.exhausted,
            "of these in vain": self.outcome.in_vain,
            "answered": self.outcome.answered,
        }


class _Counting:
    """A channel that counts calls."""

    def __init__(self, link: grpc.aio.Channel, calls: Counter[str], seconds: dict[str, list[float]]) -> None:
        self._link = link
        self._calls = calls
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def unary_unary(self, method: str, *given: Any, **more: Any) -> Callable[..., Awaitable[Any]]:
        call, name = self._link.unary_unary(method, *given, **more), method.rpartition("/")[2]

        async def counted(*given: Any, **more: Any) -> Any:
            self._calls[name] += 1
            began = time.perf_counter()
            answer = await call(*given, **more)
            self._seconds[name].append(time.perf_counter() - began)
            return answer

        return counted


async def real(plan: Plan, seed: int) -> Figures:
    """Return what comes of a plan on real auths and a real PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="moa-calibration-") as folder:
        database = Database(Path(folder) / "database")
        await asyncio.to_thread(database.start)
        started = []
        try:
            url = database.create("moa")
            await asyncio.to_thread(migrate, url)
            secrets = await _made(url, plan)
            replicas = [await spawned(url, lease_s=plan.lease_s, block_s=plan.block_s) for _ in range(plan.replicas)]
            started = [process for process, _ in replicas]
            address = "ipv4:" + ",".join(address for _, address in replicas)
            return await _driven(plan, plan.load.requests(seed), address, secrets, url, Path(folder))
        finally:
            for process in started:
                process.terminate()
                await process.wait()
            await asyncio.to_thread(database.stop)


async def _made(url: str, plan: Plan) -> list[str]:
    postgres = Postgres(url, size=1)
    await postgres.open()
    accounts, stored, secrets = Accounts(postgres), Keys(postgres), []
    limits = Limits(tokens_a_day=min(plan.tokens_a_day, 10**12), images_a_day=0, key_count=1)
    for _ in range(plan.load.keys):
        key = keys.make(PEPPER)
        await stored.create(await accounts.create(role="user", limits=limits, rules=[EVERYTHING]), key)
        secrets.append(key.secret)
    await postgres.close()
    return secrets


async def _driven(
    plan: Plan, requests: list[Request], address: str, secrets: list[str], url: str, folder: Path
) -> Figures:
    calls, seconds = Counter[str](), defaultdict[str, list[float]](list)
    links = [channel(address) for _ in range(plan.load.routers)]
    routers = [
        Admission(cast(Any, _Counting(link, calls, seconds)), service_token=TOKEN, journal=folder / f"journal-{number}")
        for number, link in enumerate(links)
    ]
    for router in routers:
        await router.start()
    driver = Driver(secrets, plan.tokens_a_day)
    running: set[asyncio.Task[None]] = set()

    def run(request: Request, one: Any) -> None:
        task = asyncio.create_task(one)
        running.add(task)
        task.add_done_callback(running.discard)

    link = await psycopg.AsyncConnection.connect(url, autocommit=True)
    before = await _one(link, _COUNTED)
    began_at = await _one(link, "select pg_current_wal_lsn() - '0/0'::pg_lsn")
    loop = asyncio.get_running_loop()
    began, stranded = loop.time(), list[int]()
    sampling = asyncio.create_task(_sampled(link, driver.outcome, stranded))
    await driver.come(requests, run, lambda number: routers[number])
    counted, lasted_s = calls.copy(), loop.time() - began
    sampling.cancel()
    await asyncio.gather(sampling, return_exceptions=True)
    samples = len(stranded)
    await asyncio.sleep(_SETTLED_S)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as fresh:
        committed = await _one(fresh, _COUNTED) - before - samples
        wal_bytes = await _one(fresh, "select pg_current_wal_lsn() - '0/0'::pg_lsn") - began_at
    in_all_s = loop.time() - began
    await asyncio.gather(*running)
    await link.close()
    for router, used in zip(routers, links, strict=True):
        await router.stop()
        await used.close()
    return Figures(
        calls={name: count / lasted_s for name, count in counted.items()},
        transactions_a_second=committed / in_all_s,
        stranded_mean=sum(stranded) / max(1, samples),
        outcome=driver.outcome,
        wal_bytes=wal_bytes,
        seconds={name: statistics.median(each) for name, each in seconds.items()},
    )


def as_quick(plan: Plan, found: Figures) -> Plan:
    """Return a plan in which a call and a transaction take as long as they did on this machine, as busy as it was."""
    call_s, settle_s = found.seconds["Refresh"], found.seconds["Settle"]
    return replace(plan, within_s=call_s / 2, cost=Cost(wait_s=max(0.0, settle_s - call_s)))


async def _sampled(link: psycopg.AsyncConnection[Any], outcome: Outcome, stranded: list[int]) -> None:
    while True:
        await asyncio.sleep(1.0)
        stranded.append(max(0, await _one(link, _HELD) - outcome.aside))


async def _one(link: psycopg.AsyncConnection[Any], statement: Any) -> int:
    row = await (await link.execute(statement)).fetchone()
    assert row is not None
    return int(row[0])


def compared(seed: int) -> str:
    """Return tables of what is real, what is simulated, and the error."""
    parts = []
    for plan in PLANS:
        found = asyncio.run(real(plan, seed))
        report = simulate(as_quick(plan, found), seed)
        as_simulated = Figures(
            calls=report.calls,
            transactions_a_second=report.transactions_a_second,
            stranded_mean=report.stranded_mean,
            outcome=report.outcome,
        ).rows()
        lines = [f"| {plan.name} | real | simulated | error |", "|---|---|---|---|"]
        for name, value in found.rows().items():
            other = as_simulated[name]
            error = f"{(other - value) / value:+.0%}" if value else "-"
            lines.append(f"| {name} | {value:,.1f} | {other:,.1f} | {error} |")
        asked = found.outcome.asked
        told = ", ".join(f"{name} {took_s * 1e3:.1f}" for name, took_s in sorted(found.seconds.items()))
        lines.append(f"\nMilliseconds of a call here, as simulated: {told}. Load average {os.getloadavg()[0]:.0f}.")
        lines.append(f"WAL: {found.wal_bytes / asked:,.0f} bytes a request of {asked:,}.")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
