"""Processes killed with -9 and replaced while callers of every kind are at work: what they see, and what they pay."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil
import psycopg
import pytest

from deploy.local import keep
from deploy.local.ports import Ports
from deploy.local.stack import Stack
from tests import stacks
from tests.auth.asking import audited
from tests.e2e.callers import TOKENS, Callers, Paced, calling
from tests.emulators.painter import painting

# Whichever comes first has the start of a whole gateway in its time, on whatever is free.
pytestmark = pytest.mark.timeout(300)

VICTIMS = [
    "router",
    "text",
    "envoy",
    pytest.param("auth", marks=pytest.mark.long),
    pytest.param("tasks", marks=pytest.mark.long),
]
MOST_FAILED = 0.01


@dataclass(frozen=True)
class Doubled:
    """A gateway of two routers and two of Envoy's processes."""

    stack: Stack

    def callers(self, each: int, kinds: Sequence[str] = ()) -> AbstractAsyncContextManager[Callers]:
        """Return callers, `each` of every kind."""
        return calling(self.stack.url, self.stack.api_key, each=each, kinds=kinds)

    def kill(self, victim: str) -> None:
        """Kill a process with -9."""
        if victim == "envoy":
            process = psutil.Process(self.stack.pid("edge")).children()[0]
            process.kill()
            process.wait()
        else:
            self.stack.kill(victim)

    def charged(self) -> Counter[int]:
        """Return the charges for texts in tokens, and how many there are of each."""
        kinds = "('settle', 'orphan', 'late')"
        query = f"select tokens, count(*) from ledger where kind in {kinds} and tokens > 0 group by tokens"
        with psycopg.connect(self.stack.database_url) as link:
            return Counter({int(tokens): int(count) for tokens, count in link.execute(query).fetchall()})

    def tasks(self) -> int:
        """Return how many tasks there are."""
        return self._count("tasks.tasks")

    async def is_exact(self, callers: Callers, before: Counter[int]) -> None:
        """Check, once everything is booked, that the books balance, that each answered text was charged what it cost,
        and that no request was charged twice."""
        texts = [asked for asked in callers.asked if asked.kind in ("chat", "stream")]
        answered = sum(asked.outcome == "ok" for asked in texts)
        async with asyncio.timeout(60):
            # Of what a router has settled auth hears with its next batch.
            while (
                (self.charged() - before)[TOKENS] < answered
                or self._count("open_reservations")
                or self._count("tasks.quota_outbox")
            ):
                await asyncio.sleep(0.1)
        await audited(self.stack.database_url)
        assert (self.charged() - before).total() <= len(texts)

    def _count(self, table: str) -> int:
        with psycopg.connect(self.stack.database_url) as link:
            row = link.execute(f"select count(*) from {table}").fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture(scope="module")
def port() -> int:
    return Ports().any()


@pytest.fixture(scope="module")
def doubled(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Doubled]:
    root: Path = tmp_path_factory.mktemp("restarts")
    stacks.begun(root / "state")
    token = keep.internal_secrets(root / "state" / "secrets.env")["MOA_SERVICE_TOKEN"]
    cloud = {"adapter": "openai", "makes": "text", "base_url": f"http://127.0.0.1:{port}/v1"}
    own = {"id": "moa-tiny-image", "provider": "local-image", "capabilities": ["size"], "load": {"source": "nowhere"}}
    catalogue = {
        "providers": [
            {"id": "cloud", **cloud, "credentials": {"api_key": "CLOUD_KEY"}},
            {"id": "local-image", "adapter": "inference", "makes": "image"},
        ],
        "models": [{"id": "paced", "provider": "cloud"}, own, {**own, "id": "gpt-image-1"}],
    }
    (root / "catalogue.yaml").write_bytes(msgspec.yaml.encode(catalogue))
    with painting(token) as address:
        environment = {
            "MOA_INFERENCE_ADDRESS": address,
            "MOA_CATALOGUE": str(root / "catalogue.yaml"),
            "CLOUD_KEY": "sk-good",
            # However busy the machine: a process is back before its callers give up.
            "MOA_EDGE_RETRIES": "150",
            # What a killed router held is booked when its lease is over.
            "MOA_LEASE_S": "8",
            "MOA_BLOCK_S": "10",
        }
        with Stack(
            root / "state",
            durable=False,
            environment={**stacks.QUICK, **environment},
            processes=("auth", "text", "router", "tasks", "edge"),
            workers={"router": 2, "edge": 2},
        ) as stack:
            with psycopg.connect(stack.database_url) as link:
                link.execute("update accounts set images_a_day = 1000000, tokens_a_day = 1000000000")
            yield Doubled(stack)


