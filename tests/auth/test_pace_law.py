"""The law of paces: four routers together begin no more requests, and use no more tokens, than one may."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from moa.quota.v1 import quota_pb2
from services.auth.domain.paces import Bucket, Limit, refilled, share
from services.common.errors import RateLimited
from services.quota_client._share import Share

LASTS_S = 10.0


class World:
    """Four routers and the one bucket that auth divides among them, at a time of the test's own."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.now = 100.0
        self.began = 0
        self.settled = 0
        self.over = 0
        """Tokens that requests used beyond what was set aside."""
        self._at = self.now
        self._starts, self._tokens = float(limit.a_minute), float(limit.tokens)
        self._slots: dict[int, int] = {}
        self.routers = [self._router() for _ in range(4)]
        self.running: list[tuple[Share, int]] = []

    def _router(self) -> Share:
        made = Share("acc", "account", self.now)
        made.limit(
            quota_pb2.Pace(
                requests_per_minute=self.limit.a_minute,
                concurrent_requests=self.limit.at_once,
                tokens_per_minute=self.limit.tokens,
            )
        )
        return made

    def ask(self, number: int, need: quota_pb2.PaceNeed) -> quota_pb2.PaceShare:
        passed_s, self._at = self.now - self._at, self.now
        self._starts, self._tokens = refilled(self.limit, need, self._starts, self._tokens, passed_s)
        others = sum(slots for holder, slots in self._slots.items() if holder != number)
        given = share(self.limit, Bucket(self._starts, others, len(self._slots), self._tokens), need)
        self._starts, self._tokens, self._slots[number] = given.left, given.tokens_left, given.slots
        told = quota_pb2.PaceShare(starts=given.starts, slots=given.slots, tokens=given.tokens)
        told.wait.FromMilliseconds(int(given.wait_s * 1000))
        told.expires_in.FromMilliseconds(int(LASTS_S * 1000))
        return told

    def begin(self, number: int, tokens: int) -> None:
        router = self.routers[number]
        try:
            if not router.ready(self.now, tokens):
                router.take(self.ask(number, router.need(tokens)), self.now, tokens=tokens)
                if not router.ready(self.now, tokens):
                    return
        except RateLimited:
            return
        router.begin(self.now, tokens)
        self.began += 1
        self.running.append((router, min(tokens, self.limit.tokens)))

    def end(self, which: int, part: float) -> None:
        if not self.running:
            return
        router, tokens = self.running.pop(which % len(self.running))
        used = int(tokens * part)
        router.end(tokens, used)
        self.settled += used
        self.over += max(0, used - tokens)

    def round(self, number: int) -> None:
        if (need := self.routers[number].due(self.now)) is not None:
            self.routers[number].take(self.ask(number, need), self.now, tokens=None)

    def report(self, number: int, left: int) -> None:
        """Tell a router what a provider says is left, rightly or not."""
        router = self.routers[number]
        router.upstream = quota_pb2.Pace(requests_per_minute=self.limit.a_minute, tokens_per_minute=self.limit.tokens)
        router.reported(requests=left, tokens=left)

    def kill(self, number: int) -> None:
        dead = self.routers[number]
        self.routers[number] = self._router()
        # What its requests had set aside may have been used.
        self.settled += sum(tokens for router, tokens in self.running if router is dead)
        self.running = [one for one in self.running if one[0] is not dead]

    @property
    def used(self) -> int:
        return self.settled + sum(tokens for _, tokens in self.running)


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
            world.begin(number, int(value))
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
        assert world.used <= most * (1 + minutes) + 1e-6
        if a_minute:
            assert world.began <= a_minute * (1 + minutes) + 1e-6


@given(st.lists(st.integers(1, 40), min_size=1, max_size=10), st.integers(0, 3))
def test_what_nobody_uses_comes_back(requests: Sequence[int], number: int) -> None:
    """A request that came to nothing costs nothing: the whole minute is there for any router then."""
    world = World(Limit(0, 0, 400))
    for position, tokens in enumerate(requests):
        world.begin(position % 4, tokens)
    while world.running:
        world.end(0, 0.0)
    world.now += 3
    for each in range(4):
        world.round(each)
    world.begin(number, 400)
    assert len(world.running) == 1


def test_what_was_used_beyond_is_waited_for_at_every_router() -> None:
    """An answer that grew beyond what was set aside delays the next ones, wherever they come."""
    world = World(Limit(0, 0, 60))
    world.begin(0, 10)
    world.end(0, 8.0)
    world.round(0)
    for number in range(4):
        world.begin(number, 10)
    assert world.running == []
    world.now += 31
    for number in range(4):
        world.begin(number, 10)
    assert len(world.running) == 1


def test_what_a_provider_says_is_left_counts_for_every_router() -> None:
    """Whatever was reckoned: the next router that asks is given no more than that, and what time brings."""
    world = World(Limit(60, 0, 600))
    world.report(0, 2)
    world.begin(0, 1)
    for number in (1, 2, 3):
        world.begin(number, 1)
    assert len(world.running) == 2
    world.now += 1
    world.begin(3, 1)
    assert len(world.running) == 3


def test_a_request_that_may_come_to_more_than_a_minute_has_waits_for_all_of_it() -> None:
    """Refused for ever it would be no use to anybody with a small limit; it takes the whole minute instead."""
    world = World(Limit(0, 0, 100))
    world.begin(0, 5000)
    assert len(world.running) == 1
    world.begin(1, 1)
    assert len(world.running) == 1
