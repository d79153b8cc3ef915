"""Further reservations of a request that runs: what becomes of them with their first."""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.quota_client import Reservation, costless
from services.quota_client._lease_store import LeaseStore
from services.quota_client.amounts import DIMENSIONS, NOTHING, Amount, shared

AMOUNTS = st.builds(Amount, *[st.integers(0, 9)] * len(DIMENSIONS))


def held(tokens: int) -> tuple[LeaseStore, Mock]:
    """Return a store with a lease, whose requests are lent more from it; and who books."""
    grant = quota_pb2.Grant(account_id="a", key_id="k")
    grant.lease.lease_id = "lease"
    grant.lease.amount.tokens = tokens
    grant.lease.expires_in.seconds = 60
    grant.remaining.resets_at.FromSeconds(int(time.time()) + 3600)
    settling, paces = Mock(), Mock(of=lambda *_: ())

    async def lend(store: LeaseStore, running: Reservation, need: Amount, least: Amount) -> Reservation:
        return reserved(store, need.tokens)

    return LeaseStore(b"d", grant, time.monotonic(), settling, paces, Mock(), lend), settling


def reserved(store: LeaseStore, tokens: int) -> Reservation:
    """Reserve tokens."""
    now, amount = time.monotonic(), Amount(tokens)
    lease: Any = store.find(amount, now)
    return store.reserve(lease, amount, operation=quota_pb2.OPERATION_TEXT, request_id="r", cost=costless, now=now)


@pytest.mark.parametrize("off_s", [-600, 600])
def test_the_day_of_a_lease_ends_when_auth_says_by_whichever_clock(off_s: int) -> None:
    """A clock that is minutes off makes no lease end early, and none last longer than its day."""
    grant = quota_pb2.Grant(account_id="a", key_id="k")
    grant.lease.lease_id, grant.lease.amount.tokens = "lease", 10
    grant.lease.expires_in.seconds, grant.lease.day_ends_in.seconds = 600, 100
    grant.remaining.resets_at.FromSeconds(int(time.time()) + 100 + off_s)
    now = time.monotonic()
    store = LeaseStore(b"d", grant, now, Mock(), Mock(of=lambda *_: ()), Mock())
    assert store.find(Amount(1), now + 99) is not None
    assert store.find(Amount(1), now + 101) is None


async def test_they_go_on_with_the_request_under_another_id() -> None:
    """What was lent before an attempt was given up pays for the next; what comes for the old one is the new one's."""
    store, settling = held(100)
    first = reserved(store, 40)
    await first.extend(Amount(20), least=NOTHING)
    second = first.renewed()
    await first.extend(Amount(10), least=NOTHING)
    [voided] = [call.args[0] for call in settling.settled.call_args_list]
    assert (voided.reservation_id, list(voided.further)) == (first.reservation_id, [])
    assert (first.tokens, second.tokens, store.free().tokens) == (40, 70, 30)
    second.settle(usage=usage_pb2.Usage(completion_tokens=45), provider="p", model="m")
    booked = settling.settled.call_args.args[0]
    assert list(booked.further) == [one.reservation_id for one in second.further]
    assert settling.covered.call_args.args[0] == booked.further
    assert (store.free().tokens, dict(store.open)) == (55, {})


async def test_what_comes_after_the_end_goes_back() -> None:
    """A request that ends while more is being lent for it leaves nothing set aside."""
    store, settling = held(100)
    running = reserved(store, 40)
    running.settle(usage=usage_pb2.Usage(completion_tokens=40), provider="p", model="m")
    assert await running.extend(Amount(20), least=NOTHING) == NOTHING
    assert (running.tokens, store.free().tokens, dict(store.open)) == (40, 60, {})
    assert settling.released.call_count == 1


async def test_each_reports_its_own_part() -> None:
    """Should this process vanish each is charged what those before it do not cover; all that was consumed, once."""
    store, _ = held(100)
    running = reserved(store, 40)
    for _ in range(2):
        await running.extend(Amount(20), least=NOTHING)
    running.report(usage=usage_pb2.Usage(completion_tokens=50), provider="p", model="m")
    first, second, third = (one.report_of() for one in (running, *running.further))
    assert (first.charged.tokens, list(first.further)) == (50, [second.reservation_id, third.reservation_id])
    assert [(one.charged.tokens, one.HasField("usage"), list(one.further)) for one in (second, third)] == [
        (10, False, []),
        (0, False, []),
    ]


@given(st.lists(AMOUNTS, min_size=1, max_size=4), AMOUNTS.map(lambda amount: amount * 3))
def test_shares_sum_up_to_what_was_consumed(reserved: list[Amount], consumed: Amount) -> None:
    """Whatever was consumed is paid once; only the first pays more than was reserved of it, and only when all do."""
    shares = shared(consumed, reserved)
    assert sum(shares, NOTHING) == consumed
    over = (shares[0] - reserved[0]).at_least(NOTHING)
    assert all(amount.covers(share) for amount, share in zip(reserved[1:], shares[1:], strict=True))
    assert over == (consumed - sum(reserved, NOTHING)).at_least(NOTHING)
