"""Recalls: who is refused for what living holders have idle has it called back, and waits for it a moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Final, TypeVar

from services.auth.domain.accounts import Owner, Short, VerifiedKey
from services.quota_client.amounts import GRANTED, limit_of

T = TypeVar("T")

PAUSES_S: Final = (0.25, 0.25, 0.4, 0.6)
"""Between the tries of who waits. Holders ask every 0.4 s whether anything is wanted, and settle within half a second;
who waits is itself waited for 3 s at most."""
_LASTS_S: Final = 2.0
"""How long what is idle is wanted after that was said."""
_AGAIN_S: Final = 1.0
"""So soon it is not said again."""
_VAIN_S: Final = 5.0
"""So long nobody waits for what was waited for in vain: it is in use, or its holder is dead."""
_MANY: Final = 1000


class Recalls:
    """What is wanted back, as all replicas hear of it.

    Args:
        tell: Tells every replica, this one too, that what is idle of a subject's quota is wanted.
        pause: Waits for so many seconds.
    """

    def __init__(
        self,
        tell: Callable[[Collection[str]], Awaitable[None]],
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._pause = pause
        self._until: dict[str, float] = {}
        """Until when what is idle is wanted, by subject."""
        self._told: dict[str, float] = {}
        """Since when this replica told so, by subject."""
        self._vain: dict[tuple[str, tuple[str, ...]], float] = {}
        """Until when a key does not wait, in one lane."""

    def heard(self, subject: str) -> None:
        """Note that what is idle of a subject's quota is wanted."""
        self._until[subject] = self._clock() + _LASTS_S

    def wants(self, who: VerifiedKey) -> bool:
        """Return whether anything of what binds a key is wanted."""
        if not self._until:
            return False
        _forget(self._until, self._clock())
        return any(subject in self._until for subject in _bound_by(who))

    async def waited(
        self, who: VerifiedKey, short: Short, again: Callable[[], Awaitable[T | Short]], *, alone: bool
    ) -> T | Short:
        """Call back what keeps a request waiting, and return what trying again comes to, within moments.

        Where that was in vain a moment ago, or nothing can come back, it is refused at once. So is one that is not
        `alone`: many of a key would wait one behind the other.
        """
        found: T | Short = short
        lane = who.key_id, who.lane
        waits = alone and self._vain.get(lane, 0.0) <= self._clock()
        for pause_s in PAUSES_S:
            if not isinstance(found, Short) or not _may_come_back(found):
                return found
            await self._call_back(list(_whose(found, who)))
            if not waits:
                return found
            await self._pause(pause_s)
            found = await again()
            if isinstance(found, Short) and not _may_come_back(found):
                # What came back after the limit was read, and before what is held of it was, looks used up.
                found = await again()
        if isinstance(found, Short) and _may_come_back(found):
            _forget(self._vain, self._clock())
            self._vain[lane] = self._clock() + _VAIN_S
        return found

    async def _call_back(self, subjects: Collection[str]) -> None:
        now = self._clock()
        fresh = [subject for subject in subjects if now - self._told.get(subject, float("-inf")) >= _AGAIN_S]
        if fresh:
            _forget(self._told, now - _AGAIN_S)
            self._told |= dict.fromkeys(fresh, now)
            await self._tell(fresh)


def _bound_by(who: VerifiedKey) -> Iterator[str]:
    """Yield whose quota a key's may be: that of all its budgets, too."""
    yield who.account_id
    if who.team_id:
        yield who.team_id
    for budget in who.budgets:
        yield budget.id


def _whose(short: Short, who: VerifiedKey) -> Iterator[str]:
    """Yield whose quota is short; blocks of a key and its maker are their account's."""
    if short.owner is Owner.TEAM:
        yield who.team_id
    elif short.owner is Owner.BUDGET:
        yield from who.lane
    else:
        yield who.account_id


def _may_come_back(short: Short) -> bool:
    """Return whether holders may have it idle. Credits never are: what is set aside is for tasks that were accepted."""
    return short.back_in_s is not None and limit_of(short.dimension, short.period) != GRANTED


def _forget(times: dict[str, float] | dict[tuple[str, tuple[str, ...]], float], before: float) -> None:
    for name in [name for name, at in times.items() if at <= before]:
        del times[name]  # type: ignore[arg-type]
