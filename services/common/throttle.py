"""A brake on guessing: so many tries in a while, by whatever names the one who tries."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from services.common.errors import RateLimited

_REMEMBERED = 100_000


class Throttle:
    """Allows `tries` at once for each name, and again one every `every_s` seconds.

    Each replica counts for itself.
    """

    def __init__(self, *, tries: int, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._tries = tries
        self._every_s = every_s
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """When each name has all its tries again; names that have them now may be missing."""

    def check(self, name: str) -> None:
        """Count a try. Raises RateLimited with the time until the next."""
        now = self._clock()
        full_at = max(self._full_at.get(name, 0.0), now) + self._every_s
        wait_s = full_at - now - self._tries * self._every_s
        if wait_s > 1e-9:
            raise RateLimited("too many wrong tries; wait as long as Retry-After says", retry_after_s=wait_s)
        self._full_at[name] = full_at
        self._full_at.move_to_end(name)
        while len(self._full_at) > _REMEMBERED:
            self._full_at.popitem(last=False)

    def forgive(self, name: str) -> None:
        """Give a name all its tries back."""
        self._full_at.pop(name, None)
