"""What `make simulate` simulates, and how its report reads."""

from __future__ import annotations

from typing import Final

from bench.simulation.load import Load
from bench.simulation.world import Fault, Plan, Report

_MANY: Final = Load(routers=100, keys=200, a_second=200.0, lasts_s=10.0)
_ONE_KEY: Final = Load(routers=100, keys=1, a_second=100.0, lasts_s=15.0)
_STEADY: Final = Load(routers=20, keys=5, a_second=20.0, lasts_s=100.0)
_MEAN_TOKENS: Final = 500
"""What a request uses on average: half of what it needs, 1,000."""


def _part(load: Load, part: float) -> int:
    """Return a limit of each key that part of a load's use is within, all keys together."""
    return int(load.a_second * load.lasts_s * _MEAN_TOKENS * part / load.keys)


SCENARIOS: Final = (
    Plan(name="plenty, auth in ten regions", load=_MANY, regions=10),
    Plan(name="plenty, auth in one region", load=_MANY, regions=10, auth_regions=1, replicas=4),
    Plan(
        name="one key, room for 60 %",
        load=_ONE_KEY,
        regions=10,
        tokens_a_day=_part(_ONE_KEY, 0.6),
        quiet_s=100.0,
    ),
    Plan(
        name="one key, room for 60 %, auth in one region",
        load=_ONE_KEY,
        regions=10,
        auth_regions=1,
        tokens_a_day=_part(_ONE_KEY, 0.6),
        quiet_s=100.0,
    ),
    Plan(
        name="a region is cut off for 80 s",
        load=_STEADY,
        regions=10,
        replicas=1,
        faults=[Fault(what="cut", at_s=10.0, lasts_s=80.0, region=1)],
        quiet_s=120.0,
    ),
    Plan(
        name="the same, blocks of 10 minutes",
        load=_STEADY,
        regions=10,
        replicas=1,
        block_s=600.0,
        faults=[Fault(what="cut", at_s=10.0, lasts_s=80.0, region=1)],
        quiet_s=120.0,
    ),
    Plan(
        name="5 routers and 3 auths killed, room for 80 %",
        load=_STEADY,
        regions=10,
        replicas=1,
        tokens_a_day=_part(_STEADY, 0.8),
        faults=[
            Fault(what="kill routers", at_s=20.0, count=5),
            Fault(what="kill replicas", at_s=30.0, count=3),
            Fault(what="database away", at_s=50.0, lasts_s=10.0),
        ],
        quiet_s=120.0,
    ),
)
"""100 routers and 10 regions, unless a fault lasts long: then 20."""

_HEADS: Final = (
    "scenario | asked | answered | no quota | of these in vain | not available | cut by kills"
    " | calls of auth/s | transactions/s | processors of PostgreSQL | stranded, mean | most"
    " | admission p50, p99, ms | law"
)


def head() -> str:
    """Return the head of a table of Markdown."""
    return f"| {_HEADS} |\n| {' | '.join('---' for _ in _HEADS.split(' | '))} |"


def row(report: Report) -> str:
    """Return a report as a row of it."""
    outcome = report.outcome
    cells = [
        report.name,
        *(f"{count:,}" for count in (outcome.asked, outcome.answered, outcome.exhausted, outcome.in_vain)),
        f"{outcome.unavailable:,}",
        f"{outcome.cut:,}",
        f"{report.calls_a_second:,.0f}",
        f"{report.transactions_a_second:,.0f}",
        f"{report.database_busy:.2f}",
        f"{report.stranded_mean:,}",
        f"{report.stranded_most:,}",
        f"{outcome.wait_s(0.5) * 1e3:.1f}, {outcome.wait_s(0.99) * 1e3:,.0f}",
        "holds" if report.law_holds else f"BROKEN: {'; '.join(report.faults[:3]) or 'charged beyond the limit'}",
    ]
    return f"| {' | '.join(cells)} |"
