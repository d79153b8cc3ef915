"""What this process saw of targets, by ten minutes: for the operator, whom metrics do not reach.

Noted beside the metrics, and sent to auth, which puts all routers' numbers together.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from moa.common.v1.rates_pb2 import UpstreamRates
from moa.operator.v1 import operator_store_service_pb2 as pb

BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""The buckets of the times to an answer's first event; one more holds what took longer."""
SLOT_S: Final = 600
_MOST_TARGETS: Final = 4000
"""Of how many targets in one slot anything is kept."""
_MOST_STATES: Final = 1000
RATES_S: Final = 600.0
"""For how long a provider's word on its limits is kept."""

_Key = tuple[int, str, str, str]


class _Slot:
    __slots__ = ("errors", "fallbacks", "first_events", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.fallbacks = 0
        self.first_events = [0] * (len(BOUNDS_S) + 1)


class Traffic:
    """Notes what happens; called on the loop's thread.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._slots: dict[_Key, _Slot] = {}
        self._unsent: set[_Key] = set()
        self._breakers: dict[tuple[str, str], float] = {}
        self._rates: dict[tuple[str, str], tuple[float, UpstreamRates]] = {}
        self._stirred = False
        """Whether breakers or rates changed since the last report."""

    def began(self, route: str, provider: str, model: str, seconds: float) -> None:
        """Note that an answer began, so long after its request."""
        if (slot := self._slot(route, provider, model)) is not None:
            slot.requests += 1
            slot.first_events[bisect_left(BOUNDS_S, seconds)] += 1

    def failed(self, route: str, provider: str, model: str) -> None:
        """Note a failure for which a target is to blame."""
        if (slot := self._slot(route, provider, model)) is not None:
            slot.errors += 1

    def fell_back(self, route: str, provider: str, model: str) -> None:
        """Note that another target answered a request that was meant for one."""
        if (slot := self._slot(route, provider, model)) is not None:
            slot.fallbacks += 1

    def opened(self, provider: str, model: str, rest_s: float) -> None:
        """Note that a target is left alone for so long."""
        self._breakers[provider, model] = self._clock() + rest_s
        self._stirred = True

    def closed(self, provider: str, model: str) -> None:
        """Note that a target is asked as ever."""
        self._breakers.pop((provider, model), None)
        self._stirred = True

    def learned(self, provider: str, model: str, rates: UpstreamRates) -> None:
        """Note what a provider said of its limits."""
        if len(self._rates) < _MOST_STATES or (provider, model) in self._rates:
            self._rates[provider, model] = self._clock(), rates
            self._stirred = True

    def report(self, holder: str) -> pb.ReportTrafficRequest | None:
        """Return what changed since the last report; None where nothing did. What is not sent is returned again."""
        if not self._unsent and not self._stirred:
            return None
        now = self._clock()
        self._forget(now)
        report = pb.ReportTrafficRequest(holder=holder)
        for key in self._unsent:
            at, route, provider, model = key
            slot = self._slots[key]
            report.slots.add(
                at=at,
                route=route,
                provider=provider,
                model=model,
                requests=slot.requests,
                errors=slot.errors,
                fallbacks=slot.fallbacks,
                first_events=slot.first_events,
            )
        for (provider, model), until in list(self._breakers.items())[:_MOST_STATES]:
            report.breakers.add(provider=provider, model=model, routers=1).until.FromNanoseconds(int(until * 1e9))
        for (provider, model), (learned_at, rates) in self._rates.items():
            report.rates.add(provider=provider, model=model, rates=rates).at.FromNanoseconds(int(learned_at * 1e9))
        self._unsent, self._stirred = set(), False
        return report

    def unsent(self, report: pb.ReportTrafficRequest) -> None:
        """Take a report back that did not arrive."""
        self._stirred = True
        for slot in report.slots:
            key = slot.at, slot.route, slot.provider, slot.model
            if key in self._slots:
                self._unsent.add(key)

    def _slot(self, route: str, provider: str, model: str) -> _Slot | None:
        """Return the slot of now; None where this process keeps as many as it may."""
        key = int(self._clock()) // SLOT_S * SLOT_S, route, provider, model
        slot = self._slots.get(key)
        if slot is None:
            if len(self._slots) >= 2 * _MOST_TARGETS or len(self._unsent) >= _MOST_TARGETS:
                return None
            slot = self._slots[key] = _Slot()
        self._unsent.add(key)
        return slot

    def _forget(self, now: float) -> None:
        """Forget slots that are over and were sent, and words that are old."""
        over = int(now) // SLOT_S * SLOT_S
        self._slots = {key: slot for key, slot in self._slots.items() if key[0] >= over or key in self._unsent}
        self._rates = {key: known for key, known in self._rates.items() if now - known[0] < RATES_S}


TRAFFIC: Final = Traffic()
"""This process's."""


def quantile_s(first_events: list[int], part: float) -> float | None:
    """Return what a part of the times kept, guessed evenly within its bucket; None without any."""
    total = sum(first_events)
    if not total:
        return None
    wanted, before = part * total, 0
    for place, count in enumerate(first_events):
        if count and before + count >= wanted:
            if place >= len(BOUNDS_S):
                break
            low = BOUNDS_S[place - 1] if place else 0.0
            return low + (BOUNDS_S[place] - low) * (wanted - before) / count
        before += count
    return float(BOUNDS_S[-1])
