"""Share an engine among tenants by what their work costs, in pixel-steps, not by how many requests they send.

Virtual time (weighted fair queueing): a tenant's clock runs by the cost of its steps, divided by its weight; whose
clock is furthest behind goes next. A tenant that was away comes back a bounded credit behind the others, so that a
light tenant's requests go first, and a long absence buys no monopoly.
"""

from __future__ import annotations

from collections.abc import Set

WEIGHTS = {"low": 0.25, "normal": 1.0, "high": 4.0}
"""A priority's weight: at equal demand, how much of the engine it gets."""


class Shares:
    """The tenants' clocks."""

    def __init__(self) -> None:
        self._clocks: dict[str, float] = {}
        self._now = 0.0

    def enter(self, tenant: str, active: Set[str], credit: float) -> None:
        """Let a tenant in beside those that are `active`, at most `credit` behind; no effect if it is one of them."""
        if tenant in active:
            return
        self._now = max(self._now, min((self._clocks[other] for other in active), default=self._now))
        floor = self._now - credit
        mine = max(self._clocks.get(tenant, floor), floor)
        # Absent tenants whose clock is not ahead would come back behind it anyway.
        self._clocks = {t: c for t, c in self._clocks.items() if t in active or c > self._now} | {tenant: mine}

    def charge(self, tenant: str, cost: float, priority: str) -> None:
        """Move a tenant's clock by the cost of a step."""
        self._clocks[tenant] = self._clocks.get(tenant, self._now) + cost / WEIGHTS[priority]

    def clock(self, tenant: str) -> float:
        """Give a tenant's clock; the least goes first."""
        return self._clocks.get(tenant, self._now)
