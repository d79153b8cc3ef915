"""The simulation of quotas: the laws hold in it, and would be seen to break."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from bench.simulation import books, scenarios
from bench.simulation.load import Load
from bench.simulation.world import Fault, Plan, simulate

SMALL = Plan(
    name="small",
    load=Load(routers=6, keys=1, a_second=12.0, lasts_s=7.0),
    regions=3,
    replicas=1,
    tokens_a_day=28_000,
    lease_s=4.0,
    block_s=8.0,
    quiet_s=24.0,
)
FAULTS = (
    Fault(what="cut", at_s=1.0, lasts_s=3.0, region=1),
    Fault(what="kill routers", at_s=2.0, count=2),
    Fault(what="kill replicas", at_s=3.0),
    Fault(what="database away", at_s=5.0, lasts_s=2.0),
)


def test_quotas_hold_in_a_simulation_of_faults() -> None:
    """With a region cut off, routers and an auth killed and the database away, nothing is granted beyond the limit, all
    that ran is accounted for, and what the dead held is free again; the same seed gives the same report."""
    report = simulate(replace(SMALL, faults=FAULTS), seed=3)
    outcome = report.outcome
    assert report.law_holds, report.faults
    assert outcome.asked == len(SMALL.load.requests(3))
    assert outcome.cut > 0
    assert report.charged <= SMALL.tokens_a_day
    assert outcome.used <= report.charged + report.uncovered
    assert report.held_at_end == 0
    assert simulate(replace(SMALL, faults=FAULTS), seed=3) == report


def test_without_faults_what_is_charged_is_what_was_used() -> None:
    """To the token; who is refused is refused because the limit is used up or held."""
    report = simulate(SMALL, seed=5)
    assert report.law_holds, report.faults
    assert report.charged == report.outcome.used > 0
    assert report.uncovered == 0
    assert report.outcome.exhausted > 0
    assert report.held_at_end == 0


def test_a_ledger_that_lends_too_much_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The laws are judged by what is booked, not by who booked it."""
    monkeypatch.setattr(books, "sized", lambda *, least, need, want, free: want)
    assert not simulate(SMALL, seed=5).law_holds


def test_the_report_has_a_cell_for_each_head_and_the_clock_is_the_machine_s_again() -> None:
    """A table whose rows are longer than its head is read wrongly; what else runs in this process keeps its time."""
    clocks = time.monotonic, time.time, time.time_ns
    report = simulate(replace(SMALL, load=replace(SMALL.load, lasts_s=1.0), quiet_s=0.0), seed=1)
    assert (time.monotonic, time.time, time.time_ns) == clocks
    heads, parts = scenarios.head().splitlines()
    assert heads.count(" | ") == parts.count(" | ") == scenarios.row(report).count(" | ")
