"""How much a replica borrows ahead of need: enough for an outage, and never all that there is."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.auth.domain.accounts import Owner, Short, Standing, VerifiedKey
from services.auth.domain.ledger import Ending, LeaseIds, Return, sized
from services.auth.domain.pool import IDLE_S
from services.auth.domain.pools import Pools
from services.common.errors import Unavailable
from services.quota_client._lease_store import Demand
from services.quota_client.amounts import BOUNDLESS, NOTHING, PERIODS, Amount, Period

_HUNGRY = 40


@dataclass(frozen=True)
class _Borrowed:
    block_id: UUID
    amount: Amount
    standings: tuple[Standing, ...]


def _standing(owner: Owner, limit: Amount, taken: Amount) -> Standing:
    limits = dict.fromkeys(PERIODS, BOUNDLESS) | {Period.DAY: limit}
    return Standing(owner=owner, subject=owner[0], limits=limits, taken=dict.fromkeys(PERIODS, taken))


class _Day:
    """An account's day, in memory, that can be out of reach."""

    def __init__(self, limit: int, requests: int = 0) -> None:
        self.limit = limit
        self.requests = requests
        self.taken = 0
        self.away = False
        self.borrowed = 0
        """How often more was borrowed."""

    @property
    def who(self) -> VerifiedKey:
        return VerifiedKey(
            account_id="a",
            key_id="k",
            digest=b"",
            ended=False,
            rules=(),
            unlimited=False,
            day=date(2026, 11, 20),
            resets_at=datetime(2026, 11, 21, tzinfo=UTC),
            standings=(
                _standing(Owner.ACCOUNT, Amount(tokens=self.limit, requests=self.requests), Amount(tokens=self.taken)),
                _standing(Owner.KEY, BOUNDLESS, NOTHING),
            ),
        )

    async def borrow(
        self, who: VerifiedKey, *, holder: str, least: Amount, need: Amount, want: Amount, ttl_s: float
    ) -> _Borrowed | Short:
        if self.away:
            raise Unavailable("away")
        free = Amount(tokens=self.limit - self.taken, requests=self.requests)
        given = sized(least=least, need=need, want=want, free=free)
        if not given:
            return Short(Owner.ACCOUNT, "tokens", Period.DAY, self.limit)
        self.taken += given.tokens
        self.borrowed += 1
        return _Borrowed(uuid4(), given, self.who.standings)

    async def give_back(self, returns: Sequence[Return]) -> None:
        self.taken -= sum(piece.amount.tokens for piece in returns)

    async def extend(self, block_ids: Sequence[UUID], *, ttl_s: float) -> set[UUID]:
        if self.away:
            raise Unavailable("away")
        return set(block_ids)

    async def end(self, endings: Sequence[Ending]) -> None:
        """Nothing comes back: here every lease is spent."""


class _Replica:
    """Pools of one replica on a clock that the test turns."""

    def __init__(self, day: _Day) -> None:
        self.now = 0.0
        self.day = day
        self.pools = Pools(day, LeaseIds(b"s"), owner="one", lease_s=20, block_s=60, clock=lambda: self.now)

    async def spend(self, tokens: int) -> bool:
        """Cut a lease of so much and no more; tell whether it could be had."""
        amount = Amount(tokens)
        try:
            cut = await self.pools.cut(self.day.who, least=amount, need=amount, want=amount)
        except Unavailable:
            return False
        # What is borrowed ahead comes in the background.
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
        return not isinstance(cut, Short)

    @property
    def ahead(self) -> int:
        return self.pools.free("k").tokens


async def test_pieces_that_no_request_can_have_are_not_held_for_more() -> None:
    """Small requests leave blocks with tokens for none of the large ones that come then. Such pieces go back: counted
    as held they would be all that a key may hold ahead, and each large request would borrow its own need alone."""
    day = _Day(2_000_000, requests=1 << 40)
    replica = _Replica(day)
    want = Amount(tokens=150_000, requests=4096)
    before = 0
    for tokens, times in ((3_000, 20), (22_000, 12)):
        need, before = Amount(tokens=tokens, requests=1), day.borrowed
        for _ in range(times):
            assert not isinstance(await replica.pools.cut(day.who, least=need, need=need, want=want), Short)
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
            replica.now += 0.01
    assert day.borrowed - before < 9
    assert replica.ahead < 60_000


