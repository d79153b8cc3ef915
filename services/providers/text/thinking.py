"""How many of an answer's tokens may be spent on reasoning: it comes out of the same bound as the answer."""

from __future__ import annotations

from typing import Final

_ANSWERS_SHARE: Final = 4
"""One part of so many is kept for the answer."""


def largest_budget(most: int) -> int:
    """Return the largest budget of reasoning that leaves room for an answer within `most` tokens of both."""
    return most - most // _ANSWERS_SHARE
