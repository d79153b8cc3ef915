"""Amounts together."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from services.quota_client.amounts import DIMENSIONS, NOTHING, Amount, covered_by

AMOUNTS = st.builds(Amount, *[st.integers(min_value=0, max_value=9)] * len(DIMENSIONS))


@given(needed=AMOUNTS, amounts=st.lists(AMOUNTS, max_size=5))
def test_amounts_cover_what_their_sum_covers(needed: Amount, amounts: list[Amount]) -> None:
    """In every dimension, and no more of them are taken than that needs."""
    taken: list[Amount] = []

    def each() -> Iterator[Amount]:
        for amount in amounts:
            taken.append(amount)
            yield amount

    covers = covered_by(needed, each())
    assert covers == sum(amounts, NOTHING).covers(needed)
    assert not sum(taken[:-2], NOTHING).covers(needed) or len(taken) <= 1
