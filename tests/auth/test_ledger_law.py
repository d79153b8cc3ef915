"""The law of the ledger, for any interleaving: reserve, settle, release, renew, return, expiry, crash, replica join.

The real ledger in the real PostgreSQL, with replicas' memories over it; time is made to pass by hand.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.checker import Checker
from services.auth.adapters.identities import Identities
from services.auth.adapters.keys import Keys
from services.auth.adapters.ledger import Ledger
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.retention import Retention
from services.auth.domain import keys
from services.auth.domain.accounts import EVERYTHING, Limits, Short
from services.auth.domain.leases import LeaseIds
from services.auth.domain.ledger import Booking, Return
from services.auth.domain.pools import Pools
from services.auth.migrations import migrate
from services.quota_client.amounts import Amount
from services.quota_client.reservation_ids import ReservationId
from tests.auth.asking import PEPPER

LIMIT = 1000
LEASE_S, BLOCK_S, GRACE_S, ALIVE_S = 20.0, 60.0, 10.0, 20.0
T = TypeVar("T")


@dataclass
class Replica:
    pools: Pools
    alive: bool = True


@dataclass
class Lease:
    """A router's lease, as the router sees it."""

    lease_id: str
    replica: Replica
    free: int
    alive_until: float
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))


@dataclass
class Reservation:
    """What a router set aside, and what the provider delivered of it."""

    reservation_id: str
    lease: Lease
    tokens: int
    delivered: int = 0
    ended: bool = False


