"""The law of paces: four routers together begin no more requests, and use no more tokens, images and dollars, than one
may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from moa.quota.v1 import quota_pb2
from services.auth.domain.paces import Bucket, Counted, Limit, Minute, refilled, share
from services.common.errors import RateLimited, Unavailable
from services.quota_client._part import exact_of
from services.quota_client._share import Share
from services.quota_client.amounts import NOTHING, Amount

LASTS_S = 10.0


class World:
    """Four routers and the one bucket that auth divides among them, at a time of the test's own."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.now = 100.0
        self.began = 0
        self.settled = NOTHING
        self._at = self.now
        self.away = False
        """Whether auth cannot be asked."""
        self._counted = Counted()
        self._slots: dict[int, int] = {}
        self.routers = [self._router() for _ in range(4)]
        self.running: list[tuple[Share, Amount]] = []

    def _router(self) -> Share:
        made = Share("acc", "account", self.now)
        made.limit(
            quota_pb2.Pace(
                requests_per_minute=self.limit.a_minute,
                concurrent_requests=self.limit.at_once,
                tokens_per_minute=self.limit.tokens,
                images_per_minute=self.limit.images,
                nano_usd_per_minute=self.limit.nano_usd,
            )
        )
        return made

    def ask(self, number: int, need: quota_pb2.PaceNeed, waits: Amount | None) -> None:
        router = self.routers[number]
        if self.away:
            router.alone(self.now, need)
            return
        passed_s, self._at = self.now - self._at, self.now
        starts, minute = refilled(self.limit, need, replace(self._counted, passed_s=passed_s, exactly_s=passed_s))
        others = sum(slots for holder, slots in self._slots.items() if holder != number)
        given = share(self.limit, Bucket(starts, others, len(self._slots), minute), need)
        self._counted = Counted(given.left, **given.minute_left._asdict())
        self._slots[number] = given.slots
        told = quota_pb2.PaceShare(starts=given.starts, slots=given.slots)
        for name, amount in zip(Minute._fields, given.minute, strict=True):
            setattr(told, name, amount)
        told.wait.FromMilliseconds(int(given.wait_s * 1000))
        told.expires_in.FromMilliseconds(int(LASTS_S * 1000))
        router.take(told, self.now, need=waits)

    def begin(self, number: int, need: Amount) -> None:
        router = self.routers[number]
        need = router.fitting(need)
        try:
            if not router.ready(self.now, need):
                self.ask(number, router.need(need), need)
                if not router.ready(self.now, need):
                    return
        except (RateLimited, Unavailable):
            return
        router.begin(self.now, need)
        self.began += 1
        self.running.append((router, need._replace(tokens=min(need.tokens, self.limit.tokens))))

    def grow(self, which: int, more: Amount) -> None:
        """Have a request that runs come to more."""
        if not self.running:
            return
        place = which % len(self.running)
        router, set_aside = self.running[place]
        if not router.grow(self.now, more):
            self.ask(self.routers.index(router), router.need_more(more), None)
            if not router.grow(self.now, more):
                return
        self.running[place] = router, set_aside + exact_of(more)

    def end(self, which: int, part: float) -> None:
        if not self.running:
            return
        router, set_aside = self.running.pop(which % len(self.running))
        used = Amount(*(int(amount * part) for amount in set_aside))
        router.end(set_aside, used)
        self.settled += used

    def round(self, number: int) -> None:
        if (need := self.routers[number].due(self.now)) is not None:
            self.ask(number, need, None)

    def report(self, number: int, left: int) -> None:
        """Tell a router what a provider says is left, rightly or not."""
        router = self.routers[number]
        router.upstream = quota_pb2.Pace(requests_per_minute=self.limit.a_minute, tokens_per_minute=self.limit.tokens)
        router.reported(requests=left, tokens=left)

    def kill(self, number: int) -> None:
        dead = self.routers[number]
        self.routers[number] = self._router()
        # What its requests had set aside may have been used.
        self.settled = sum((amount for router, amount in self.running if router is dead), self.settled)
        self.running = [one for one in self.running if one[0] is not dead]

    def crash(self) -> None:
        """Have the database forget what it does not log."""
        self._counted = replace(self._counted, starts=None, tokens=None)

    @property
    def used(self) -> Amount:
        return sum((amount for _, amount in self.running), self.settled)


