"""Byte admission of large requests: bounded by process and account, waited for in turn."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.byte_admission import Bounds, ByteAdmission
from services.common.errors import RateLimited, Unavailable
from tests.laws import tries

BOUNDS = Bounds(served=100, served_of_account=60, waiting=200, waiting_of_account=100)


class Visit:
    """A request in a room, which leaves when it is told to."""

    def __init__(self, admission: ByteAdmission, account: str, size: int, served: list[str] | None = None) -> None:
        self.account = account
        self.size = size
        self.inside = False
        self.leave = asyncio.Event()
        self._served = served
        self.task = asyncio.create_task(self._run(admission))

    async def _run(self, admission: ByteAdmission) -> None:
        async with admission.entered(self.account, self.size):
            self.inside = True
            if self._served is not None:
                self._served.append(self.account)
            try:
                await self.leave.wait()
            finally:
                self.inside = False


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def end(*visits: Visit) -> None:
    for visit in visits:
        visit.task.cancel()
    await asyncio.gather(*(visit.task for visit in visits), return_exceptions=True)


async def test_what_finds_no_room_waits_until_something_leaves() -> None:
    """Neither the process's bound nor the account's is passed."""
    admission = ByteAdmission(BOUNDS)
    first, second, third = (Visit(admission, "a", 40), Visit(admission, "a", 40), Visit(admission, "b", 60))
    await settle()
    assert [first.inside, second.inside, third.inside] == [True, False, True]
    assert (admission.served_bytes, admission.waiting_bytes) == (100, 40)
    third.leave.set()
    await settle()
    assert not second.inside  # its account's bound, not the process's
    first.leave.set()
    await settle()
    assert second.inside
    await end(second)
    assert (admission.served_bytes, admission.waiting_bytes) == (0, 0)


async def test_one_larger_than_the_bounds_is_served_alone() -> None:
    """Whatever the edge lets in is served at some time."""
    admission = ByteAdmission(BOUNDS)
    small, large = Visit(admission, "a", 10), Visit(admission, "b", 150)
    await settle()
    assert [small.inside, large.inside] == [True, False]
    small.leave.set()
    await settle()
    assert large.inside
    await end(large)


async def test_accounts_have_turns_whoever_asks_more() -> None:
    """Two accounts that came later are served after one request of the first, not after all of them."""
    admission = ByteAdmission(Bounds(served=10, served_of_account=10))
    served: list[str] = []
    visits = [Visit(admission, account, 10, served) for account in "aaaaabc"]
    await settle()
    for visit in visits:
        visit.leave.set()
    await asyncio.gather(*(visit.task for visit in visits))
    assert "".join(served) == "aabcaaa"


async def test_a_large_one_is_not_passed_by_small_ones() -> None:
    """Whose turn it is keeps the process's room for itself, also from those who come later and would fit."""
    admission = ByteAdmission(BOUNDS)
    held, large, small = Visit(admission, "a", 60), Visit(admission, "b", 60), Visit(admission, "c", 10)
    await settle()
    assert [held.inside, large.inside, small.inside] == [True, False, False]
    held.leave.set()
    await settle()
    assert [large.inside, small.inside] == [True, True]
    await end(large, small)


async def test_who_waits_for_its_own_account_keeps_nobody() -> None:
    """Another account's request is served although one that came before it waits."""
    admission = ByteAdmission(BOUNDS)
    held, own, other = Visit(admission, "a", 60), Visit(admission, "a", 10), Visit(admission, "b", 10)
    await settle()
    assert [held.inside, own.inside, other.inside] == [True, False, True]
    await end(held, own, other)


async def test_beyond_what_may_wait_is_refused_at_once() -> None:
    """The account that has too much waiting is told so, and others that the gateway has."""
    admission = ByteAdmission(BOUNDS)
    visits = [Visit(admission, account, 60) for account in "aa"]
    await settle()
    with pytest.raises(RateLimited) as told:
        async with admission.entered("a", 60):
            pass
    assert told.value.retry_after_s
    visits += [Visit(admission, account, 60) for account in "bc"]
    await settle()
    assert admission.waiting_bytes == 180
    with pytest.raises(Unavailable) as busy:
        async with admission.entered("d", 60):
            pass
    assert busy.value.retry_after_s
    await end(*visits)
    assert (admission.served_bytes, admission.waiting_bytes) == (0, 0)


