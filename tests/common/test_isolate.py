"""Rows that work fails on keep no other row back, and are tried again later."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from services.common.errors import Unavailable
from services.common.isolate import Isolation, OneFailed, each_isolated


@given(st.lists(st.booleans(), max_size=40))
async def test_each_row_is_done_once_but_those_that_fail(bad: list[bool]) -> None:
    """Whichever rows fail, every other is done exactly once, and the failing ones are named."""
    done: list[int] = []

    async def work(rows: Sequence[int]) -> None:
        if any(bad[row] for row in rows):
            raise ValueError
        done.extend(rows)

    _, failed = await each_isolated(range(len(bad)), work)
    assert sorted(done) == [row for row, fails in enumerate(bad) if not fails]
    assert sorted(row for row, _ in failed) == [row for row, fails in enumerate(bad) if fails]


async def test_one_call_where_nothing_fails() -> None:
    """Rows that can all be done cost one call."""
    calls: list[int] = []

    async def work(rows: Sequence[int]) -> None:
        calls.append(len(rows))

    await each_isolated(range(100), work)
    await each_isolated([], work)
    assert calls == [100]


async def test_what_concerns_all_rows_ends_the_work() -> None:
    """A database that is away is no row's fault; one statement that it refuses is."""

    async def away(rows: Sequence[int]) -> None:
        raise Unavailable("away")

    async def refused(rows: Sequence[int]) -> None:
        if 1 in rows:
            raise OneFailed("a lock")

    with pytest.raises(Unavailable):
        await each_isolated([0, 1, 2], away)
    _, failed = await each_isolated([0, 1, 2], refused)
    assert [row for row, _ in failed] == [1]


async def test_a_row_rests_twice_as_long_after_each_failure() -> None:
    """A failing row is tried again later, less and less often, counted meanwhile, and forgotten once it is done."""
    now, tried, well = [0.0], [], False
    apart: Isolation[str] = Isolation("a test", first_s=5, longest_s=20, clock=lambda: now[0])

    async def work(rows: Sequence[str]) -> None:
        tried.append(now[0])
        if not well:
            raise ValueError

    for second in range(60):
        now[0] = float(second)
        await apart.do(["row"], work)
    assert tried == [0.0, 5.0, 15.0, 35.0, 55.0]
    labels = {"duty": "a test"}
    assert REGISTRY.get_sample_value("moa_rows_failed_total", labels) == 5
    assert REGISTRY.get_sample_value("moa_rows_failing", labels) == 1
    now[0], well = 75.0, True
    await apart.do(["row"], work)
    assert REGISTRY.get_sample_value("moa_rows_failing", labels) == 0
    assert apart.resting() == []
