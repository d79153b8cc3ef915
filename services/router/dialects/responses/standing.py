"""What a response says of what is stored, and how far an earlier making of it had come."""

from __future__ import annotations

import time
from typing import Final, NamedTuple, Self


class Standing(NamedTuple):
    """What a response says of what is stored."""

    store: bool = False
    previous_response_id: str | None = None
    background: bool = False
    conversation: dict[str, str] | None = None


UNSTORED: Final = Standing()
"""What one says that nobody stores, and that goes on from nothing."""


class Making(NamedTuple):
    """Under which ids and numbers a response is made.

    Args:
        answer_id: What its id is made of.
        item_id: What its items' ids are made of: of another making, others.
        created: When it was asked for, in seconds since 1970.
        first_sequence: The number of its first event.
    """

    answer_id: str
    item_id: str
    created: int
    first_sequence: int = 0

    @classmethod
    def first(cls, answer_id: str) -> Self:
        """Return the first making of a response that is asked for now."""
        return cls(answer_id, answer_id, int(time.time()))
