"""The law of the ledger, for any interleaving: reserve, extend, settle, release, renew, return, expiry, crash, replica
join, routers that die and what backends say for them, and steps of the clock over midnight and the ends of months, for
tokens, requests, dollars and credits over days, months and in all, of an account, its key, its team and two budgets of
the team that some of the requests count on, at once.

The real ledger in the real PostgreSQL, with replicas' memories over it; time is made to pass by hand.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, ClassVar, TypeVar
from uuid import UUID

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

from moa.quota.v1 import quota_pb2
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.budgets import Budgets
from services.auth.adapters.checker import Checker
from services.auth.adapters.keys import Keys
from services.auth.adapters.ledger import Ledger
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.retention import Retention
from services.auth.adapters.teams import MEMBER, Teams
from services.auth.adapters.verified_keys import VerifiedKeys
from services.auth.domain import keys
from services.auth.domain.accounts import EVERYTHING, Owner, Short, Standing
from services.auth.domain.ledger import Booking, LeaseIds, Return
from services.auth.domain.pools import Pools
from services.auth.migrations import migrate
from services.quota_client.amounts import GRANTED, NOTHING, Amount, Period, ReservationId, least
from tests.auth.asking import PEPPER
from tests.auth.law_books import LawBooks, by_period, sum_of
from tests.auth.law_lent import Lease, Replica, Reservation, booking_of, opened, part_of
from tests.auth.law_limits import AMOUNTS, BUDGETS, CREDITS, KEY_LIMITS, LIMITS, TEAM_LIMITS
from tests.laws import tries

FIRST_DAY = date(2026, 11, 29)
LEASE_S, BLOCK_S, GRACE_S, ALIVE_S = 20.0, 60.0, 10.0, 20.0
T = TypeVar("T")


class LedgerLaw(RuleBasedStateMachine):
    """Random lives of one account's day."""

    url: ClassVar[str]
    leases = Bundle("leases")
    reservations = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = 1000.0
        self.replicas: list[Replica] = []
        self.lease_ids = LeaseIds(PEPPER)
        self.delivered: dict[str, Amount] = {}
        self.day = FIRST_DAY
        self.charged_before: dict[str, Amount] = {}
        self.refused: set[str] = set()
        self.removed: set[UUID] = set()
        self.lent: list[Lease] = []
        self.reserved: list[Reservation] = []
        self.run(self._begin())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def _begin(self) -> None:
        self.postgres = Postgres(self.url, size=2, wait_s=20)
        await self.postgres.open()
        self.ledger = Ledger(self.postgres, grace_s=GRACE_S, alive_s=ALIVE_S)
        accounts = Accounts(self.postgres)
        self.account_id = await accounts.create(role="user", limits=LIMITS, rules=[EVERYTHING])
        await accounts.add_credits(self.account_id, CREDITS, reference="first", actor="console")
        self.books = LawBooks(self.url, self.account_id)
        made = await Keys(self.postgres).create(self.account_id, keys.make(PEPPER), limits=KEY_LIMITS)
        self.key_id = made.id
        teams = Teams(self.postgres)
        team = await teams.create(name="", columns=dict(TEAM_LIMITS), rules=[], key_count=1, actor="console")
        await teams.put(team.id, self.account_id, MEMBER, actor="console")
        self.budgets = {
            tag: (await Budgets(self.postgres).create(owner=team.id, tag=tag, actor="console", **limits)).id
            for tag, limits in BUDGETS.items()
        }
        by_subject: dict[str, Mapping[str, int | None]] = {
            self.account_id: LIMITS.amounts() | {GRANTED: CREDITS},
            self.key_id: KEY_LIMITS.amounts(),
            team.id: TEAM_LIMITS,
            **{budget_id: BUDGETS[tag] for tag, budget_id in self.budgets.items()},
        }
        self.limits = {
            subject: Standing.of(Owner.ACCOUNT, subject, limits, {}) for subject, limits in by_subject.items()
        }
        self.always = (self.account_id, self.key_id, team.id)

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

    @rule(days=st.sampled_from([-1, 1, 2, 31]))
    def step(self, days: int) -> None:
        """The clock steps over midnight, and often over the end of a month; also back."""
        self.day += timedelta(days=days)

    @rule(
        index=st.integers(0, 5),
        need=AMOUNTS,
        more=AMOUNTS,
        tags=st.sampled_from([(), (), ("a",), ("b",), ("a", "b")]),
        target=leases,
    )
    def admit(self, index: int, need: Amount, more: Amount, tags: tuple[str, ...]) -> Any:
        """A router asks for a lease; it is refused only when some period of whom it counts on does not have as much."""
        alive = [r for r in self.replicas if r.alive]
        replica = alive[index % len(alive)]
        (who,) = self.run(VerifiedKeys(self.postgres).by_ids([self.key_id]))
        on = (*self.always, *(self.budgets[tag] for tag in tags))
        free = self._free(on)
        who = replace(who.asking("local-text", "m", tags), day=self.day)
        cut = self.run(replica.pools.cut(who, least=need, need=need, want=need + more))
        if isinstance(cut, Short):
            assert not free.covers(need), f"refused {need} while {free} were free"
            return multiple()
        given = cut[0]
        assert given.amount.covers(need)
        lease = Lease(given.lease_id, replica, given.amount, self.day, self.now + given.expires_in_s, on)
        self.lent.append(lease)
        return lease

    @rule(lease=leases, amount=AMOUNTS, target=reservations)
    def reserve(self, lease: Lease, amount: Amount) -> Any:
        """A router sets an amount aside from a lease that lives, on its day."""
        return self._set_aside(lease, amount) or multiple()

    def _set_aside(self, lease: Lease, amount: Amount) -> Reservation | None:
        if self.now >= lease.alive_until or lease.day != self.day or not lease.free.covers(amount):
            return None
        lease.free -= amount
        name = ReservationId(lease.lease_id, str(next(lease.numbers)), amount)
        reservation = Reservation(str(name), lease, amount)
        self.reserved.append(reservation)
        return reservation

    @rule(reservation=reservations, lease=leases, amount=AMOUNTS)
    def extend(self, reservation: Reservation, lease: Lease, amount: Amount) -> None:
        """A router sets more aside for a request that runs, from any lease that counts on the same, on today's day."""
        alike = lease.on == reservation.lease.on
        if not reservation.ended and alike and (more := self._set_aside(lease, amount)):
            reservation.further.append(more)

    @rule(reservation=reservations, part=st.floats(0, 1.3))
    def settle(self, reservation: Reservation, part: float) -> None:
        """What was delivered is booked; the rest may be reserved again."""
        if not reservation.ended:
            reservation.delivered = part_of(reservation.whole, part)
            self.delivered[reservation.reservation_id] = reservation.delivered
            reservation.end()
        self._settle(booking_of(self.lease_ids, reservation))

    @rule(reservation=reservations, part=st.floats(0, 1), others=st.booleans())
    def report(self, reservation: Reservation, part: float, others: bool) -> None:
        """A router tells how far a request has come; of its newest reservations perhaps a moment later."""
        if not reservation.ended:
            reservation.delivered = reservation.delivered.at_least(part_of(reservation.whole, part))
            booking = booking_of(self.lease_ids, reservation)
            self.run(self.ledger.report([booking, *(booking.others() if others else ())]))

    @rule(reservation=reservations, part=st.floats(0, 1.3), report=st.booleans())
    def killed(self, reservation: Reservation, part: float, report: bool) -> None:
        """A router died, and a backend, which knows the first reservation alone, says what it had delivered."""
        if not reservation.ended:
            reservation.delivered = reservation.delivered.at_least(part_of(reservation.whole, part))
            self.delivered[reservation.reservation_id] = reservation.delivered
            for one in (reservation, *reservation.further):
                one.ended = True
        if report:
            # Its journal is found: it says which reservations were open.
            running = [opened(self.lease_ids, one) for one in (reservation, *reservation.further)]
            self.run(self.ledger.report(running))
        further = self.run(self.ledger.further_of([reservation.reservation_id]))
        booking = booking_of(self.lease_ids, reservation)
        booking.settlement.MergeFrom(quota_pb2.Settlement(first_alone=True))
        names = booking.settlement.further[:] = further.get(reservation.reservation_id, [])
        self._settle(replace(booking, further=[one for one in booking.further if one.reservation_id in names]))

    @rule(reservation=reservations)
    def release(self, reservation: Reservation) -> None:
        """A request came to nothing."""
        if not reservation.ended and not reservation.delivered:
            reservation.end()
            self.delivered[reservation.reservation_id] = NOTHING
            self._settle(booking_of(self.lease_ids, reservation))

    def _settle(self, booking: Booking) -> None:
        """Book it twice over: it is booked, or refused where its block was removed."""
        name = booking.reservation_id
        done = self.run(self.ledger.settle([booking] * 2))
        gone = booking.block_id in self.removed
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
        piece = Return(f"{lease.lease_id}-{next(lease.numbers)}", found[0], lease.free, lease.lease_id)
        lease.free = NOTHING
        for _ in range(1 + twice):
            self.run(self.ledger.give_back([piece]))

    @rule(seconds=st.sampled_from([1.0, 6.0, 25.0, 80.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; replicas look after their blocks, and the sweeper after everybody's."""
        for step in (seconds,) if seconds < 10 else (10.0,) * int(seconds // 10):
            self._pass(step)

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        with self.books.looking() as link:
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
        with self.books.looking() as link:
            link.execute("set local session_replication_role = replica")
            aged = link.execute(
                "update blocks set closed_at = closed_at - interval '99 days'"
                " where account_id = %s and closed_at is not null returning id",
                (self.account_id,),
            ).fetchall()
            ids = [block_id for (block_id,) in aged]
            link.execute("update ledger set at = at - interval '99 days' where block_id = any(%s)", (ids,))
        (before, _), charged = self.books.sums(), self.books.charged()
        checker = Checker(self.url, rows_a_step=50)
        assert not self.run(checker.check()).faults
        self.run(Retention(self.postgres, checker, days=35).remove(ids))
        assert self.books.sums()[0] == before
        left = self.books.charged()
        with self.books.looking() as link:
            kept = {block_id for (block_id,) in link.execute("select id from blocks").fetchall()}
        self.charged_before |= {name: amount for name, amount in charged.items() if name not in left}
        self.removed |= set(ids) - kept

    @invariant()
    def never_beyond_a_limit(self) -> None:
        """In every period, what is settled and what anybody may still spend never exceed the limit of any subject."""
        for subject, (spent, outstanding) in self.books.by_subject(self.limits).items():
            self._check(subject, spent, outstanding)

    @invariant()
    def routers_hold_no_more(self) -> None:
        """What live leases may still consume, over what is settled, is within the limits: no quota stands twice."""
        held: dict[str, dict[date, Amount]] = {subject: defaultdict(Amount) for subject in self.limits}
        alive = [(lease, lease.free) for lease in self.lent if self.now < lease.alive_until]
        running = (one for one in self.reserved if not one.ended and self.now < one.lease.alive_until)
        alive += [(one.lease, one.amount) for one in running]
        for lease, amount in alive:
            for subject in lease.on:
                held[subject][lease.day] += amount
        for subject, (spent, _) in self.books.by_subject(self.limits).items():
            self._check(subject, spent, held[subject])

    def _check(self, subject: str, *by_day: dict[date, Amount]) -> None:
        """Raise AssertionError where the sum of amounts exceeds a limit of a subject."""
        for (period, began), amount in by_period(*by_day).items():
            assert self.limits[subject].limits[period].covers(amount), (subject, period, began)

    @invariant()
    def reports_say_what_was_charged(self) -> None:
        """Whatever spending is grouped by, by day and by month, its sum is that of the ledger, rows that were removed
        included."""
        charged = self.books.charged_in_all()
        for grouping, period, spent in self.books.reported():
            assert spent == charged, (grouping, period)

    def teardown(self) -> None:
        """At the end everything ends: nothing is held, the books balance, and what is left can be had."""
        try:
            self._all_ends_well()
        finally:
            self.run(self.postgres.close())
            self.runner.close()
            self.books.close()

    def _all_ends_well(self) -> None:
        for replica in self.replicas:
            replica.alive = False
        self._pass(BLOCK_S + GRACE_S + 1)
        self._pass(BLOCK_S + GRACE_S + 1)
        spent, outstanding = self.books.sums()
        charged = self.charged_before | self.books.charged()
        assert not any(outstanding.values())
        assert sum(charged.values(), NOTHING) == sum(spent.values(), NOTHING)
        further = {one.reservation_id: one.further for one in self.reserved}
        for reservation_id, delivered in self.delivered.items():
            if reservation_id in self.refused:
                assert reservation_id not in charged
            else:
                others = (charged.get(one.reservation_id, NOTHING) for one in further[reservation_id])
                assert delivered.covers(sum(others, charged[reservation_id]))
        for subject, (spent, _) in self.books.by_subject(self.limits).items():
            for day in spent:
                self.day = day
                limits = self.limits[subject].limits
                left = least(limits[period] - sum_of(period, day, spent) for period in Period)
                assert self._free([subject]) == left
        for whole in (False, True):
            assert not self.run(Checker(self.url, rows_a_step=50).check(whole=whole)).faults

    def _free(self, on: Sequence[str]) -> Amount:
        """Return what nobody has yet of the day that it is, of whom a lease counts on."""
        taken = self.books.taken(self.day, on)
        return least(
            replace(
                self.limits[subject], taken={period: taken.get((subject, period), NOTHING) for period in Period}
            ).free
            for subject in on
        )


def test_no_interleaving_breaks_the_law(database_url: str) -> None:
    """Settled and outstanding never exceed the limit, and nothing is refused that is free, whatever happens when.

    What is over may be removed between any two steps."""
    migrate(database_url)
    LedgerLaw.url = database_url
    run_state_machine_as_test(
        LedgerLaw,
        settings=settings(
            max_examples=tries(8),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
