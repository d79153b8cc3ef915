"""Which failures may pass by themselves, and how long to wait before the next try."""

from __future__ import annotations

import random
from typing import Final

from moa.common.v1 import error_pb2
from services.common.errors import MoaError, passes

LONGEST_S: Final = 60.0
CALLERS_ATTEMPTS: Final = 2
"""How often a task is tried whose caller gave a link that does not answer: that is the caller's to mend."""
_LINKS: Final = frozenset((error_pb2.REASON_UPSTREAM_TIMEOUT, error_pb2.REASON_UPSTREAM_FAILED))


def is_worthwhile(error: MoaError, attempts: int, most: int) -> bool:
    """Return whether a task that failed like this after so many attempts is tried again."""
    if error.reason in _LINKS and error.param:
        # An upstream of ours is no field of the request.
        most = min(most, CALLERS_ATTEMPTS)
    return passes(error) and attempts < most


def pause_s(error: MoaError, attempts: int, first_s: float) -> float:
    """Return the pause before the next try: doubled each time, jittered, and never shorter than the error asks for."""
    doubled = min(LONGEST_S, first_s * (1 << min(attempts - 1, 16)))
    return max(error.retry_after_s or 0.0, doubled * random.uniform(0.75, 1.25))  # noqa: S311  # spreads load
