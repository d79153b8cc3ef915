"""What was measured of virtual models' targets: calls that run, latencies, and how slow is slow for one of them.

State is this process's, and only of targets that virtual models were asked for. Nothing is noted for each event of an
answer: a call is noted when it begins, at its first event, and at its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

from moa.common.v1 import usage_pb2
from services.catalogue import Model

STALE_S: Final = 60.0
"""How long a latency is taken for true: then its target is asked by one request to measure it again."""
_WEIGHT: Final = 0.2
"""What part of the average the newest measurement is."""
_KEPT: Final = 128
"""Of how many calls the slowest twentieth is told."""
_LEAST: Final = 20
"""Of fewer it is not."""
_MOST_TARGETS: Final = 4096
_FEW_TOKENS: Final = 8
"""An answer of fewer says nothing of how long a token takes."""
HEDGES: Final = 0.1
"""The share of a virtual model's requests that may be hedged: when all its targets slow down at once, twice the load
would not help."""
_HEDGES_AT_ONCE: Final = 10.0


class Headroom(Protocol):
    """What is known of providers' own limits."""

    def left(self, model: Model, tokens: int) -> float:
        """Return what share of a provider's limits is left, from 0 to 1; 0: a request of so many tokens is refused."""


class Unlimited:
    """No provider's limits are known."""

    def left(self, model: Model, tokens: int) -> float:
        """As `Headroom.left`."""
        return 1.0


