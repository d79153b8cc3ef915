"""What is measured of targets: averages of late, how slow is slow, calls that run, and that little is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa.common.v1 import usage_pb2
from services.catalogue import Model
from services.router.domain.measures import HEDGES, STALE_S, Measures

A = Model(id="a", provider="p")


class Clock:
    """A clock of the test's own."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def answered(measures: Measures, clock: Clock, first_s: float, rest_s: float = 0.0, *, tokens: int = 10) -> None:
    """Measure one streamed answer of `a`."""
    watch = measures.watch("r", whole=False, hedges=True)
    watch.asked(A)
    clock.now += first_s
    watch.began(A)
    clock.now += rest_s
    watch.finished(A, usage_pb2.Usage(completion_tokens=tokens))
    watch.close()


def test_the_newest_counts_a_fifth_and_old_ones_nothing(clock: Clock) -> None:
    """An average that follows; after a minute without a measurement nothing is known."""
    measures = Measures(clock)
    answered(measures, clock, 1.0, 5.0)
    answered(measures, clock, 2.0, 10.0)
    view = measures.view(whole=False)
    assert view.first_token_s(A) == pytest.approx(1.2)
    assert view.per_token_s(A) == pytest.approx(0.6)
    assert measures.view(whole=True).first_token_s(A) is None
    clock.now += STALE_S
    assert measures.view(whole=False).first_token_s(A) is None
    answered(measures, clock, 9.0)
    assert measures.view(whole=False).first_token_s(A) == pytest.approx(9.0)


def test_a_short_answer_says_nothing_of_a_tokens_time(clock: Clock) -> None:
    """A word or two are over before they can be measured."""
    measures = Measures(clock)
    answered(measures, clock, 1.0, 5.0, tokens=2)
    assert measures.view(whole=False).per_token_s(A) is None


def test_silence_counts_as_long_as_it_was(clock: Clock) -> None:
    """A target that was left because it said nothing is no quick one."""
    measures = Measures(clock)
    watch = measures.watch("r", whole=False, hedges=True)
    watch.asked(A)
    clock.now += 30
    watch.ended(A, silent=True)
    assert measures.view(whole=False).first_token_s(A) == pytest.approx(30)


@given(st.lists(st.floats(0.001, 100), min_size=20, max_size=300))
def test_slow_is_what_95_percent_of_the_last_128_are_below(times: list[float]) -> None:
    """Of fewer than 20 it is not told: nobody is hedged."""
    clock = Clock()
    measures = Measures(clock)
    watch = measures.watch("r", whole=False, hedges=True)
    for number, seconds in enumerate(times):
        assert (watch.hedge_after_s(A) is None) == (number < 20)
        answered(measures, clock, seconds)
    last = times[-128:]
    slow = watch.hedge_after_s(A)
    assert slow is not None
    assert sum(seconds <= slow + 1e-6 for seconds in last) >= 0.95 * len(last)
    assert sum(seconds < slow - 1e-6 for seconds in last) <= 0.96 * len(last)


def test_a_share_of_the_requests_is_hedged(clock: Clock) -> None:
    """Saved up for ten at once at most."""
    measures = Measures(clock)
    for _ in range(1000):
        watch = measures.watch("r", whole=False, hedges=True)
    assert [watch.may_hedge() for _ in range(12)] == [True] * 10 + [False] * 2
    taken = 0
    for _ in range(1000):
        taken += measures.watch("r", whole=False, hedges=True).may_hedge()
    assert taken == pytest.approx(1000 * HEDGES, abs=1)


@given(st.lists(st.sampled_from(["asked", "began", "ended", "finished", "closed"]), max_size=30))
def test_no_order_of_events_leaves_a_call_counted(events: list[str]) -> None:
    """Whatever happens, when all is over nothing runs."""
    measures = Measures(Clock())
    watch = measures.watch("r", whole=False, hedges=False)
    running = False
    for event in events:
        if event == "asked" and not running:
            watch.asked(A)
            running = True
        elif event == "began":
            watch.began(A)
        elif event == "ended":
            watch.ended(A)
            running = False
        elif event == "finished":
            watch.finished(A, usage_pb2.Usage(completion_tokens=9))
            running = False
        elif event == "closed":
            watch.close()
            running = False
        assert measures.view(whole=False).outstanding(A) == running
    watch.close()
    assert measures.view(whole=False).outstanding(A) == 0


def test_what_is_kept_is_bounded(clock: Clock) -> None:
    """Targets that nobody asks any more are let go of when there are thousands."""
    measures = Measures(clock)
    for number in range(5000):
        watch = measures.watch("r", whole=False, hedges=False)
        watch.asked(Model(id=f"m{number}", provider="p"))
        watch.close()
    assert len(measures) <= 4096
