"""What answers cost is counted by the team that pays, of which a process tells only so many apart."""

from __future__ import annotations

from prometheus_client import REGISTRY

from moa.common.v1 import usage_pb2
from services.catalogue import Model, Prices
from services.router import metrics

MODEL = Model(id="costly", provider="by-team", prices=Prices(input=1.0, output=2.0))
USAGE = usage_pb2.Usage(prompt_tokens=1_000_000)


def cost(team: str) -> float:
    return (
        REGISTRY.get_sample_value("moa_cost_usd_total", {"provider": "by-team", "model": MODEL.label, "team": team})
        or 0.0
    )


def test_costs_are_counted_by_team() -> None:
    """Of no team with an empty label; teams beyond the first hundred share one, so that series have an end."""
    for team in ("", "team_1", "team_1", *(f"team_{number}" for number in range(2, 130))):
        metrics.charged(MODEL, USAGE, team=team)
    assert cost("") == 1
    assert cost("(others)") + sum(cost(f"team_{number}") for number in range(1, 130)) == 130
    assert len([number for number in range(1, 130) if cost(f"team_{number}")]) <= 100
    assert cost("(others)") >= 29
