"""Share an engine by what work costs (pixel-steps, tokens), not by how many requests somebody sends.

Virtual time (weighted fair queueing): a flow's clock runs by the cost of its work, divided by its weight; whose clock
is furthest behind goes next. A flow that was away comes back a bounded credit behind the others, so that a light
account's requests go first, and a long absence buys no monopoly. An engine that nobody used owes nobody anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import NamedTuple

from services.common.rpc import call as calls

WEIGHTS = {"low": 0.25, "normal": 1.0, "high": 4.0}
"""A priority's weight: at equal demand, how much of the engine it gets."""


class Flow(NamedTuple):
    """Who shares: an account at one priority, so that what it does in the background does not hold up its own rest."""

    tenant: str = ""
    """The account; empty: a nameless one."""
    priority: str = "normal"

    @classmethod
    def of(cls, metadata: Mapping[str, str | bytes]) -> Flow:
        """Read a call's flow from its metadata; a priority that is none is a normal one."""
        priority = str(metadata.get(calls.PRIORITY_KEY, ""))
        return cls(str(metadata.get(calls.ACCOUNT_KEY, "")), priority if priority in WEIGHTS else "normal")

    @property
    def weight(self) -> float:
        """Its weight."""
        return WEIGHTS[self.priority]


NAMELESS = Flow()
"""The flow of calls that name no account."""


class Shares:
    """The flows' clocks."""

    def __init__(self) -> None:
        self._clocks: dict[Flow, float] = {}
        self._now = 0.0
        self._most_credit = 0.0

    def enter(self, flow: Flow, active: Set[Flow], credit: float) -> None:
        """Let a flow in beside those that are `active`, at most `credit` behind; no effect if it is one of them."""
        if flow in active:
            return
        if active:
            self._now = max(self._now, min(self._clocks[other] for other in active))
        else:
            self._now = max(self._clocks.values(), default=self._now)
        floor = self._now - credit
        mine = max(self._clocks.get(flow, floor), floor)
        # Absent flows that are further behind than anybody may be would come back no different.
        self._most_credit = max(self._most_credit, credit)
        oldest = self._now - self._most_credit
        self._clocks = {f: c for f, c in self._clocks.items() if f in active or c > oldest} | {flow: mine}

    def charge(self, flow: Flow, cost: float) -> None:
        """Move a flow's clock by the cost of work; a negative cost takes back what was charged ahead."""
        self._clocks[flow] = self._clocks.get(flow, self._now) + cost / flow.weight

    def clock(self, flow: Flow) -> float:
        """Return a flow's clock; the least goes first."""
        return self._clocks.get(flow, self._now)


def crowded(mine: int, everyone: int, most: int) -> bool:
    """Return whether a flow would have too many requests waiting, `mine` of `everyone`'s, the new ones included.

    One alone may have `most`. The room is twice that, and nobody may have more of it than is left: so however many
    flood, each leaves as much as it takes, and who has nothing waiting finds a place (dynamic thresholds, Choudhury and
    Hahne 1998).
    """
    return mine > 2 * most - everyone