async def test_a_wait_ends() -> None:
    """Whoever found no room in time is told so, and is not counted any more."""
    admission = ByteAdmission(Bounds(served=10, served_of_account=10, wait_s=0.01))
    holder = Visit(admission, "a", 10)
    await settle()
    with pytest.raises(Unavailable):
        async with admission.entered("b", 10):
            pass
    assert (admission.served_bytes, admission.waiting_bytes) == (10, 0)
    await end(holder)


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.sampled_from("abc"), st.integers(1, 120)),
        st.tuples(st.sampled_from(["leave", "give up"]), st.just(""), st.integers(0, 30)),
    ),
    max_size=40,
)


@settings(max_examples=tries(30), deadline=None)
@given(acts=ACTS)
def test_the_bounds_hold_whatever_comes_and_goes(acts: list[tuple[str, str, int]]) -> None:
    """And nothing is left of what has gone."""

    async def played() -> None:
        admission = ByteAdmission(BOUNDS)
        visits: list[Visit] = []
        for what, account, number in acts:
            if what == "come":
                visits.append(Visit(admission, account, number))
            elif visits:
                visit = visits[number % len(visits)]
                visit.leave.set() if what == "leave" else visit.task.cancel()
            await settle()
            _check(admission, visits)
        for visit in visits:
            visit.leave.set()
        await asyncio.gather(*(visit.task for visit in visits), return_exceptions=True)
        assert (admission.served_bytes, admission.waiting_bytes) == (0, 0)

    asyncio.run(played())


def _check(admission: ByteAdmission, visits: list[Any]) -> None:
    inside = [visit for visit in visits if visit.inside]
    assert admission.served_bytes == sum(visit.size for visit in inside)
    assert admission.served_bytes <= BOUNDS.served or len(inside) == 1
    for account in "abc":
        own = [visit.size for visit in inside if visit.account == account]
        assert sum(own) <= BOUNDS.served_of_account or len(own) == 1
    assert admission.waiting_bytes <= BOUNDS.waiting


async def test_room_that_is_booked_is_the_requests_once_it_comes() -> None:
    """Its account's, by its name, once; another request of that name waits in turn."""
    admission = ByteAdmission(BOUNDS)
    await admission.book("a", 40, "r")
    assert (admission.served_bytes, admission.waiting_bytes) == (40, 0)
    async with admission.entered("b", 10, "r"), admission.entered("a", 41, "r"):
        assert admission.served_bytes == 50
        again = asyncio.create_task(admission.book("a", 40, "r"))
        await settle()
        assert (admission.unsent, admission.waiting_bytes) == (1, 0)
    await again
    await admission.book("a", 10, "r")
    assert admission.served_bytes == 10, "the first one's is given back"


async def test_room_that_is_booked_lapses() -> None:
    """A request that is long in being sent keeps nobody from the room."""
    admission = ByteAdmission(replace(BOUNDS, booked_s=0))
    await admission.book("a", 60, "r")
    async with admission.entered("a", 60):
        assert admission.served_bytes == 60


async def test_after_one_did_not_come_room_lapses_sooner() -> None:
    """For a time: many who promise requests and send none delay others by little more than the first of them."""
    admission = ByteAdmission(replace(BOUNDS, booked_s=0))
    await admission.book("a", 60, "gone")
    async with admission.entered("a", 60):
        pass
    admission.bounds = replace(BOUNDS, booked_s=1000, hurried_s=0)
    async with asyncio.timeout(30):
        await asyncio.gather(*(admission.book("a", 60, str(number)) for number in range(9)))
        admission.bounds = replace(admission.bounds, hurry_s=-1)
        await admission.book("a", 60, "gone")
        async with admission.entered("a", 60):
            pass
    await admission.book("a", 60, "r")
    await settle()
    assert admission.served_bytes == 60, "the last that did not come is a while ago"


async def test_only_so_many_of_an_account_wait_to_be_sent() -> None:
    """They take no room of what waits, whose bound is another; whoever leaves is waited for no more."""
    admission = ByteAdmission(replace(BOUNDS, unsent_of_account=2))
    async with admission.entered("a", 60):
        waiting = [asyncio.create_task(admission.book("a", 60, str(number))) for number in range(2)]
        await settle()
        with pytest.raises(RateLimited):
            await admission.book("a", 60, "r")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert admission.unsent == 0
    assert admission.served_bytes == 0
