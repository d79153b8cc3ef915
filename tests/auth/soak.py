"""The run that shows exactness: many requests over several routers and replicas, some of which are killed midway.

    python -m tests.auth.soak      the large run: 1,000 requests, room for 400

`make test` runs a small one (`test_soak.py`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from deploy.local.database import Database
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.budgets import Budgets
from services.auth.adapters.checker import Findings
from services.auth.adapters.keys import Keys
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.teams import MEMBER, Teams
from services.auth.domain import keys
from services.auth.domain.accounts import EVERYTHING, Limits
from services.auth.migrations import migrate
from services.common.errors import MoaError
from services.common.rpc.client import channel
from services.quota_client import Admission
from services.quota_client.amounts import ReservationId
from tests.auth.asking import PEPPER, TOKEN, audited, reserve, settle, until
from tests.auth.conftest import spawned
from tests.auth.holder import NANO_USD, TAG, TOKENS
from tests.forking import Begun

REPLICAS = ROUTERS = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How large a run is."""

    requests: int
    room: int
    lease_s: float = 6.0
    """How long a process of a busy machine may stand still and count as alive."""
    block_s: float = 8.0
    kill_after_s: float = 1.0
    """When a replica, a router and the database are killed: while requests run."""
    pause_s: float = 0.1
    """Between two parts of an answer."""
    spread_s: float = 2.0
    """Over how long requests arrive."""
    patience_s: float = 0.0
    """How long a request that is refused is sent again."""
    leavers: float = 0.25
    """How many of the callers leave before the end of their answers."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run."""

    answered: int
    left: int
    """Requests whose caller left."""
    refused: int
    unheard: int
    """Requests that the killed router had settled before anybody heard of it."""
    cut: int
    """Requests that the kill cut off, each charged as last reported."""
    invoiced: int
    charged: int
    unmatched: list[str]
    """Reservations whose charge differs from the invoice, and which are not listed as orphans."""
    findings: Findings
    mispriced: list[str]
    """Reservations whose charge in dollars is not the price of their tokens."""
    by_tag: tuple[int, int]
    """Tokens that were charged to the budget of a tag, and those of requests that count on it."""
    limit: int
    """Tokens that the team's dollars are for."""
    room_left: int
    """Requests that the account still had room for when all of these had ended."""
    filled: int
    """How many such requests were answered once the time of what the dead held was over."""
    spare: int
    """Tokens that were left then: less than a request's."""
    outstanding: int
    """Tokens still held when everything had ended."""
    took_s: float

    @property
    def exact(self) -> bool:
        """Whether nothing was granted beyond the limit, nothing lost of it, and nothing charged but the invoice."""
        return (
            self.spare >= 0
            and self.filled == self.room_left
            and self.spare < TOKENS
            and not self.unmatched
            and not self.mispriced
            and self.by_tag[0] == self.by_tag[1] > 0
            and not self.outstanding
            and not self.findings.faults
        )


async def run(plan: Plan, folder: Path) -> Outcome:
    """Do it; every process is gone at the end."""
    began = time.monotonic()
    database = Database(folder / "database")
    await asyncio.to_thread(database.start)
    processes: list[Begun] = []
    try:
        return await _run(plan, folder, database, processes, began)
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await asyncio.to_thread(database.stop)


