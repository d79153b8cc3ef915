"""A pool: the blocks of quota that one key has on one replica of auth, and how much of it is held ahead."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final, NamedTuple
from uuid import UUID

from services.auth.domain.accounts import VerifiedKey
from services.quota_client.amounts import HELPING, NOTHING, Amount, Period

IDLE_S: Final = 5.0
"""A pool that nobody cut from for so long goes back."""
_SHARE: Final = 8
_MOST_STEP: Final = 8
"""How many times as much is held ahead as before, at most, when that goes fast."""
_MOST: Final = HELPING * 2


class Lease(NamedTuple):
    """What was leased, and for how long from now."""

    lease_id: str
    amount: Amount
    expires_in_s: float


@dataclass(slots=True)
class Cut:
    """A lease that was cut of a block."""

    lease_id: str
    amount: Amount
    alive_until: float


@dataclass(slots=True)
class Block:
    """Quota that this replica has borrowed from the ledger, for a while."""

    id: UUID
    day: date
    free: Amount
    expires: float
    cuts: dict[int, Cut] = field(default_factory=dict)
    number: int = 0


@dataclass(slots=True)
class Pool:
    """Blocks of one key and lane."""

    blocks: list[Block] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    demand: Amount = field(default_factory=Amount)
    filled_at: float = float("-inf")
    used_at: float = 0.0
    named_at: float = float("-inf")
    """When a router last said that it uses the key."""
    named: VerifiedKey | None = None
    """The key as it was then, bound as what is lent of this pool."""
    poor_until: float = 0.0
    limits: tuple[tuple[str, Mapping[Period, Amount]], ...] = ()
    """Those under which its blocks were borrowed."""
    filling: asyncio.Task[None] | None = None
    bound_by: frozenset[str] = frozenset()
    """Whose quota it is, beside the key's: its account's, its team's, and that of the budgets of its lane."""

    @property
    def free(self) -> Amount:
        """What is borrowed and not leased."""
        return sum((block.free for block in self.blocks), NOTHING)

    def grown_demand(self, want: Amount, now: float, outage_s: float) -> Amount:
        """Return how much to hold, so that the half at which it is filled up again lasts for `outage_s`."""
        last, lasted_s = self.demand, now - self.filled_at
        if lasted_s < outage_s:
            # By twos, a key that was used for as long as an outage lasts would have a quarter of one ahead.
            last *= max(2, min(_MOST_STEP, math.ceil(outage_s / max(lasted_s, 0.001))))
        elif lasted_s > outage_s * 4:
            last //= 2
        return last.at_least(want * 2).at_most(_MOST).at_least(want)

    def goal(self, who: VerifiedKey, demand: Amount) -> Amount:
        """Return how much may be held of what the day has left: whatever the demand, an eighth of it, once."""
        return demand.at_most((who.free + self.free) // _SHARE)

    def best(self, day: date, need: Amount, want: Amount, until: float) -> tuple[Block, Amount] | None:
        """Return the block of a day that has most of what is wanted, and how much of it; None: none has what is needed.

        Of what is not needed it is half of what a block has: halves of a nearly empty one are spent at once.

        Args:
            until: Until when it must last.
        """
        best, amount = None, NOTHING
        for block in self.blocks:
            if block.day != day or block.expires < until or not block.free.covers(need):
                continue
            extra = (want - need).at_least(NOTHING).at_most((block.free - need) // 2)
            if need + extra > amount:
                best, amount = block, need + extra
        return None if best is None else (best, amount)

    def unneeded(self, lane: tuple[str, ...], now: float) -> Sequence[Block]:
        """Return the blocks of a pool that nobody cuts from which nobody needs, either.

        A router that has what it needs for a while asks no replica; what a key in use may hold ahead stays.
        """
        if self.named is None or now - self.named_at > IDLE_S:
            return self.blocks
        who = self.named.asking("", "", (), lane)
        if who.limits != self.limits or who.lane != lane:
            return self.blocks
        kept, goal, over = NOTHING, self.goal(who, self.demand), []
        for block in sorted(self.blocks, key=lambda one: one.free):
            if block.day == who.day and goal.covers(kept + block.free):
                kept += block.free
            else:
                over.append(block)
        return over