class _Latency:
    """Latencies of one kind of one target."""

    __slots__ = ("_at", "_count", "_kept", "_slow", "_value")

    def __init__(self) -> None:
        self._value = 0.0
        self._at = 0.0
        self._count = 0
        self._kept: list[float] = []
        self._slow: float | None = None

    def add(self, seconds: float, now: float) -> None:
        """Note one."""
        fresh = self._count and now - self._at < STALE_S
        self._value = self._value + _WEIGHT * (seconds - self._value) if fresh else seconds
        self._at = now
        if len(self._kept) < _KEPT:
            self._kept.append(seconds)
        else:
            self._kept[self._count % _KEPT] = seconds
        self._count += 1
        self._slow = None

    def now(self, now: float) -> float | None:
        """Return the average of late; None where none is recent."""
        return self._value if self._count and now - self._at < STALE_S else None

    def slow(self) -> float | None:
        """Return what 95% are below; None of too few."""
        if len(self._kept) < _LEAST:
            return None
        if self._slow is None:
            self._slow = sorted(self._kept)[len(self._kept) * 95 // 100]
        return self._slow


class _Target:
    """What is known of one target."""

    __slots__ = ("first", "outstanding", "per_token")

    def __init__(self) -> None:
        self.outstanding = 0
        self.first = {False: _Latency(), True: _Latency()}
        """Until it said something: in streams, and in answers that come whole."""
        self.per_token = {False: _Latency(), True: _Latency()}


class Measures:
    """The measurements of all targets.

    Args:
        clock: Monotonic seconds.
        headroom: What is known of providers' own limits.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, headroom: Headroom | None = None) -> None:
        self.clock = clock
        self.headroom = headroom or Unlimited()
        self._targets: dict[str, _Target] = {}
        self._hedges: dict[str, float] = {}

    def __len__(self) -> int:
        """Return of how many targets anything is kept."""
        return len(self._targets)

    def of(self, model: Model) -> _Target:
        """Return what is kept of a target."""
        target = self._targets.get(model.full_id)
        if target is None:
            if len(self._targets) >= _MOST_TARGETS:
                self._targets = {name: one for name, one in self._targets.items() if one.outstanding}
            target = self._targets[model.full_id] = _Target()
        return target

    def known(self, model: Model) -> _Target | None:
        """Return what is kept of a target; None where nothing is."""
        return self._targets.get(model.full_id)

    def view(self, *, whole: bool) -> Measured:
        """Return what was measured, for requests whose answers are wanted whole, or as streams."""
        return Measured(self, whole=whole)

    def watch(self, route: str, *, whole: bool, hedges: bool) -> Watch:
        """Return what notes the calls of one request."""
        if hedges:
            self._hedges[route] = min(self._hedges.get(route, 0.0) + HEDGES, _HEDGES_AT_ONCE)
        return Watch(self, route, whole=whole, hedges=hedges)

    def take_hedge(self, route: str) -> bool:
        """Return whether one more request of a virtual model may be hedged, and count it."""
        left = self._hedges.get(route, 0.0)
        if left < 1:
            return False
        self._hedges[route] = left - 1
        return True


class Measured:
    """As the chooser sees it: `services.router.domain.choice.View`."""

    __slots__ = ("_measures", "_now", "_whole")

    def __init__(self, measures: Measures, *, whole: bool) -> None:
        self._measures = measures
        self._whole = whole
        self._now = measures.clock()

    def outstanding(self, model: Model) -> int:
        """As `View.outstanding`: of calls for virtual models."""
        known = self._measures.known(model)
        return known.outstanding if known is not None else 0

    def first_token_s(self, model: Model) -> float | None:
        """As `View.first_token_s`."""
        known = self._measures.known(model)
        return known.first[self._whole].now(self._now) if known is not None else None

    def per_token_s(self, model: Model) -> float | None:
        """As `View.per_token_s`."""
        known = self._measures.known(model)
        return known.per_token[self._whole].now(self._now) if known is not None else None

    def left(self, model: Model, tokens: int) -> float:
        """As `View.left`."""
        return self._measures.headroom.left(model, tokens)


class Watch:
    """Notes the calls of one request for a virtual model."""

    __slots__ = ("_hedges", "_measures", "_running", "_whole", "route")

    def __init__(self, measures: Measures, route: str, *, whole: bool, hedges: bool) -> None:
        self._measures = measures
        self.route = route
        """The virtual model."""
        self._whole = whole
        self._hedges = hedges
        self._running: dict[str, tuple[_Target, float, float]] = {}
        """The calls that run: when each was begun, and when it said something; 0: not yet."""

    def asked(self, model: Model) -> None:
        """Note that a call begins."""
        target = self._measures.of(model)
        target.outstanding += 1
        self._running[model.full_id] = target, self._measures.clock(), 0.0

    def began(self, model: Model) -> None:
        """Note that a target begins to answer."""
        if (running := self._running.get(model.full_id)) is not None:
            target, at, _ = running
            now = self._measures.clock()
            target.first[self._whole].add(now - at, now)
            self._running[model.full_id] = target, at, now

    def ended(self, model: Model, *, silent: bool = False) -> None:
        """Note that a call is over; `silent`: that it was left because it said nothing for too long."""
        if (running := self._running.pop(model.full_id, None)) is not None:
            target, at, began = running
            target.outstanding -= 1
            if silent and not began:
                now = self._measures.clock()
                target.first[self._whole].add(now - at, now)

    def finished(self, model: Model, usage: usage_pb2.Usage) -> None:
        """Note that a target answered to the end."""
        if (running := self._running.get(model.full_id)) is not None:
            target, at, began = running
            now = self._measures.clock()
            units = usage.completion_tokens if usage.completion_tokens >= _FEW_TOKENS else usage.images
            if units:
                target.per_token[self._whole].add((now - (at if self._whole else began or at)) / units, now)
        self.ended(model)

    def close(self) -> None:
        """Note that all calls are over."""
        for target, _, _ in self._running.values():
            target.outstanding -= 1
        self._running.clear()

    def hedge_after_s(self, model: Model) -> float | None:
        """Return after how long of a target's silence another is asked too; None: it is not."""
        if not self._hedges:
            return None
        known = self._measures.known(model)
        return known.first[self._whole].slow() if known is not None else None

    def may_hedge(self) -> bool:
        """Return whether this request may be hedged now, and count it."""
        return self._measures.take_hedge(self.route)