async def test_what_is_borrowed_ahead_lasts_for_an_outage() -> None:
    """A key in steady use goes on for 30 s after the database went away, whenever that is."""
    for before_s in range(30, 180, 11):
        day = _Day(10_000_000)
        replica = _Replica(day)
        for _ in range(before_s):
            assert await replica.spend(100)
            await replica.pools.tend()
            replica.now += 1
        day.away = True
        for second in range(30):
            assert await replica.spend(100), f"refused after {second} s, away after {before_s} s"
            with contextlib.suppress(Unavailable):
                await replica.pools.tend()
            replica.now += 1


async def test_what_is_lent_ahead_is_of_a_use() -> None:
    """No lease is a crumb of a block that is nearly empty, while another has plenty: it would send its router back."""
    day, want = _Day(10_000_000), Amount(1000)
    replica, leases = _Replica(day), []
    for _ in range(100):
        cut = await replica.pools.cut(day.who, least=NOTHING, need=NOTHING, want=want)
        assert not isinstance(cut, Short)
        leases.append(cut[0].amount.tokens if isinstance(cut, tuple) else cut.amount.tokens)
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
        replica.now += 0.1
    assert min(leases) >= want.tokens // 4


async def test_asking_in_vain_raises_no_demand() -> None:
    """After an outage in which much was asked for in vain, as much is borrowed as before it."""
    day = _Day(10_000_000)
    replica = _Replica(day)
    for _ in range(100):
        assert await replica.spend(100)
        replica.now += 1
    before = day.taken
    day.away = True
    while await replica.spend(100):
        pass
    for _ in range(_HUNGRY):
        assert not await replica.spend(100)
        replica.now += 1
    day.away = False
    assert await replica.spend(100)
    assert replica.ahead < 4 * before


def test_asking_in_vain_raises_no_demand_of_a_router() -> None:
    """What a router asks for grows with the helpings that it got, not with how often it asked."""
    demand = Demand()
    for asked_at in range(_HUNGRY):
        assert demand.next(Amount(100), asked_at) == Amount(400)
    demand.helped(Amount(400), Amount(400), _HUNGRY)
    assert demand.next(Amount(100), _HUNGRY + 1) == Amount(800)


def test_a_small_helping_raises_no_demand_of_a_router() -> None:
    """A helping that goes fast because it was small says nothing of how fast it is used: others need the rest."""
    demand = Demand()
    demand.helped(Amount(400), Amount(400), 0)
    for asked_at in range(1, _HUNGRY):
        demand.helped(demand.next(Amount(0), asked_at), Amount(50), asked_at)
    assert (demand.size, demand.low) == (Amount(400), Amount(100))


class _Router:
    """A router that reserves 100 tokens at a time of its leases, and uses 60 of them."""

    def __init__(self, fleet: _Fleet, first: int) -> None:
        self.fleet, self.turn, self.free, self.demand, self.poor_until = fleet, first, 0, Demand(), 0.0

    async def request(self) -> bool:
        """Return whether one is served."""
        now = self.fleet.now
        if self.free < 100 and not await self._lease(100, self.demand.next(Amount(100), now)):
            return False
        self.free -= 60
        if self.free < self.demand.low.tokens and now >= self.poor_until:
            leased = await self._lease(0, self.demand.next(NOTHING, now))
            if not leased or self.free < self.demand.low.tokens:
                self.poor_until = now + 1
        return True

    async def _lease(self, need: int, want: Amount) -> bool:
        self.turn += 1
        pools = self.fleet.replicas[self.turn % len(self.fleet.replicas)]
        try:
            cut = await pools.cut(self.fleet.day.who, least=Amount(need), need=Amount(need), want=want)
        except Unavailable:
            return False
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
        assert not isinstance(cut, Short)
        self.demand.helped(want, cut[0].amount, self.fleet.now)
        self.free += cut[0].amount.tokens
        return True


