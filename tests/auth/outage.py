"""The run that shows what a database that is away costs, at the times that the product ships with.

    python -m tests.auth.outage

Three replicas and three routers serve a warm key. PostgreSQL is killed and stays away for 30 s, during which every
request must be served; then for 75 s, in which requests must be served for 30 s, and later be told 503 and nothing
else. Requests that run all the while are settled afterwards. In the end the ledger must equal what was consumed, and
all that is left of the limit must be there to be had.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.database import Database
from services.auth.migrations import migrate
from services.common import logs
from services.common.errors import MoaError
from services.common.rpc.client import channel
from services.quota_client import Admission, Reservation
from tests.auth.asking import TOKEN, audited, reserve, settle
from tests.auth.conftest import spawned
from tests.auth.soak import account_of, charges_of, had_the_rest
from tests.forking import Begun

RESERVED, CONSUMED = 100, 60
LIMIT = 1_000_000
_ROUTERS = _REPLICAS = 3
_BETWEEN_S = 0.1
_BACK_WITHIN_S = 20.0


@dataclass
class Seen:
    """What requests came to during one stretch of the run."""

    name: str
    away_s: float
    served: int = 0
    last_served_s: float = 0.0
    first_refused_s: float | None = None
    errors: Counter[str] = field(default_factory=Counter)
    slowest_refusal_s: float = 0.0

    def __str__(self) -> str:
        refused = "none" if self.first_refused_s is None else f"first after {self.first_refused_s:.1f} s"
        told = ", ".join(f"{count} {name}" for name, count in self.errors.items()) or "no error"
        return (
            f"{self.name}: {self.served} served, the last after {self.last_served_s:.1f} s; refused: {refused} ({told},"
            f" the slowest told after {self.slowest_refusal_s:.1f} s)"
        )


class Run:
    """Traffic of one key over several routers, and what came of it."""

    def __init__(self, routers: list[Admission], key: str) -> None:
        self._routers = routers
        self._key = key
        self.consumed = 0

    async def during(self, name: str, seconds: float) -> Seen:
        """Send requests for so long."""
        seen = Seen(name, seconds)
        began = time.monotonic()
        await asyncio.gather(*(self._traffic(router, began, seconds, seen) for router in self._routers))
        return seen

    async def until_served(self, within_s: float) -> float | None:
        """Return how long it takes until every router serves again; None if longer than that."""
        began = time.monotonic()
        for router in self._routers:
            while True:
                try:
                    self._consume(await reserve(router, self._key, RESERVED))
                    break
                except MoaError:
                    if time.monotonic() - began > within_s:
                        return None
                    await asyncio.sleep(_BETWEEN_S)
        return time.monotonic() - began

    async def begun(self) -> list[Reservation]:
        """Begin a request on every router that runs until `end` is told of it."""
        return [await reserve(router, self._key, RESERVED) for router in self._routers]

    def end(self, running: list[Reservation]) -> None:
        """End these requests."""
        for reservation in running:
            self._consume(reservation)

    async def _traffic(self, router: Admission, began: float, seconds: float, seen: Seen) -> None:
        while (at := time.monotonic()) - began < seconds:
            try:
                self._consume(await reserve(router, self._key, RESERVED))
            except MoaError as error:
                seen.errors[type(error).__name__] += 1
                if seen.first_refused_s is None:
                    seen.first_refused_s = at - began
                seen.slowest_refusal_s = max(seen.slowest_refusal_s, time.monotonic() - at)
            else:
                seen.served += 1
                seen.last_served_s = max(seen.last_served_s, at - began)
            await asyncio.sleep(_BETWEEN_S)

    def _consume(self, reservation: Reservation) -> None:
        settle(reservation, CONSUMED)
        self.consumed += CONSUMED


async def run(folder: Path) -> bool:
    """Do it, say what was seen, and tell whether all of it is as it must be."""
    database = Database(folder / "database")
    await asyncio.to_thread(database.start)
    try:
        url = database.create("moa")
        await asyncio.to_thread(migrate, url)
        return await _run(folder, database, url)
    finally:
        await asyncio.to_thread(database.stop)


async def _run(folder: Path, database: Database, url: str) -> bool:
    account_id, key = await account_of(url, LIMIT)
    async with _replicas(url) as addresses, _routers(addresses, folder) as routers:
        traffic = Run(routers, key)
        print(await traffic.during("with the database", 30), flush=True)
        good = True
        for name, away_s, served_s in (("away for 30 s", 30.0, 30.0), ("away for 75 s", 75.0, 30.0)):
            running = await traffic.begun()
            await asyncio.to_thread(database.kill)
            seen = await traffic.during(name, away_s)
            await asyncio.to_thread(database.start)
            back_s = await traffic.until_served(_BACK_WITHIN_S)
            traffic.end(running)
            print(
                f"{seen}; served again {'never' if back_s is None else f'{back_s:.1f} s'} after it was back", flush=True
            )
            good &= back_s is not None and _as_promised(seen, served_s)
            print(await traffic.during("with the database again", 15), flush=True)
    findings = await audited(url)
    charged = sum(charges_of(url, account_id).values())
    rest = await _rest(url, account_id, key)
    orphans = len(findings.notes["orphans"])
    print(f"consumed {traffic.consumed:,} tokens; the ledger charged {charged:,}; orphans {orphans}")
    print(f"all that is left of the limit could be had: {rest}", flush=True)
    return good and rest and charged == traffic.consumed


def _as_promised(seen: Seen, served_s: float) -> bool:
    """Return whether no request was refused before `served_s`, and every refusal was a 503."""
    early = seen.first_refused_s is not None and seen.first_refused_s < served_s
    refused = seen.away_s > 60 and seen.first_refused_s is None
    return not early and not refused and set(seen.errors) <= {"Unavailable"}


async def _rest(url: str, account_id: str, key: str) -> bool:
    """Return whether a new replica, once the others are gone, lends all that is left."""
    async with _replicas(url, 1) as addresses:
        return await had_the_rest(addresses, key, url, account_id, LIMIT, within_s=90)


@asynccontextmanager
async def _replicas(url: str, count: int = _REPLICAS) -> AsyncIterator[str]:
    replicas: list[tuple[Begun, str]] = await asyncio.gather(*(spawned(url, database_wait_s=1.0) for _ in range(count)))
    try:
        yield "ipv4:" + ",".join(address for _, address in replicas)
    finally:
        for process, _ in replicas:
            process.terminate()
            await process.wait()


@asynccontextmanager
async def _routers(addresses: str, folder: Path) -> AsyncIterator[list[Admission]]:
    link = channel(addresses)
    routers = [Admission(link, service_token=TOKEN, journal=folder / f"journal-{number}") for number in range(_ROUTERS)]
    for router in routers:
        await router.start()
    try:
        yield routers
    finally:
        for router in routers:
            await router.stop()
        await link.close()


def main() -> None:
    """Do the run and say what came of it."""
    # What the database's absence is logged as is no news here.
    logs.configure("outage", "critical")
    with tempfile.TemporaryDirectory(prefix="moa-outage-") as folder:
        good = asyncio.run(run(Path(folder)))
    print("it held" if good else "it did NOT hold")
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
