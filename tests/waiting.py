"""Pauses between two looks at what nothing announces: short at first, then longer, since each look costs a request."""

from __future__ import annotations

from collections.abc import Iterator

_FIRST_S, _QUICK, _GROWTH, _MOST_S = 0.02, 25, 1.2, 0.25


def pauses() -> Iterator[float]:
    """Yield seconds without end: half a second in all at first, then up to a quarter of a second each."""
    pause_s = _FIRST_S
    for number in range(10**9):
        yield pause_s
        if number >= _QUICK:
            pause_s = min(_MOST_S, pause_s * _GROWTH)
