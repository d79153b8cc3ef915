"""What others hold of limits and may not use: who is refused for its sake need not wait until these begin anew."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import NamedTuple

from services.auth.domain.accounts import Short, Standing
from services.quota_client.amounts import NOTHING, PERIODS, Amount, Period


class Held(NamedTuple):
    """What an open block holds, and has neither spent nor returned."""

    subjects: frozenset[str]
    """What it counts on."""
    day: date
    back_in_s: float
    """When what is not used of it is free again, at the latest."""
    amount: Amount


def short_of(day: date, standings: Sequence[Standing], need: Amount, held: Iterable[Held]) -> Short | None:
    """Return the limit that a need exceeds, None for none: one that never covers it, before one that is used up, before
    one of which too much is held."""
    if (never := next(filter(None, (one.never(need) for one in standings)), None)) is not None:
        return never
    by_time = sorted(held, key=lambda one: one.back_in_s)

    def short(count: int) -> Short | None:
        freed = _by_subject(by_time[:count], day)
        return next(filter(None, (one.without(freed.get(one.subject, {})).short(need) for one in standings)), None)

    first, used_up = short(0), short(len(by_time))
    if first is None or used_up is not None:
        return used_up
    last = bisect_left(range(len(by_time)), True, key=lambda count: short(count + 1) is None)
    return first._replace(back_in_s=by_time[last].back_in_s)


def _by_subject(held: Iterable[Held], day: date) -> Mapping[str, Mapping[Period, Amount]]:
    sums: dict[str, dict[Period, Amount]] = defaultdict(lambda: defaultdict(lambda: NOTHING))
    for one in held:
        for period in PERIODS:
            if period.began(one.day) == period.began(day):
                for subject in one.subjects:
                    sums[subject][period] += one.amount
    return sums
