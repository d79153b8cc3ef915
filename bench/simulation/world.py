"""A world of regions, replicas, routers and one database, with a load and faults, and what is measured of it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import simpy

from bench.simulation.books import Books, Key
from bench.simulation.clock import simulated
from bench.simulation.database import Cost, Database
from bench.simulation.load import Driver, Load, Outcome, Request
from bench.simulation.network import Map, Network
from bench.simulation.replicas import PEPPER, Replica, Router
from services.auth.domain import keys

_SAMPLE_S: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong, when, and for how long."""

    what: Literal["cut", "kill routers", "kill replicas", "database away"]
    at_s: float
    lasts_s: float = 0.0
    region: int = 1
    count: int = 1
    """How many processes are killed."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is simulated."""

    name: str
    load: Load
    regions: int = 1
    within_s: float = 0.0002
    auth_regions: int | None = None
    """In how many regions auth runs; None: in all."""
    replicas: int = 2
    """Of auth, in each of them."""
    tokens_a_day: int = 10**12
    """Of each key's account."""
    lease_s: float = 20.0
    block_s: float = 60.0
    processors: int = 8
    cost: Cost = field(default_factory=Cost)
    faults: Sequence[Fault] = ()
    quiet_s: float = 0.0
    """How long is waited after the last request, until what the dead held is back."""


@dataclass(kw_only=True)
class Report:
    """What came of it."""

    name: str
    outcome: Outcome
    lasted_s: float
    calls: dict[str, float]
    """Calls of auth a second, by method."""
    transactions: dict[str, float]
    """Of the database a second, by what they do."""
    database_busy: float
    """Processors of the database that were at work, on average."""
    granted: int
    """Tokens that the limits allow."""
    charged: int
    uncovered: int
    """Tokens that were told when a limit had no room left for them: charged to nobody."""
    stranded_mean: int
    """Tokens that blocks held, and no request that ran had set aside, on average over seconds with load."""
    stranded_most: int
    held_at_end: int
    faults: list[str]

    @property
    def calls_a_second(self) -> float:
        """Calls of auth a second."""
        return sum(self.calls.values())

    @property
    def transactions_a_second(self) -> float:
        """Transactions of the database a second."""
        return sum(self.transactions.values())

    @property
    def law_holds(self) -> bool:
        """Whether nothing was granted beyond a limit, and what was charged is what blocks and days say."""
        return not self.faults and self.charged <= self.granted


def simulate(plan: Plan, seed: int) -> Report:
    """Return what comes of a plan. The same seed gives the same report."""
    requests = plan.load.requests(seed)
    with tempfile.TemporaryDirectory(prefix="moa-simulated-") as folder:
        return simulated(lambda env: _World(env, plan, Path(folder)).run(requests))


class _World:
    def __init__(self, env: simpy.Environment, plan: Plan, folder: Path) -> None:
        self._env = env
        self._plan = plan
        self._secrets = [f"moa-simulated-{number:04}" for number in range(plan.load.keys)]
        self._network = Network(env, Map(regions=plan.regions, within_s=plan.within_s))
        books = Books(
            keys=[
                Key(f"key_{number:04}", f"acc_{number:04}", keys.digest(PEPPER, secret), plan.tokens_a_day)
                for number, secret in enumerate(self._secrets)
            ],
            clock=lambda: float(env.now),
            grace_s=plan.lease_s / 2,
            alive_s=max(4.0, plan.lease_s),
        )
        self._database = Database(env, self._network, books, region=0, processors=plan.processors, cost=plan.cost)
        self._replicas = [
            Replica(self._database, region=region, lease_s=plan.lease_s, block_s=plan.block_s)
            for region in range(plan.auth_regions or plan.regions)
            for _ in range(plan.replicas)
        ]
        self._folder = folder
        self._driver = Driver(self._secrets, plan.tokens_a_day)
        self._stranded: list[int] = []

    async def run(self, requests: Sequence[Request]) -> Report:
        """Do it."""
        plan, env = self._plan, self._env
        for replica in self._replicas:
            await replica.start()
        self._routers = [
            Router(self._network, self._replicas, region=number % plan.regions, folder=self._folder / str(number))
            for number in range(plan.load.routers)
        ]
        for router in self._routers:
            await router.start()
        began = env.now
        others = [asyncio.create_task(self._fault(fault)) for fault in plan.faults]
        sampling = asyncio.create_task(self._sample())
        await self._driver.come(
            requests, lambda request, one: self._up(request.router).run(one), lambda n: self._up(n).admission
        )
        sampling.cancel()
        lasted_s = env.now - began
        calls, transactions = self._network.calls.copy(), self._database.transactions.copy()
        busy_s = self._database.busy_s
        # What runs ends, and is booked.
        await asyncio.sleep(plan.load.takes_s * 5 + 2.0 + plan.quiet_s)
        await asyncio.gather(*others)
        books = self._database.books
        return Report(
            name=plan.name,
            outcome=self._driver.outcome,
            lasted_s=lasted_s,
            calls={name: count / lasted_s for name, count in sorted(calls.items())},
            transactions={name: count / lasted_s for name, count in sorted(transactions.items())},
            database_busy=busy_s / lasted_s,
            granted=plan.tokens_a_day * plan.load.keys,
            charged=books.spent().tokens,
            uncovered=books.uncovered.tokens,
            stranded_mean=sum(self._stranded) // max(1, len(self._stranded)),
            stranded_most=max(self._stranded, default=0),
            held_at_end=books.outstanding().tokens,
            faults=books.faults(),
        )

    def _up(self, number: int) -> Router:
        """Return a router, or the next that is up: who finds nobody asks another."""
        routers = self._routers[number:] + self._routers[:number]
        return next((router for router in routers if router.up), routers[0])

    async def _sample(self) -> None:
        """Look once a second at what is held, and in no request's use."""
        while True:
            await asyncio.sleep(_SAMPLE_S)
            held = self._database.books.outstanding().tokens
            self._stranded.append(max(0, held - self._driver.outcome.aside))

    async def _fault(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at_s)
        if fault.what == "cut":
            self._network.cut(fault.region)
            await asyncio.sleep(fault.lasts_s)
            self._network.mend(fault.region)
        elif fault.what == "database away":
            self._database.up = False
            await asyncio.sleep(fault.lasts_s)
            self._database.up = True
        elif fault.what == "kill routers":
            await asyncio.gather(*(router.kill() for router in self._routers[: fault.count]))
        else:
            for replica in self._replicas[-fault.count :]:
                await replica.kill()