async def _run(plan: Plan, folder: Path, database: Database, processes: list[Begun], began: float) -> Outcome:
    url = database.create("moa")
    await asyncio.to_thread(migrate, url)
    limit = plan.room * TOKENS
    # What binds is the team's dollars; a budget counts what half of the requests use.
    account_id, key = await account_of(url, limit * 10)
    budget_id = await _budget_of(url, account_id, nano_usd=limit * NANO_USD, tokens=limit)
    replicas = await asyncio.gather(
        *(spawned(url, lease_s=plan.lease_s, block_s=plan.block_s, database_wait_s=1.0) for _ in range(REPLICAS))
    )
    processes.extend(process for process, _ in replicas)
    addresses = "ipv4:" + ",".join(address for _, address in replicas)
    shares = [plan.requests // ROUTERS + (n < plan.requests % ROUTERS) for n in range(ROUTERS)]
    # At once: on a busy machine each takes its time to import.
    routers = await asyncio.gather(*(_router(addresses, key, folder, n, share, plan) for n, share in enumerate(shares)))
    processes.extend(routers)
    told = [asyncio.create_task(_outcomes(router)) for router in routers]

    await asyncio.sleep(plan.kill_after_s)
    replicas[0][0].kill()
    routers[0].kill()
    await asyncio.to_thread(database.kill)
    await asyncio.to_thread(database.start)
    # The router's successor finds its journal.
    successor = await _router(addresses, key, folder, 0, 0, plan)
    processes.append(successor)
    told.append(asyncio.create_task(_outcomes(successor)))

    outcomes = sum(await asyncio.gather(*told), Counter[str]())
    # Until auth has all that the killed router's journal says, and its successor alone has one.
    await until(lambda: len(list((folder / "journal-0").glob("*.journal"))) == 1)
    for router in (*routers[1:], successor):
        router.send_signal(signal.SIGTERM)
        assert await router.wait() == 0
    # Until what the dead held has gone back, and what the living hold ahead of need.
    await until(lambda: not _held(url))
    findings = await audited(url)
    charges, invoice = charges_of(url, account_id), _invoice(folder)
    left = limit - sum(charges.values())
    filled = await _filled(addresses, key, folder, plan, left // TOKENS)
    for process, _ in replicas[1:]:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    await audited(url)
    orphans = {row["reservation"] for row in findings.notes["orphans"]}
    return Outcome(
        answered=outcomes["answered"],
        left=outcomes["left"],
        refused=outcomes["refused"],
        unheard=max(0, len(charges) - len(orphans) - outcomes["answered"] - outcomes["left"]),
        cut=len(orphans),
        invoiced=sum(invoice.values()),
        charged=sum(charges.get(name, 0) for name in invoice),
        unmatched=[
            name
            for name in invoice.keys() | charges.keys()
            if charges.get(name, 0) != invoice.get(name, 0) and name not in orphans
        ],
        findings=findings,
        mispriced=_mispriced(url, account_id),
        by_tag=_by_tag(url, budget_id),
        limit=limit,
        room_left=left // TOKENS,
        filled=filled,
        spare=limit - sum(charges_of(url, account_id).values()),
        outstanding=_outstanding(url, account_id),
        took_s=time.monotonic() - began,
    )


async def _filled(addresses: str, key: str, folder: Path, plan: Plan, room: int) -> int:
    """Send as many requests as there is room for over new routers, each asked again while it is refused for a lease's
    time at most; give how many were answered."""
    shares = [room // ROUTERS + (n < room % ROUTERS) for n in range(ROUTERS)]
    patient = replace(plan, spread_s=0.5, patience_s=plan.block_s + plan.lease_s, leavers=0.0)
    routers = await asyncio.gather(
        *(_router(addresses, key, folder, ROUTERS + n, share, patient) for n, share in enumerate(shares))
    )
    try:
        return sum(await asyncio.gather(*map(_outcomes, routers)), Counter[str]())["answered"]
    finally:
        for router in routers:
            router.send_signal(signal.SIGTERM)
            await router.wait()


async def account_of(url: str, limit: int) -> tuple[str, str]:
    """Make an account that may use so many tokens a day; give its id and a key."""
    postgres = Postgres(url, size=1, wait_s=20)
    await postgres.open()
    limits = Limits(tokens_a_day=limit, images_a_day=0, key_count=1)
    account_id = await Accounts(postgres).create(role="user", limits=limits, rules=[EVERYTHING])
    key = keys.make(PEPPER)
    await Keys(postgres).create(account_id, key)
    await postgres.close()
    return account_id, key.secret


async def _budget_of(url: str, account_id: str, *, nano_usd: int, tokens: int) -> str:
    """Put an account into a team of so many dollars a month, with a budget of so many tokens a day for a tag."""
    postgres = Postgres(url, size=1, wait_s=20)
    await postgres.open()
    teams = Teams(postgres)
    limits = {"nano_usd_a_month": nano_usd}
    team = await teams.create(name="soak", columns=limits, rules=[], key_count=1, actor="console")
    await teams.put(team.id, account_id, MEMBER, actor="console")
    budget = await Budgets(postgres).create(owner=team.id, tag=TAG, actor="console", tokens_a_day=tokens)
    await postgres.close()
    return budget.id


def _mispriced(url: str, account_id: str) -> list[str]:
    """Return the reservations that were not charged the price of their tokens, to the nano-dollar."""
    with psycopg.connect(url) as link:
        rows = link.execute(
            "select reference from ledger where account_id = %s and kind in ('settle', 'orphan', 'late')"
            " group by reference having sum(nano_usd) <> %s * sum(tokens)",
            (account_id, NANO_USD),
        ).fetchall()
    return [reference for (reference,) in rows]


def _by_tag(url: str, budget_id: str) -> tuple[int, int]:
    """Return the tokens that a budget's counter says are out of reach, and those that were charged to its blocks."""
    with psycopg.connect(url) as link:
        counted = link.execute(
            "select coalesce(sum(tokens), 0)::bigint from quota_counters where subject = %s and period = 'total'",
            (budget_id,),
        ).fetchone()
        charged = link.execute(
            "select coalesce(sum(l.tokens), 0)::bigint from ledger l join blocks b on b.id = l.block_id"
            " where %s = any (b.counts_as) and l.kind in ('settle', 'orphan', 'late')",
            (budget_id,),
        ).fetchone()
    assert counted is not None
    assert charged is not None
    return counted[0], charged[0]


async def _router(addresses: str, key: str, folder: Path, number: int, count: int, plan: Plan) -> Process:
    router = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.auth.holder",
        addresses,
        key,
        str(folder / f"journal-{number}"),
        str(folder / f"invoice-{number}"),
        str(count),
        str(plan.pause_s),
        str(plan.spread_s),
        str(plan.patience_s),
        str(plan.leavers),
        stdout=PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert router.stdout is not None
    assert await router.stdout.readline() == b"ready\n"
    return router


async def _outcomes(router: Process) -> Counter[str]:
    """Count what a router says until it is done or dead."""
    assert router.stdout is not None
    seen: Counter[str] = Counter()
    async for line in router.stdout:
        word = line.decode().strip()
        if word == "done":
            break
        seen[word] += 1
    return seen


async def had_the_rest(addresses: str, key: str, url: str, account_id: str, limit: int, *, within_s: float) -> bool:
    """Return whether all that an account has left can be had at once, and use it up."""
    rest = limit - sum(charges_of(url, account_id).values())
    if rest == 0:
        return True
    link = channel(addresses)
    admission = Admission(link, service_token=TOKEN)
    await admission.start()
    end = time.monotonic() + within_s
    try:
        while time.monotonic() < end:
            try:
                settle(await reserve(admission, key, rest), rest)
            except MoaError:
                await asyncio.sleep(0.1)
            else:
                return True
        return False
    finally:
        await admission.stop()
        await link.close()


def charges_of(url: str, account_id: str) -> dict[str, int]:
    """Return what an account was charged, by reservation."""
    with psycopg.connect(url) as link:
        return dict(
            link.execute(
                "select reference, sum(tokens)::bigint from ledger where account_id = %s"
                " and kind in ('settle', 'orphan', 'late') group by reference",
                (account_id,),
            ).fetchall()
        )


def _held(url: str) -> int:
    """Count the reservations neither settled nor charged as orphans yet, and the blocks with something left."""
    with psycopg.connect(url) as link:
        row = link.execute(
            "select (select count(*) from open_reservations) + (select count(*) from blocks"
            " where closed_at is null and tokens > settled_tokens + returned_tokens)"
        ).fetchone()
    assert row is not None
    return int(row[0])


def _outstanding(url: str, account_id: str) -> int:
    with psycopg.connect(url) as link:
        row = link.execute(
            "select coalesce(sum(tokens - settled_tokens - returned_tokens), 0)::bigint from blocks"
            " where account_id = %s and (closed_at is not null or expires_at < now())",
            (account_id,),
        ).fetchone()
    assert row is not None
    return int(row[0])


def _invoice(folder: Path) -> dict[str, int]:
    """Read the provider's own books: what it delivered on each reservation."""
    used: dict[str, int] = {}
    for path in folder.glob("invoice-*"):
        for line in path.read_text().splitlines():
            name, _, amount = line.partition(" ")
            assert ReservationId.parse(name) is not None
            used[name] = int(amount)
    return used


def main() -> None:
    """Do the large run, at the times that the product ships with, and say what came of it."""
    plan = Plan(requests=1000, room=400, lease_s=20, block_s=60, kill_after_s=1.5, pause_s=0.3, spread_s=4.0)
    with tempfile.TemporaryDirectory(prefix="moa-soak-") as folder:
        outcome = asyncio.run(run(plan, Path(folder)))
    print(
        f"answered {outcome.answered} of {plan.requests} (room for {plan.room}), left by their callers {outcome.left},"
        f" refused {outcome.refused}"
    )
    cut_off = sum(row["tokens"] for row in outcome.findings.notes["orphans"])
    print(
        f"the other {plan.room - outcome.answered}: settled by the killed router and heard of by nobody"
        f" {outcome.unheard}; cut off by the kill {outcome.cut}, charged {cut_off:,} tokens as last reported; room that"
        f" was refused while the dead held it {outcome.room_left}"
    )
    print(f"after their time was over, {outcome.filled} of these {outcome.room_left} were answered too")
    print(f"tokens left of {outcome.limit:,}: {outcome.spare} (a request takes {TOKENS})")
    print(f"the provider invoiced {outcome.invoiced:,} tokens; the ledger charged {outcome.charged:,} for them")
    counted, charged = outcome.by_tag
    print(
        f"charged at another price {len(outcome.mispriced)}; a budget by tag counted {counted:,} tokens of"
        f" {charged:,}; all within the team's ${outcome.limit * NANO_USD / 1e9:.6f} a month"
    )
    print(f"unmatched {len(outcome.unmatched)}; outstanding {outcome.outstanding}; took {outcome.took_s:.1f} s")
    print("the ledger balances" if not outcome.findings.faults else "the ledger does NOT balance")
    raise SystemExit(0 if outcome.exact else 1)


if __name__ == "__main__":
    main()