class LedgerLaw(RuleBasedStateMachine):
    """Random lives of one account's day."""

    url: ClassVar[str]
    leases = Bundle("leases")
    reservations = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        # One for all looks: there are a thousand, and PostgreSQL starts a process for each connection.
        self.link = psycopg.connect(self.url, autocommit=True)
        self.now = 1000.0
        self.replicas: list[Replica] = []
        self.lease_ids = LeaseIds(PEPPER)
        self.delivered: dict[str, int] = {}
        self.charged_before: dict[str, int] = {}
        self.refused: set[str] = set()
        self.removed: set[UUID] = set()
        self.lent: list[Lease] = []
        self.reserved: list[Reservation] = []
        self.run(self._begin())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def _begin(self) -> None:
        self.postgres = Postgres(self.url, size=2)
        await self.postgres.open()
        self.ledger = Ledger(self.postgres, grace_s=GRACE_S, alive_s=ALIVE_S)
        limits = Limits(tokens_a_day=LIMIT, images_a_day=0, key_count=1)
        self.account_id = await Accounts(self.postgres).create(role="user", limits=limits, rules=[EVERYTHING])
        self.key_id = (await Keys(self.postgres).create(self.account_id, keys.make(PEPPER))).id

    @initialize()
    def first_replica(self) -> None:
        self.join()

    @rule()
    @precondition(lambda self: sum(r.alive for r in self.replicas) < 3)
    def join(self) -> None:
        """A replica starts."""
        owner = f"auth-{len(self.replicas)}"
        pools = Pools(
            self.ledger, self.lease_ids, owner=owner, lease_s=LEASE_S, block_s=BLOCK_S, clock=lambda: self.now
        )
        self.replicas.append(Replica(pools))

    @rule(index=st.integers(0, 5))
    @precondition(lambda self: sum(r.alive for r in self.replicas) > 1)
    def crash(self, index: int) -> None:
        """A replica dies with its memory."""
        alive = [r for r in self.replicas if r.alive]
        alive[index % len(alive)].alive = False

    @rule(index=st.integers(0, 5), need=st.integers(1, 400), more=st.integers(0, 600), target=leases)
    def admit(self, index: int, need: int, more: int) -> Any:
        """A router asks for a lease; it is refused only when the day does not have as much."""
        alive = [r for r in self.replicas if r.alive]
        replica = alive[index % len(alive)]
        (who,) = self.run(Identities(self.postgres).by_ids([self.key_id]))
        free = self.run(self._free())
        amount = Amount(tokens=need)
        cut = self.run(replica.pools.cut(who, least=amount, need=amount, want=Amount(tokens=need + more)))
        if isinstance(cut, Short):
            assert free < need, f"refused {need} while {free} were free"
            return multiple()
        given = cut[0]
        assert given.amount.tokens >= need
        lease = Lease(given.lease_id, replica, given.amount.tokens, self.now + given.expires_in_s)
        self.lent.append(lease)
        return lease

    @rule(lease=leases, tokens=st.integers(0, 400), target=reservations)
    def reserve(self, lease: Lease, tokens: int) -> Any:
        """A router sets tokens aside from a lease that lives."""
        if self.now >= lease.alive_until or tokens > lease.free:
            return multiple()
        lease.free -= tokens
        name = ReservationId(lease.lease_id, str(next(lease.numbers)), Amount(tokens))
        reservation = Reservation(str(name), lease, tokens)
        self.reserved.append(reservation)
        return reservation

    @rule(reservation=reservations, part=st.floats(0, 1.3))
    def settle(self, reservation: Reservation, part: float) -> None:
        """What was delivered is booked; the rest may be reserved again."""
        if not reservation.ended:
            reservation.ended = True
            reservation.delivered = int(reservation.tokens * part)
            self.delivered[reservation.reservation_id] = reservation.delivered
            reservation.lease.free += max(0, reservation.tokens - reservation.delivered)
        self._settle(reservation)

    @rule(reservation=reservations, part=st.floats(0, 1))
    def report(self, reservation: Reservation, part: float) -> None:
        """A router tells how far a request has come."""
        if not reservation.ended:
            reservation.delivered = max(reservation.delivered, int(reservation.tokens * part))
            self.run(self.ledger.report([self._booking(reservation)]))

    @rule(reservation=reservations)
    def release(self, reservation: Reservation) -> None:
        """A request came to nothing."""
        if not reservation.ended and not reservation.delivered:
            reservation.ended = True
            reservation.lease.free += reservation.tokens
            self.delivered[reservation.reservation_id] = 0
            self._settle(reservation)

    def _settle(self, reservation: Reservation) -> None:
        """Book it twice over: it is booked, or refused where its block was removed."""
        name = reservation.reservation_id
        found = self.lease_ids.read(reservation.lease.lease_id)
        assert found is not None
        done = self.run(self.ledger.settle([self._booking(reservation)] * 2))
        gone = found[0] in self.removed
        assert (done.booked, done.refused) == (([], [name] * 2) if gone else ([name] * 2, []))
        if gone and name not in self.charged_before:
            self.refused.add(name)

    @rule(lease=leases)
    def renew(self, lease: Lease) -> None:
        """A router renews a lease, where its replica still knows it."""
        found = self.lease_ids.read(lease.lease_id)
        assert found is not None
        if lease.replica.alive and (lasts_s := lease.replica.pools.renew(*found)) is not None:
            lease.alive_until = max(lease.alive_until, self.now + lasts_s)

    @rule(lease=leases, twice=st.booleans())
    def give_back(self, lease: Lease, twice: bool) -> None:
        """A router returns what it did not need, once or by mistake twice."""
        found = self.lease_ids.read(lease.lease_id)
        assert found is not None
        piece = Return(f"{lease.lease_id}-{next(lease.numbers)}", found[0], Amount(lease.free), lease.lease_id)
        lease.free = 0
        for _ in range(1 + twice):
            self.run(self.ledger.give_back([piece]))

    @rule(seconds=st.sampled_from([1.0, 6.0, 25.0, 80.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; replicas look after their blocks, and the sweeper after everybody's."""
        for step in (seconds,) if seconds < 10 else (10.0,) * int(seconds // 10):
            self._pass(step)

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        with self._looking() as link:
            link.execute(
                "update blocks set expires_at = expires_at - make_interval(secs => %s) where account_id = %s",
                (seconds, self.account_id),
            )
            link.execute(
                "update open_reservations o set reported_at = reported_at - make_interval(secs => %s) from blocks b"
                " where b.id = o.block_id and b.account_id = %s",
                (seconds, self.account_id),
            )
        for replica in self.replicas:
            if replica.alive:
                self.run(replica.pools.tend())
        while due := self.run(self.ledger.overdue(limit=200)):
            assert self.run(self.ledger.expire(due)) == len(due)
        while lost := self.run(self.ledger.stale(limit=200)):
            assert self.run(self.ledger.lose(lost)) == len(lost)

    @rule()
    def months_pass(self) -> None:
        """What is over is audited, and removed but for its sums."""
        with self._looking() as link:
            link.execute("set local session_replication_role = replica")
            aged = link.execute(
                "update blocks set closed_at = closed_at - interval '99 days'"
                " where account_id = %s and closed_at is not null returning id",
                (self.account_id,),
            ).fetchall()
            ids = [block_id for (block_id,) in aged]
            link.execute("update ledger set at = at - interval '99 days' where block_id = any(%s)", (ids,))
            (before, _), charged = self._sums(link), self._charged(link)
        checker = Checker(self.url, rows_a_step=50)
        assert not self.run(checker.check()).faults
        self.run(Retention(self.postgres, checker, days=35).remove(ids))
        with self._looking() as link:
            assert self._sums(link)[0] == before
            left = self._charged(link)
            kept = {block_id for (block_id,) in link.execute("select id from blocks").fetchall()}
        self.charged_before |= {name: tokens for name, tokens in charged.items() if name not in left}
        self.removed |= set(ids) - kept

    @invariant()
    def never_beyond_the_limit(self) -> None:
        """What is settled and what anybody may still spend never exceed the limit."""
        with self._looking() as link:
            spent, outstanding = self._sums(link)
        assert spent + outstanding <= LIMIT

    @invariant()
    def routers_hold_no_more(self) -> None:
        """What live leases may still consume, over what is settled, is within the limit: no quota stands twice."""
        held = sum(lease.free for lease in self.lent if self.now < lease.alive_until)
        held += sum(r.tokens for r in self.reserved if not r.ended and self.now < r.lease.alive_until)
        with self._looking() as link:
            spent, _ = self._sums(link)
        assert spent + held <= LIMIT

    def teardown(self) -> None:
        """At the end everything ends: nothing is held, the books balance, and what is left can be had."""
        try:
            self._all_ends_well()
        finally:
            self.run(self.postgres.close())
            self.runner.close()
            self.link.close()

    def _all_ends_well(self) -> None:
        for replica in self.replicas:
            replica.alive = False
        self._pass(BLOCK_S + GRACE_S + 1)
        self._pass(BLOCK_S + GRACE_S + 1)
        with self._looking() as link:
            spent, outstanding = self._sums(link)
            charged = self.charged_before | self._charged(link)
        assert outstanding == 0
        assert sum(charged.values()) == spent
        for reservation_id, tokens in self.delivered.items():
            if reservation_id in self.refused:
                assert reservation_id not in charged
            else:
                assert charged[reservation_id] <= tokens
        assert self.run(self._free()) == LIMIT - spent
        for whole in (False, True):
            assert not self.run(Checker(self.url, rows_a_step=50).check(whole=whole)).faults

    @contextmanager
    def _looking(self) -> Iterator[psycopg.Connection[Any]]:
        """Yield the connection, in a transaction."""
        with self.link.transaction():
            yield self.link

    def _sums(self, link: psycopg.Connection[Any]) -> tuple[int, int]:
        row = link.execute(
            "select (select coalesce(sum(tokens), 0)::bigint from ledger where account_id = %(a)s"
            " and kind in ('settle', 'orphan', 'late'))"
            " + (select coalesce(sum(settled_tokens + late_tokens), 0)::bigint"
            " from ledger_carried where account_id = %(a)s and subject = account_id),"
            " (select coalesce(sum(tokens - settled_tokens - returned_tokens), 0)::bigint from blocks"
            " where account_id = %(a)s)",
            {"a": self.account_id},
        ).fetchone()
        assert row is not None
        return row[0], row[1]

    def _charged(self, link: psycopg.Connection[Any]) -> dict[str, int]:
        """Return what the ledger's rows charge, by reservation."""
        return dict(
            link.execute(
                "select reference, sum(tokens)::bigint from ledger where account_id = %s"
                " and kind in ('settle', 'orphan', 'late') group by reference",
                (self.account_id,),
            ).fetchall()
        )

    async def _free(self) -> int:
        (who,) = await Identities(self.postgres).by_ids([self.key_id])
        return who.account.free.tokens

    def _booking(self, reservation: Reservation) -> Booking:
        found = self.lease_ids.read(reservation.lease.lease_id)
        assert found is not None
        settlement = quota_pb2.Settlement(
            reservation_id=reservation.reservation_id,
            charged=quota_pb2.Amount(tokens=reservation.delivered),
            usage=usage_pb2.Usage(completion_tokens=reservation.delivered),
            provider="local-text",
            model="m",
        )
        return Booking(
            reservation.reservation_id,
            reservation.lease.lease_id,
            found[0],
            Amount(tokens=reservation.tokens),
            settlement,
        )


def test_no_interleaving_breaks_the_law(database_url: str) -> None:
    """Settled and outstanding never exceed the limit, and nothing is refused that is free, whatever happens when.

    What is over may be removed between any two steps."""
    migrate(database_url)
    LedgerLaw.url = database_url
    run_state_machine_as_test(
        LedgerLaw,
        settings=settings(
            max_examples=int(os.environ.get("MOA_LAW_EXAMPLES", "12")),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
