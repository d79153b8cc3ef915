"""When an operator is told of what goes on for long."""

from __future__ import annotations

import time


class Reminder:
    """Says when something is to be told: at once, then once in a while.

    Args:
        again_s: How long it is kept back after it was told.
    """

    def __init__(self, *, again_s: float = 60.0) -> None:
        self._again_s = again_s
        self._told_at = float("-inf")

    def is_due(self) -> bool:
        """Return whether it is to be told now, which it then is."""
        now = time.monotonic()
        due = now - self._told_at >= self._again_s
        if due:
            self._told_at = now
        return due
