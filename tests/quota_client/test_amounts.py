"""Amounts together."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from services.quota_client.amounts import DIMENSIONS, NOTHING, Amount, covered_by, limit_shown

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


def test_one_of_something_is_written_so() -> None:
    """`1 image`, and of everything else its plural; dollars have none."""
    limits = {"images_a_day": 1, "requests_a_month": 2, "tokens_in_total": 0, "nano_usd_a_day": 1_000_000_000}
    assert [limit_shown(name, limit) for name, limit in limits.items()] == [
        "1 image a day",
        "2 requests a month",
        "0 tokens in all",
        "$1.00 a day",
    ]
