"""The laws by which engines are shared, without an engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.fair import NAMELESS, WEIGHTS, Flow, Shares, crowded
from moa.quota.v1 import quota_pb2
from services.common.rpc import call as calls
from services.quota_client import priorities

A, B, C = Flow("a"), Flow("b"), Flow("c")
FLOWS = [Flow(tenant, priority) for tenant in "abc" for priority in WEIGHTS]


def served(shares: Shares, active: list[Flow], costs: dict[Flow, float]) -> Flow:
    """Serve whoever is furthest behind."""
    flow = min(active, key=shares.clock)
    shares.charge(flow, costs[flow])
    return flow


@given(st.lists(st.sampled_from(FLOWS), min_size=2, unique=True), st.data())
def test_busy_flows_get_their_weights(flows: list[Flow], data: st.DataObject) -> None:
    """Whatever a turn costs each, flows that never pause are within one turn of their weighted shares."""
    costs = {flow: float(data.draw(st.integers(1, 100))) for flow in flows}
    shares = Shares()
    for count, flow in enumerate(flows):
        shares.enter(flow, set(flows[:count]), 0)
    got = dict.fromkeys(flows, 0.0)
    for _ in range(400):
        flow = served(shares, flows, costs)
        got[flow] += costs[flow]
    work = {flow: got[flow] / flow.weight for flow in flows}
    turn = max(costs[flow] / flow.weight for flow in flows)
    assert max(work.values()) - min(work.values()) <= turn + 1e-6


@given(st.lists(st.tuples(st.sampled_from(FLOWS[1:]), st.integers(1, 50)), max_size=200))
def test_nobody_gains_by_leaving_and_coming_back(visits: list[tuple[Flow, int]]) -> None:
    """Flows that come for one turn at a time, in any order, leave one that never pauses its share."""
    busy, credit = FLOWS[0], 50.0
    shares = Shares()
    shares.enter(busy, set(), 0)
    got = dict.fromkeys(FLOWS, 0.0)
    for flow, cost in visits:
        shares.enter(flow, {busy}, credit)
        while served(shares, [flow, busy], {flow: cost, busy: 1.0}) == busy:
            got[busy] += 1
        got[flow] += cost
    # In one turn a flow may come to be ahead of the busy one, by what the turn costs and no more.
    for flow in {flow for flow, _ in visits}:
        assert got[flow] / flow.weight <= got[busy] / busy.weight + credit + 50 / flow.weight + 1 / busy.weight


def test_an_idle_engine_owes_nobody() -> None:
    """What a flow used while nobody else was there is not held against it once somebody comes."""
    shares = Shares()
    shares.enter(A, set(), 0)
    shares.charge(A, 1_000_000)
    shares.enter(B, set(), 10)
    shares.enter(A, {B}, 10)
    assert shares.clock(A) - shares.clock(B) <= 10


def test_a_long_absence_buys_no_monopoly() -> None:
    """Who was away comes back its credit behind the others, however long it was."""
    shares = Shares()
    for flow, active in ((A, set()), (B, {A})):
        shares.enter(flow, active, 0)
    for flow in (A, B):
        shares.charge(flow, 1000)
    shares.enter(C, {A, B}, 20)
    assert shares.clock(C) == shares.clock(A) - 20


@pytest.mark.parametrize("floods", [1, 2, 5, 20])
def test_however_many_flood_there_is_a_place(floods: int) -> None:
    """Floods take equal parts of the waiting room, one alone its whole bound, and leave a place for anybody else."""
    most = 64
    waiting = [0] * floods
    for turn in range(1000 * floods):
        one = turn % floods
        if not crowded(waiting[one] + 1, sum(waiting) + 1, most):
            waiting[one] += 1
    assert max(waiting) - min(waiting) <= 1
    assert max(waiting) <= most
    assert floods > 1 or waiting == [most]
    assert not crowded(1, sum(waiting) + 1, most)


def test_every_priority_has_its_weight() -> None:
    """Each word that accounts are given is one that engines know, and a higher one weighs more."""
    assert sorted(WEIGHTS, key=priorities.NUMBERS.__getitem__) == sorted(WEIGHTS, key=WEIGHTS.__getitem__)
    assert set(WEIGHTS) == set(priorities.NUMBERS)
    named = {name for name, number in quota_pb2.Priority.items() if number}
    assert named == {f"PRIORITY_{word.upper()}" for word in WEIGHTS}


@pytest.mark.parametrize(
    ("metadata", "flow"),
    [
        ({}, NAMELESS),
        ({calls.ACCOUNT_KEY: "acc"}, Flow("acc", "normal")),
        ({calls.ACCOUNT_KEY: "acc", calls.PRIORITY_KEY: "low"}, Flow("acc", "low")),
        ({calls.ACCOUNT_KEY: "acc", calls.PRIORITY_KEY: "highest"}, Flow("acc", "normal")),
        ({calls.ACCOUNT_KEY: "acc", calls.PRIORITY_KEY: ""}, Flow("acc", "normal")),
    ],
)
def test_a_call_tells_its_flow(metadata: dict[str, str], flow: Flow) -> None:
    """Account and priority come from the call's metadata; a priority that is none is a normal one."""
    assert Flow.of(metadata) == flow