class _Fleet:
    """Three replicas and three routers that use one key, each ten times a second."""

    def __init__(self, seed: int) -> None:
        self.random, self.now, self.day = random.Random(seed), 0.0, _Day(1_000_000)
        self.replicas = [
            Pools(self.day, LeaseIds(b"s"), owner=str(name), lease_s=20, block_s=60, clock=lambda: self.now)
            for name in range(3)
        ]
        self.routers = [_Router(self, self.random.randrange(3)) for _ in range(3)]

    async def during(self, seconds: int) -> float | None:
        """Return when the first request was refused; None when none was."""
        refused = None
        for tenth in range(seconds * 10):
            for router in self.random.sample(self.routers, 3):
                if not await router.request() and refused is None:
                    refused = tenth / 10
            if tenth % 10 == 0:
                for pools in self.replicas:
                    pools.name(self.day.who)
                    with contextlib.suppress(Unavailable):
                        await pools.tend()
            self.now += 0.1
        return refused


@pytest.mark.parametrize("seed", [1, 8])
async def test_no_router_takes_what_others_need_while_the_database_is_away(seed: int) -> None:
    """After a minute's use, and 15 s after an outage again, replicas hold for every router what lasts for 30 s."""
    fleet = _Fleet(seed)
    assert await fleet.during(60) is None
    for _ in range(2):
        fleet.day.away = True
        assert await fleet.during(30) is None
        fleet.day.away = False
        assert await fleet.during(15) is None


async def test_what_a_key_in_use_may_hold_ahead_is_kept_and_nothing_else() -> None:
    """A router that has enough for a while asks no replica: what it will need stays. What nobody uses goes back."""
    day = _Day(1_000_000)
    replica = _Replica(day)
    for _ in range(40):
        assert await replica.spend(100)
        replica.now += 1
    ahead = replica.ahead
    for _ in range(20):
        replica.now += 1
        replica.pools.name(day.who)
        await replica.pools.tend()
    assert replica.ahead == ahead > 0
    # Others have used up nearly all: what is kept is an eighth of what is left, as ever.
    day.limit = day.taken + 10
    replica.pools.name(day.who)
    await replica.pools.tend()
    assert replica.ahead <= ahead // 8 + 10
    replica.now += IDLE_S + 1
    await replica.pools.tend()
    assert replica.ahead == 0


async def test_what_lies_ahead_is_an_eighth_of_the_day_at_most() -> None:
    """However fast a key is used, a replica holds no more than an eighth of what is left: others find some."""
    day = _Day(100_000)
    replica = _Replica(day)
    for _ in range(500):
        assert await replica.spend(100)
        left = day.limit - day.taken + replica.ahead
        assert replica.ahead <= left // 8 + 1
        replica.now += 0.01


class _Others(dict[object, object]):
    """What a replica holds of others, which a refusal must not go through."""

    def values(self) -> Any:
        raise AssertionError("a refusal walked through what others hold")

    items = values


async def test_a_refusal_touches_its_own_pool_alone() -> None:
    """However many keys a replica serves, refusing one costs what that one holds."""
    replica = _Replica(_Day(100))
    pools = replica.pools
    for name in ("_pools", "_owned"):
        setattr(pools, name, _Others(getattr(pools, name)))
    need = Amount(30)
    for _ in range(3):
        assert not isinstance(await pools.cut(replica.day.who, least=need, need=need, want=need), Short)
    assert isinstance(await pools.cut(replica.day.who, least=need, need=need, want=need), Short)


async def test_what_was_borrowed_ahead_is_not_lent_under_a_lower_limit() -> None:
    """It goes back first: no more is lent in all than the limit that binds now."""
    day = _Day(1_000_000)
    replica = _Replica(day)
    for _ in range(50):
        assert await replica.spend(100)
        replica.now += 1
    assert replica.ahead > 2_000
    day.limit = 5_850
    lent = 0
    while await replica.spend(100):
        lent += 100
    assert (lent, day.taken) == (800, 5_800)
