"""How long keys work, as callers write it."""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration

from services.common.errors import InvalidField

_TEN_YEARS_S: Final = 10 * 366 * 86_400
_LONGEST_OVERLAP_S: Final = 30 * 86_400


def read_overlap(given: Duration) -> float:
    """Read for how long a key that was replaced works on. Raises InvalidField."""
    overlap_s = given.ToMilliseconds() / 1000
    if not 0 <= overlap_s <= _LONGEST_OVERLAP_S:
        raise InvalidField("both keys work for at most 30 days", param="overlap")
    return overlap_s


def read_lifetime(given: Duration) -> float:
    """Read for how long a key works. Raises InvalidField."""
    lifetime_s = given.ToMilliseconds() / 1000
    if not 0 < lifetime_s <= _TEN_YEARS_S:
        raise InvalidField("a key's lifetime must be longer than 0 and at most ten years", param="expires_in")
    return lifetime_s
