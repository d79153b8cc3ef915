"""What this process may do of what a pace counts in a minute beside requests: tokens, images, dollars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from moa.quota.v1 import quota_pb2
from services.quota_client.amounts import DIMENSIONS, NOTHING, Amount, shown


@dataclass(frozen=True, slots=True)
class _Counted:
    """One dimension that limits over a minute count."""

    position: int
    """Where an amount has it."""
    name: str
    exact: bool
    """Whether no request uses more than the limit: of tokens one may, and the next ones wait for that."""


_COUNTED: Final = tuple(
    _Counted(DIMENSIONS.index(name), name, exact)
    for name, exact in (("tokens", False), ("images", True), ("nano_usd", True))
)


class Part:
    """What this process may use of one dimension."""

    __slots__ = ("_told", "a_minute", "counted", "free", "here", "most", "refused")

    def __init__(self, counted: _Counted) -> None:
        self.counted = counted
        self.a_minute = 0
        self.here = 0.0
        """What requests that begin here may set aside; below zero, what was used beyond that."""
        self.free = 0
        """What anybody could have, when auth was asked last."""
        self.most = 0
        """Of one request; of a larger one no more is set aside."""
        self.refused = 0
        """The least that was refused a moment ago."""
        self._told: int | None = None

    def limit(self, a_minute: int) -> None:
        """Take the limit over."""
        if self.a_minute != a_minute:
            self.a_minute = self.most = a_minute
            self.here = min(self.here, a_minute)

    def has(self, need: Amount) -> bool:
        """Return whether so much can be set aside."""
        wanted = need[self.counted.position]
        return not wanted or self.here >= self._aside(wanted)

    def never_has(self, need: Amount) -> bool:
        """Return whether so much can be set aside at no time."""
        return self.counted.exact and need[self.counted.position] > self.a_minute

    def was_refused(self, need: Amount) -> bool:
        """Return whether as little as this was refused a moment ago; what is never there is refused otherwise."""
        return need[self.counted.position] >= self.refused and not self.never_has(need)

    def begin(self, need: Amount) -> None:
        """Set so much aside."""
        self.here -= self._aside(need[self.counted.position])

    def changed(self, set_aside: Amount, used: Amount) -> None:
        """Have as much set aside as may be used now, or was."""
        at = self.counted.position
        if set_aside[at] != used[at]:
            self.here += self._aside(set_aside[at]) - used[at]

    def reported(self, left: int) -> None:
        """Take what a provider says is left: that counts, here and at auth, whatever was reckoned."""
        self.here, self._told = min(self.here, float(left)), left

    def take(self, told: quota_pb2.PaceShare) -> None:
        """Take over what auth gave."""
        name = self.counted.name
        self.here += getattr(told, name)
        self.free = getattr(told, f"free_{name}")
        self.most = self.a_minute

    def over(self, *, all_of_them: bool) -> int:
        """Return, and count as gone, what goes back; below zero, what was used beyond what was set aside."""
        if self.here > 0 and not all_of_them:
            return 0
        returned = math.floor(self.here)
        self.here -= returned
        return returned

    def lacking(self, need: Amount) -> int:
        """Return how much is needed beside what is here."""
        return 0 if self.has(need) else max(0, math.ceil(min(need[self.counted.position], self.a_minute) - self.here))

    def unheard(self, need: quota_pb2.PaceNeed) -> None:
        """Owe again what auth did not hear of; what was to go back is gone."""
        self.here += min(0, getattr(need, f"returned_{self.counted.name}"))

    def alone(self, part: float, passed_s: float | None) -> None:
        """Go on without auth, by a part of the limit, which fills up as time passes; never of what is exact."""
        if self.counted.exact:
            return
        self.most = math.floor(part)
        if passed_s is not None:
            self.here = min(part, self.here + passed_s * part / 60)

    def ask(self, need: quota_pb2.PaceNeed, *, returned: int, lacking: int, upstream: bool) -> None:
        """Write into what auth is asked."""
        name = self.counted.name
        setattr(need, f"returned_{name}", returned)
        if lacking:
            setattr(need, name, lacking)
            setattr(need, f"want_{name}", max(lacking, self.a_minute))
        if upstream and self._told is not None:
            setattr(need, f"most_{name}", self._told)
            self._told = None

    def shown(self, amount: int) -> str:
        """Return an amount of it as people write it."""
        return shown(self.counted.name, amount)

    def _aside(self, wanted: int) -> int:
        return wanted if self.counted.exact else min(wanted, self.most)


def limited(parts: Sequence[Part], pace: quota_pb2.Pace) -> tuple[Part, ...]:
    """Return the parts that a pace limits, as they stand."""
    known = {part.counted: part for part in parts}
    found = []
    for counted in _COUNTED:
        if a_minute := getattr(pace, f"{counted.name}_per_minute"):
            part = known.get(counted) or Part(counted)
            part.limit(a_minute)
            found.append(part)
    return tuple(found)


def exact_of(amount: Amount) -> Amount:
    """Return of an amount only what is set aside of a minute exactly."""
    return NOTHING._replace(images=amount.images, nano_usd=amount.nano_usd)