_BEGIN = st.tuples(st.just("begin"), st.integers(0, 3), st.integers(1, 90))
_END = st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from((0.0, 0.5, 1.0)))
_ACT = st.one_of(
    *(_BEGIN, _BEGIN, _BEGIN, _END, _END),
    st.tuples(st.just("wait"), st.just(0), st.sampled_from((0.1, 2.5))),
    st.tuples(st.just("round"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("kill"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("report"), st.integers(0, 3), st.integers(0, 90)),
)


@given(st.lists(_ACT, min_size=10, max_size=60), st.integers(0, 20), st.integers(1, 60))
def test_four_routers_use_no_more_than_one_may(
    acts: Sequence[tuple[str, int, float]], a_minute: int, most: int
) -> None:
    """However requests fall to routers, whatever they use of what is set aside, and whoever is killed: over any time,
    a minute's worth and what that time brings, of requests and of tokens."""
    world = World(Limit(a_minute, 0, most))
    for act, number, value in acts:
        if act == "begin":
            world.begin(number, Amount(int(value)))
        elif act == "end":
            world.end(number, value)
        elif act == "wait":
            world.now += value
        elif act == "round":
            world.round(number)
        elif act == "report":
            world.report(number, int(value))
        else:
            world.kill(number)
        minutes = (world.now - 100) / 60
        assert world.used.tokens <= most * (1 + minutes) + 1e-6
        if a_minute:
            assert world.began <= a_minute * (1 + minutes) + 1e-6


_AMOUNT = st.builds(Amount, st.just(0), st.integers(0, 6), st.integers(0, 700_000_000))
_EXACT_ACT = st.one_of(
    *(st.tuples(st.just("begin"), st.integers(0, 3), _AMOUNT),) * 3,
    st.tuples(st.just("grow"), st.integers(0, 9), _AMOUNT),
    st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from((0.0, 0.5, 1.0))),
    st.tuples(st.just("wait"), st.just(0), st.sampled_from((0.1, 2.5, 20.0))),
    st.tuples(st.sampled_from(("round", "kill", "crash", "away", "back")), st.integers(0, 3), st.just(0)),
)


@given(
    st.lists(_EXACT_ACT, min_size=10, max_size=60),
    st.integers(0, 8),
    st.one_of(st.just(0), st.integers(1, 2_000_000_000)),
    st.integers(0, 20),
)
def test_images_and_dollars_of_a_minute_are_exact(
    acts: Sequence[tuple[str, int, Any]], images: int, nano_usd: int, a_minute: int
) -> None:
    """Whoever is killed, routers or the database, however answers grow, and while auth is away: never more than a
    minute's worth and what the time brings."""
    world = World(Limit(a_minute, 0, 0, images, nano_usd))
    for act, number, value in acts:
        if act == "begin":
            world.begin(number, value)
        elif act == "grow":
            world.grow(number, value)
        elif act == "end":
            world.end(number, value)
        elif act == "wait":
            world.now += value
        elif act == "round":
            world.round(number)
        elif act == "kill":
            world.kill(number)
        elif act == "crash":
            world.crash()
        else:
            world.away = act == "away"
        minutes = (world.now - 100) / 60
        assert not images or world.used.images <= images * (1 + minutes) + 1e-6
        assert not nano_usd or world.used.nano_usd <= nano_usd * (1 + minutes) + 1


def test_no_request_has_more_of_images_or_dollars_than_a_minute() -> None:
    """What would never be let through is refused as such, and less of it is let through."""
    world = World(Limit(0, 0, 0, 5, 1000))
    router = world.routers[0]
    refusal = router.never(Amount(images=6))
    assert refusal is not None
    assert (
        refusal.message == "at most 5 images a minute for account, and this request may come to 6 images; ask for less"
    )
    assert router.never(Amount(images=5, nano_usd=1000)) is None
    assert router.fitting(Amount(9, 9, 9000)) == Amount(9, 5, 1000)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=10), st.integers(0, 3))
def test_what_nobody_uses_comes_back(requests: Sequence[int], number: int) -> None:
    """A request that came to nothing costs nothing: the whole minute is there for any router then."""
    world = World(Limit(0, 0, 400, 400, 400))
    for position, amount in enumerate(requests):
        world.begin(position % 4, Amount(amount, amount, amount))
    while world.running:
        world.end(0, 0.0)
    world.now += 3
    for each in range(4):
        world.round(each)
    world.begin(number, Amount(400, 400, 400))
    assert len(world.running) == 1


def test_what_was_used_beyond_is_waited_for_at_every_router() -> None:
    """An answer that grew beyond what was set aside delays the next ones, wherever they come."""
    world = World(Limit(0, 0, 60))
    world.begin(0, Amount(10))
    world.end(0, 8.0)
    world.round(0)
    for number in range(4):
        world.begin(number, Amount(10))
    assert world.running == []
    world.now += 31
    for number in range(4):
        world.begin(number, Amount(10))
    assert len(world.running) == 1


def test_more_than_any_minute_has_is_asked_for_by_nobody() -> None:
    """Nor where a router has back more than a minute's count: a request that would grow by it does not."""
    world = World(Limit(0, 0, 0, 5))
    for _ in range(2):
        world.begin(0, Amount(images=5))
        world.now += 61
    world.end(0, 0.0)
    world.end(0, 0.0)
    world.begin(0, Amount(images=1))
    world.grow(0, Amount(images=20))
    assert [set_aside.images for _, set_aside in world.running] == [1]


def test_what_was_used_beyond_is_not_forgotten_while_auth_is_away() -> None:
    """It is told when auth is back, and waited for until then."""
    world = World(Limit(0, 0, 0, 60))
    world.begin(0, Amount(images=10))
    world.end(0, 8.0)
    world.away = True
    world.round(0)
    world.away = False
    world.now += 1
    world.round(0)
    for number in range(4):
        world.begin(number, Amount(images=10))
    assert world.running == []


def test_what_a_provider_says_is_left_counts_for_every_router() -> None:
    """Whatever was reckoned: the next router that asks is given no more than that, and what time brings."""
    world = World(Limit(60, 0, 600))
    world.report(0, 2)
    world.begin(0, Amount(1))
    for number in (1, 2, 3):
        world.begin(number, Amount(1))
    assert len(world.running) == 2
    world.now += 1
    world.begin(3, Amount(1))
    assert len(world.running) == 3


def test_a_request_that_may_come_to_more_than_a_minute_has_waits_for_all_of_it() -> None:
    """Refused for ever it would be no use to anybody with a small limit; it takes the whole minute instead."""
    world = World(Limit(0, 0, 100))
    world.begin(0, Amount(5000))
    assert len(world.running) == 1
    world.begin(1, Amount(1))
    assert len(world.running) == 1
