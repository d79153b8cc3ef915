"""Whoever looks again and again looks together with the others."""

from __future__ import annotations

import pytest

from services.common.beats import until_beat_s


@pytest.mark.parametrize("every_s", [0.01, 2.0, 5.0, 20.0])
def test_all_look_at_the_same_moments(every_s: float) -> None:
    """Whenever they began, what is waited for is a multiple of the pause, at least a half of it away."""
    for now in (0.0, 1e-9, 0.4 * every_s, 0.5 * every_s, 0.999999 * every_s, 7 * every_s, 12345.678):
        wait_s = until_beat_s(every_s, lambda now=now: now)  # type: ignore[misc]
        assert every_s / 2 <= wait_s <= 1.5 * every_s
        beats = (now + wait_s) / every_s
        assert beats == pytest.approx(round(beats), abs=1e-6)
