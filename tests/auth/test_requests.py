"""Requests are counted over days, months and in all, beside what they use."""

from __future__ import annotations

import pytest

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.auth.adapters.checker import Checker
from services.auth.domain.accounts import KeyLimits
from services.common.errors import QuotaExhausted
from services.quota_client.amounts import EACH_REQUEST, NOTHING, Amount, ReservationId
from tests.auth.asking import reserve, settle, until
from tests.auth.client import Client
from tests.auth.conftest import Admit, Auth
from tests.auth.test_money import limited


async def test_requests_that_were_answered_are_counted(client: Client, root: str, auth: Auth, admit: Admit) -> None:
    """Of three requests a month one that came to nothing is none; the fourth is refused, with the limit's name."""
    before = (await Checker(auth.url).check(whole=True)).totals["requests"]["spent"]
    account, _, key = await auth.account(tokens=1000)
    await client.admin.UpdateAccount(limited(account, requests_a_month=3), metadata=client.sent(root))
    admission = await admit(auth)
    (await reserve(admission, key, 10)).release()
    voided = await reserve(admission, key, 10)
    voided.void()
    for _ in range(2):
        settle(await reserve(admission, key, 10), 10)
    running = await reserve(admission, key, 10)
    with pytest.raises(QuotaExhausted, match="the account's limit of 3 requests a month does not cover this request"):
        await reserve(admission, key, 10)
    running.release()
    settle(await reserve(admission, key, 10), 10)
    with pytest.raises(QuotaExhausted, match="3 requests a month"):
        await reserve(admission, key, 10)
    await until(lambda: auth.spent(account) == (30, 0))
    found = await Checker(auth.url).check(whole=True)
    assert (found.faults, found.totals["requests"]["spent"] - before) == ({}, 3)


async def test_a_key_has_requests_of_its_own(auth: Auth, admit: Admit) -> None:
    """A further reservation of a request is no other request, and a picture that was left undone is had again."""
    account, _, _ = await auth.account(tokens=1000, images=4)
    _, key = await auth.key(account, limits=KeyLimits(requests_in_total=2))
    admission = await admit(auth)
    first = await reserve(admission, key, 10)
    assert await first.extend(Amount(tokens=20), least=Amount(tokens=20)) == Amount(tokens=20)
    settle(first, 25)
    both = await reserve(admission, key, 0, images=2)
    with pytest.raises(QuotaExhausted, match="limit of 2 requests in all"):
        await reserve(admission, key, 0, images=1)
    both.settle(usage=usage_pb2.Usage(images=1), provider="p", model="m")
    with pytest.raises(QuotaExhausted, match="2 requests in all"):
        await reserve(admission, key, 0, images=1)
    await until(lambda: auth.spent(account) == (25, 1))


async def test_the_release_before_reads_an_id_with_requests(auth: Auth, admit: Admit) -> None:
    """They stand behind the number, which any release takes as it is; what follows is as it was."""
    _, _, key = await auth.account(tokens=1000)
    reservation = await reserve(await admit(auth), key, 300)
    lease, number, *counts = reservation.reservation_id.split(".")
    assert (len(lease), number, counts) == (48, "1-1", ["300", "0", "0"])
    assert ReservationId.parse(reservation.reservation_id) == (lease, "1", Amount(tokens=300, requests=1))
    assert str(ReservationId.parse(reservation.reservation_id)) == reservation.reservation_id
    assert ReservationId.parse(f"{lease}.1.300.0.0") == (lease, "1", Amount(tokens=300))
    assert NOTHING.of_request() == EACH_REQUEST
    for bad in (f"{lease}.1-.300.0.0", f"{lease}.1-1-1.300.0.0", f"{lease}.1-x.300.0.0", lease, ""):
        assert ReservationId.parse(bad) is None


def test_an_auth_that_counts_no_requests_bounds_none() -> None:
    """Its leases lack the dimension, where those of one that counts tell of none left: routers start before it."""
    before = quota_pb2.Amount(tokens=300)
    assert Amount.read_lease(before).covers(Amount(tokens=300, requests=100))
    spent = Amount(tokens=300).message()
    assert Amount.read_lease(spent) == Amount.read(spent) == Amount(tokens=300)