@pytest.fixture(autouse=True)
async def paced(port: int) -> AsyncIterator[Paced]:
    """The provider of the texts."""
    provider = Paced()
    await provider.start(port)
    yield provider
    await provider.stop()


async def killed(doubled: Doubled, callers: Callers, victim: str, *, after: int) -> float:
    """Kill a process once so many requests have ended; return when it was dead."""
    await callers.until(after)
    await asyncio.to_thread(doubled.kill, victim)
    return time.monotonic()


def check(callers: Callers, victim: str, dead_at: float) -> None:
    """Check that nobody was misled or refused, and that only what ran at the kill failed.

    What broke off amid the answer can only have been served by the dead process itself: nobody is left to end it, and
    its caller sees the connection break, never an answer that looks whole.
    """
    bad = callers.bad()
    assert not [asked for asked in bad if asked.outcome in ("silent", "refused")], bad
    assert all(asked.began < dead_at for asked in bad), bad
    broken = [asked for asked in bad if asked.outcome == "cut"]
    assert not broken or victim in ("router", "envoy"), broken


@pytest.mark.parametrize("victim", VICTIMS)
async def test_only_what_a_killed_process_served_fails(doubled: Doubled, victim: str) -> None:
    """kill -9 amid chats, streams and tasks: what comes later is answered, when the process is back at the latest; what
    failed is told so, and the ledger is exact."""
    before = doubled.charged()
    async with doubled.callers(2) as callers:
        dead_at = await killed(doubled, callers, victim, after=20)
        if victim != "envoy":
            await asyncio.to_thread(doubled.stack.await_ready, victim, wait_s=60)
        await callers.until(len(callers.asked) + 30)
    check(callers, victim, dead_at)
    await doubled.is_exact(callers, before)


@pytest.mark.long
@pytest.mark.parametrize("victim", VICTIMS)
async def test_fewer_than_one_in_a_hundred_fail(doubled: Doubled, victim: str) -> None:
    """Of a thousand requests of twelve callers, over a kill -9, fewer than one in a hundred fail."""
    before = doubled.charged()
    async with doubled.callers(4) as callers:
        dead_at = await killed(doubled, callers, victim, after=200)
        await callers.until(1000)
    told = [
        f"{victim}: {dict(callers.count())} of {len(callers.asked)}",
        f"slowest {max(asked.ended - asked.began for asked in callers.asked):.1f} s",
    ]
    print(", ".join(told))
    check(callers, victim, dead_at)
    assert len(callers.bad()) < MOST_FAILED * len(callers.asked), callers.bad()
    await doubled.is_exact(callers, before)


@pytest.mark.long
async def test_no_prediction_with_a_key_fails_when_the_task_service_is_killed(doubled: Doubled) -> None:
    """Four callers wait for predictions without a pause, each with an idempotency key, over four kills of the one task
    service: all are answered, and no task is made twice."""
    before = doubled.tasks()
    async with doubled.callers(4, ["prediction"]) as callers:
        for _ in range(4):
            await killed(doubled, callers, "tasks", after=len(callers.asked) + 10)
            await asyncio.to_thread(doubled.stack.await_ready, "tasks", wait_s=60)
        await callers.until(len(callers.asked) + 10)
    print(
        f"{len(callers.asked)} predictions, slowest {max(asked.ended - asked.began for asked in callers.asked):.1f} s"
    )
    assert not callers.bad(), callers.bad()
    assert doubled.tasks() - before == len(callers.asked)


@pytest.mark.long
async def test_every_process_can_be_replaced_under_load(doubled: Doubled) -> None:
    """A reload starts each process anew while callers are at work: none is refused or cut off, and no more than one in
    a hundred is told of a failure."""
    before = doubled.charged()
    async with doubled.callers(2) as callers:
        await callers.until(20)
        await asyncio.to_thread(doubled.stack.reload)
        await callers.until(max(300, len(callers.asked) + 30))
    assert {asked.outcome for asked in callers.asked} <= {"ok", "failed"}, callers.bad()
    assert len(callers.bad()) <= MOST_FAILED * len(callers.asked), callers.bad()
    await doubled.is_exact(callers, before)
