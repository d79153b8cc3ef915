"""Measure admission: a second's worth of admissions, warm and cold, with and without the ledger.

    make bench-admission

Auth runs in a process of its own over the embedded PostgreSQL (durable: every commit is on disk). Warm is what a
request costs in the router while its key is warm; asking is what a lease costs from auth's memory; cold is a key that
nobody has seen, down to the ledger; booking is what the ledger takes for what requests came to, off their path.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import uvloop

from deploy.local.database import Database
from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2, quota_service_pb2, quota_service_pb2_grpc
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.keys import Keys
from services.auth.adapters.postgres import Postgres
from services.auth.domain import keys
from services.auth.domain.accounts import EVERYTHING, Limits
from services.auth.migrations import migrate
from services.common import logs
from services.common.rpc.client import channel, metadata
from services.quota_client import Admission
from services.quota_client.amounts import UNLIMITED, Amount
from tests.auth.asking import PEPPER, TOKEN
from tests.auth.conftest import spawned

_USAGE = usage_pb2.Usage(prompt_tokens=30, completion_tokens=20, exact=True)
_TEXT = quota_pb2.OPERATION_TEXT


async def main() -> None:
    """Measure and print a table."""
    with tempfile.TemporaryDirectory(prefix="moa-bench-") as folder:
        database = Database(Path(folder) / "database")
        await asyncio.to_thread(database.start)
        url = database.create("moa")
        await asyncio.to_thread(migrate, url)
        process, address = await spawned(url)
        try:
            await _measured(url, address, Path(folder))
        finally:
            process.terminate()
            await process.wait()
            await asyncio.to_thread(database.stop)


async def _measured(url: str, address: str, folder: Path) -> None:
    made = await made_keys(url, 400)
    link = channel(address)
    paced = (await made_keys(url, 1, requests_a_minute=1_000_000, concurrent_requests=1_000_000))[0]
    print(f"{'':38}{'a second':>10}{'p50':>10}{'p99':>10}")
    for name, key, journal, settling in (
        ("warm, reserve and release", made[0], None, False),
        ("warm, reserve and settle", made[0], None, True),
        ("warm, reserve and settle, journal", made[0], folder / "journal", True),
        ("warm with a pace, settle, journal", paced, folder / "journal-2", True),
    ):
        admission = Admission(link, service_token=TOKEN, journal=journal)
        await admission.start()

        async def warm(admission: Admission = admission, key: str = key, settling: bool = settling) -> None:
            reservation = await admission.reserve(
                key, operation=_TEXT, provider="local-text", model="m", need=Amount(100), request_id="r"
            )
            if settling:
                reservation.settle(usage=_USAGE, provider="local-text", model="m")
            else:
                reservation.release()

        for _ in range(20):
            await warm()
            await asyncio.sleep(0.05)
        _print(name, await _timed(warm, 4000, at_once=1))
        await admission.stop()
    stub: quota_service_pb2_grpc.QuotaServiceAsyncStub = quota_service_pb2_grpc.QuotaServiceStub(link)

    async def ask(key: str = made[1]) -> None:
        amount = quota_pb2.Amount(tokens=100)
        request = quota_service_pb2.AdmitRequest(
            api_key=key, holder="bench", operation=_TEXT, provider="local-text", model="m", need=amount, want=amount
        )
        await stub.Admit(request, metadata=metadata(TOKEN, "r"))

    for _ in range(50):
        await ask()
        await asyncio.sleep(0.02)
    _print("asking auth, one at a time", await _timed(ask, 1000, at_once=1))
    _print("asking auth, 32 at once", await _timed(ask, 4000, at_once=32))
    await _settled(stub, made[2])
    fresh = iter(made[3:])

    async def cold() -> None:
        await ask(next(fresh))

    _print("cold key, one at a time", await _timed(cold, 150, at_once=1))
    _print("cold key, 8 at once", await _timed(cold, 240, at_once=8))
    await link.close()


async def _settled(stub: quota_service_pb2_grpc.QuotaServiceAsyncStub, key: str) -> None:
    """Measure what booking costs: a settlement a call, and the batches that a busy router makes of them."""
    amount = quota_pb2.Amount(tokens=1 << 20)
    answer = await stub.Admit(
        quota_service_pb2.AdmitRequest(api_key=key, holder="bench", operation=_TEXT, need=amount, want=amount),
        metadata=metadata(TOKEN, "r"),
    )
    numbers = itertools.count(1)

    async def book(count: int) -> None:
        batch = [
            quota_pb2.Settlement(
                reservation_id=f"{answer.grant.lease.lease_id}.{next(numbers):x}.100.0",
                charged=quota_pb2.Amount(tokens=50),
                usage=_USAGE,
            )
            for _ in range(count)
        ]
        request = quota_service_pb2.SettleRequest(settlements=batch)
        booked = await stub.Settle(request, metadata=metadata(TOKEN, "r"))
        assert len(booked.booked) == count

    _print("booking in the ledger, one a call", await _timed(partial(book, 1), 200, at_once=1))
    _print("booking in the ledger, 100 a call", await _timed(partial(book, 100), 40, at_once=1))


async def made_keys(url: str, count: int, **pace: int) -> list[str]:
    """Store keys that may do everything, each of an account of its own; return them."""
    postgres = Postgres(url, size=1)
    await postgres.open()
    made = []
    limits = Limits(tokens_a_day=UNLIMITED, images_a_day=0, key_count=10, **pace)
    for _ in range(count):
        account_id = await Accounts(postgres).create(role="service", limits=limits, rules=[EVERYTHING])
        key = keys.make(PEPPER)
        await Keys(postgres).create(account_id, key)
        made.append(key.secret)
    await postgres.close()
    return made


async def _timed(work: Callable[[], Awaitable[None]], count: int, *, at_once: int) -> tuple[float, list[float]]:
    took: list[float] = []

    async def worker(share: int) -> None:
        for number in range(share):
            began = time.perf_counter()
            await work()
            took.append(time.perf_counter() - began)
            if number % 100 == 99:
                await asyncio.sleep(0)  # background work has its turns, as in a router

    began = time.perf_counter()
    await asyncio.gather(*(worker(count // at_once) for _ in range(at_once)))
    return len(took) / (time.perf_counter() - began), took


def _print(name: str, measured: tuple[float, list[float]]) -> None:
    rate, took = measured
    cuts = statistics.quantiles(took, n=100)
    print(f"{name:38}{rate:>10,.0f}{_time(cuts[49]):>10}{_time(cuts[98]):>10}")


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:,.2f} ms"


if __name__ == "__main__":
    logs.configure("bench", "error")
    uvloop.run(main())
