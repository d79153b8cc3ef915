"""When those look who look again and again while nobody calls: all at the same moments.

An idle process wakes up once for all that is due in it, and an idle machine once for all of its processes, whose
monotonic clock is one.
"""

from __future__ import annotations

import time
from collections.abc import Callable


def until_beat_s(every_s: float, clock: Callable[[], float] = time.monotonic) -> float:
    """Return the seconds until the next moment that everybody who looks every `every_s` has in common.

    Between a half and one and a half of them: a timer that ends a moment early would end again at once.
    """
    left_s = every_s - clock() % every_s
    return left_s if left_s >= every_s / 2 else left_s + every_s
