"""Which beginnings of prompts the slots still hold, so that a conversation's next turn reads only what is new.

Only what was read as a prompt counts, in whole chunks: the cached values of a token may differ in the last bits by
what was computed beside it, and an answer must not depend on what was asked before it. What one account asked serves no
other: the time to the first token would tell of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

WORTH_COPYING = 32
"""Tokens beyond what a free slot holds from which copying another slot's beginning pays."""


@dataclass(slots=True)
class _CachedPrefix:
    tenant: str = ""
    tokens: list[int] = field(default_factory=list)
    used: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """A slot for a prompt, and how much of it need not be read."""

    slot: int
    source: int
    """The slot whose beginning is taken; `slot` itself as a rule."""
    tokens: int


class Prefixes:
    """What each of `rows` slots holds of its prompt."""

    def __init__(self, rows: int) -> None:
        self._held = [_CachedPrefix() for _ in range(rows)]
        self._clock = itertools.count(1)

    def choose(self, tenant: str, prompt: list[int], free: Sequence[int]) -> Choice:
        """Choose one of the free slots for a prompt: the one that holds most of it, else what was unused for longest.

        A beginning that another slot holds is copied, when that slot is busy or would lose more than is gained.
        """
        shared = {slot: self._shared(slot, tenant, prompt) for slot in range(len(self._held))}
        best = max(shared, key=lambda slot: (shared[slot], slot in free))
        oldest = min(free, key=lambda slot: (len(self._held[slot].tokens) > 0, self._held[slot].used))
        gain = shared[best]
        if best in free and (best == oldest or 2 * gain >= len(self._held[best].tokens)):
            return Choice(best, best, gain)
        if gain - shared[oldest] >= WORTH_COPYING:
            return Choice(oldest, best, gain)
        return Choice(oldest, oldest, shared[oldest])

    def set(self, slot: int, tenant: str, tokens: list[int]) -> None:
        """Note what a slot holds."""
        self._held[slot] = _CachedPrefix(tenant, tokens, next(self._clock))

    def clear(self) -> None:
        """Forget all of it."""
        self._held = [_CachedPrefix() for _ in self._held]

    def _shared(self, slot: int, tenant: str, prompt: list[int]) -> int:
        held = self._held[slot]
        return shared(held.tokens, prompt) if held.tenant == tenant else 0


def shared(one: list[int], other: list[int]) -> int:
    """Return how many first tokens two sequences share."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return next(at for at in range(most) if one[at] != other[at])
