"""What a quota and a pace allow, what they refuse, and what a refusal says."""

from __future__ import annotations

import time
from functools import partial

import pytest

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.auth.domain.accounts import KeyLimits
from services.common.errors import QuotaExhausted, RateLimited, Unauthenticated
from services.common.rpc import call as calls
from services.common.throttle import Throttle
from services.quota_client import _lease_stores
from tests.auth.asking import reserve, settle, until
from tests.auth.conftest import Admit, Auth

IMAGE = quota_pb2.OPERATION_IMAGE


async def test_an_exhausted_quota_says_when_it_begins_anew(auth: Auth, admit: Admit) -> None:
    """A request that does not fit is refused with the time to midnight, and what is left can still be used."""
    account, _, key = await auth.account(tokens=1000, images=2)
    _, midnight = await auth.quota_day(account)
    admission = await admit(auth)
    settle(await reserve(admission, key, 900), 900)
    await until(lambda: auth.spent(account) == (900, 0))  # what is settled but not booked yet counts as held
    for _ in range(3):
        most = midnight.timestamp() - time.time()
        with pytest.raises(QuotaExhausted) as refusal:
            await reserve(admission, key, 101)
    least = midnight.timestamp() - time.time()
    assert refusal.value.retry_after_s is not None
    assert least - 1 <= refusal.value.retry_after_s <= most + 1
    settle(await reserve(admission, key, 100), 100)
    with pytest.raises(QuotaExhausted):
        await reserve(admission, key, 1)
    both = await reserve(admission, key, 0, images=2, operation=IMAGE)
    with pytest.raises(QuotaExhausted, match="image"):
        await reserve(admission, key, 0, images=1, operation=IMAGE)
    both.settle(usage=usage_pb2.Usage(images=1), provider="local-image", model="m")
    await reserve(admission, key, 0, images=1, operation=IMAGE)
    await until(lambda: auth.spent(account) == (1000, 1))


async def test_a_large_wish_is_cut_to_what_is_left(auth: Auth, admit: Admit) -> None:
    """With a minimum, the reservation is what is left; below the minimum it is refused."""
    _, _, key = await auth.account(tokens=1000)
    admission = await admit(auth)
    first = await reserve(admission, key, 700, min_tokens=50)
    assert first.tokens == 700
    second = await reserve(admission, key, 5000, min_tokens=50)
    assert second.tokens == 300
    with pytest.raises(QuotaExhausted):
        await reserve(admission, key, 5000, min_tokens=50)
    first.release()
    assert (await reserve(admission, key, 5000, min_tokens=50)).tokens == 700


async def test_a_key_has_limits_of_its_own(auth: Auth, admit: Admit) -> None:
    """A key's own limit binds before the account's does."""
    account, _, wide = await auth.account(tokens=10_000)
    _, narrow = await auth.key(account, limits=KeyLimits(tokens_a_day=500))
    admission = await admit(auth)
    settle(await reserve(admission, narrow, 500), 500)
    with pytest.raises(QuotaExhausted):
        await reserve(admission, narrow, 1)
    assert (await admission.identify(narrow)).remaining().limit_tokens == 500
    settle(await reserve(admission, wide, 9_500), 9_500)
    with pytest.raises(QuotaExhausted):
        await reserve(admission, wide, 1)
    await until(lambda: auth.spent(account) == (10_000, 0))


async def test_a_service_account_has_no_limit(auth: Auth, admit: Admit) -> None:
    """An unlimited account is never refused, and its usage is booked all the same."""
    account, _, key = await auth.account()
    auth.query("update accounts set unlimited = true where id = %s returning 1", account)
    admission = await admit(auth)
    reservation = await reserve(admission, key, 50_000_000)
    settle(reservation, 40_000_000)
    assert reservation.verified_key.remaining().unlimited
    await until(lambda: auth.spent(account) == (40_000_000, 0))


async def test_pace_limits_hold(auth: Auth, admit: Admit) -> None:
    """Requests beyond the concurrency or the rate are RateLimited, with a time to wait."""
    account, _, key = await auth.account()
    auth.query("update accounts set concurrent_requests = 2, requests_a_minute = 5 where id = %s returning 1", account)
    admission = await admit(auth)
    began, let_through = time.monotonic(), 5
    running = [await reserve(admission, key, 10) for _ in range(2)]
    with pytest.raises(RateLimited, match="at once"):
        await reserve(admission, key, 10)
    for reservation in running:
        reservation.release()
    for _ in range(3):
        (await reserve(admission, key, 10)).release()

    async def more() -> None:
        nonlocal let_through
        while True:  # one comes back every twelve seconds
            (await reserve(admission, key, 10)).release()
            let_through += 1

    with pytest.raises(RateLimited, match="a minute") as refusal:
        await more()
    assert let_through <= 5 + (time.monotonic() - began) / 12 + 1
    assert refusal.value.retry_after_s is not None
    assert 0 < refusal.value.retry_after_s <= 12


async def test_guessing_keys_is_slowed_by_address(auth: Auth, admit: Admit, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that tries many wrong keys is told to wait; a right key from it works all the same."""
    # A slow machine would win tries back meanwhile.
    monkeypatch.setattr(_lease_stores, "Throttle", partial(Throttle, clock=lambda: 0.0))
    _, _, key = await auth.account()
    admission = await admit(auth)
    calls.begin("/test", "r", "203.0.113.7")
    answers = []
    for number in range(40):
        with pytest.raises((Unauthenticated, RateLimited)) as refusal:
            await admission.identify(f"moa-guess-{number}")
        answers.append(refusal.type)
    assert answers == [Unauthenticated] * 30 + [RateLimited] * 10
    assert (await admission.identify(key)).key_id


async def test_a_key_refused_at_its_first_request_is_told_what_is_left(auth: Auth, admit: Admit) -> None:
    """A 429 carries limit, rest and reset though nobody had seen the key before."""
    _, _, key = await auth.account(tokens=1000)
    admission = await admit(auth)
    with pytest.raises(QuotaExhausted) as refusal:
        await reserve(admission, key, 1001)
    told = dict(refusal.value.headers)
    assert told["x-ratelimit-limit-tokens"] == told["x-ratelimit-remaining-tokens"] == "1000"
    assert told["ratelimit"].startswith('"tokens";r=1000;t=')
    assert told["ratelimit-policy"].startswith('"tokens";q=1000;')
