"""Priorities: the words by which they are stored and sent, from the lowest to the highest."""

from __future__ import annotations

from typing import Final

from moa.quota.v1 import quota_pb2

NORMAL: Final = "normal"
"""Everybody's who was given no other."""
NAMES: Final = {
    quota_pb2.PRIORITY_LOW: "low",
    quota_pb2.PRIORITY_NORMAL: NORMAL,
    quota_pb2.PRIORITY_HIGH: "high",
}
NUMBERS: Final = {name: number for number, name in NAMES.items()}


def lower(one: str, other: str | None) -> str:
    """Return the lower of two priorities; None lowers nothing."""
    return one if other is None else min(one, other, key=NUMBERS.__getitem__)
