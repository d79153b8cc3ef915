"""Keys, permissions and daily limits, as the router meets them: the real auth service and the real PostgreSQL."""

from __future__ import annotations

import asyncio
import random
import time

import grpc
import pytest

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2, quota_service_pb2, quota_service_pb2_grpc
from services.common.errors import MoaError, PermissionDenied, QuotaExhausted, Unauthenticated
from services.common.rpc.client import metadata
from services.quota_client import Admission
from services.quota_client.amounts import Amount
from tests.auth.asking import TOKEN, refused, reserve, settle, until
from tests.auth.conftest import Admit, Auth, Start

TEXT, IMAGE = quota_pb2.OPERATION_TEXT, quota_pb2.OPERATION_IMAGE


async def test_what_a_request_consumed_is_in_the_ledger_once(auth: Auth, admit: Admit) -> None:
    """A settlement is booked with its usage, and a second settle or release changes nothing."""
    account, key_id, key = await auth.account()
    admission = await admit(auth)
    reservation = await reserve(admission, key, 300)
    assert (reservation.account_id, reservation.key_id, reservation.tokens) == (account, key_id, 300)
    settle(reservation, 120)
    settle(reservation, 200)
    reservation.release()
    await until(lambda: auth.spent(account) == (120, 0))
    rows = auth.query(
        "select tokens, prompt_tokens, completion_tokens, provider, model, request_id from ledger"
        " where account_id = %s and kind = 'settle'",
        account,
    )
    assert rows == [(120, 60, 60, "local-text", "m", "r")]


async def test_more_than_reserved_is_charged_as_far_as_the_day_has_room(auth: Auth, admit: Admit) -> None:
    """What a provider reports beyond the reservation is charged to what is left of the day; what that does not cover
    stands in the ledger as uncovered, and the next request is refused."""
    account, _, key = await auth.account(tokens=1000)
    admission = await admit(auth)
    settle(await reserve(admission, key, 100), 150)
    await until(lambda: auth.spent(account) == (150, 0))
    settle(await reserve(admission, key, 800), 2000)
    uncovered = "select uncovered_tokens from ledger where account_id = %s and kind = 'settle' order by id"
    await until(lambda: len(auth.query(uncovered, account)) == 2)
    # All that lay about idle counts, here and at auth.
    assert auth.query(uncovered, account) == [(0,), (1150,)]
    assert auth.spent(account) == (1000, 0)
    with pytest.raises(QuotaExhausted):
        await reserve(admission, key, 1)


async def test_what_a_call_that_was_left_comes_to_is_heard(auth: Auth, admit: Admit) -> None:
    """Of a deferred reservation the backend's word stands, and the router hears it: it may reserve the rest again.
    Where no word comes, what the router knows is booked."""
    account, _, key = await auth.account(tokens=1000)
    admission = await admit(auth, deferred_s=0.2)
    heard: list[int] = []

    def hear(usage: usage_pb2.Usage) -> None:
        heard.append(usage.prompt_tokens)

    left = await reserve(admission, key, 900)
    async with grpc.aio.insecure_channel(auth.address) as link:
        stub = quota_service_pb2_grpc.QuotaServiceStub(link)
        word = quota_pb2.Settlement(
            reservation_id=left.reservation_id,
            charged=quota_pb2.Amount(tokens=70),
            usage=usage_pb2.Usage(prompt_tokens=70),
        )
        await stub.Settle(quota_service_pb2.SettleRequest(settlements=[word]), metadata=metadata(TOKEN, "r"))
    # On a busy machine the word would come after the router's own.
    left.defer(usage=usage_pb2.Usage(), provider="p", model="m", then=hear)
    await until(lambda: heard == [70])
    assert left.charged.tokens == 70
    assert auth.spent(account) == (70, 0)
    silent = await reserve(admission, key, 900)
    silent.defer(usage=usage_pb2.Usage(prompt_tokens=30), provider="p", model="m", then=hear)
    await until(lambda: len(heard) == 2)
    assert auth.spent(account) == (100, 0)


async def test_a_settlement_sent_twice_is_booked_once(auth: Auth) -> None:
    """Settle is idempotent by reservation id, across calls and within one."""
    account, _, key = await auth.account()
    async with grpc.aio.insecure_channel(auth.address) as link:
        stub = quota_service_pb2_grpc.QuotaServiceStub(link)
        service = metadata(TOKEN, "r")
        need = quota_pb2.Amount(tokens=1000)
        granted = await stub.Admit(
            quota_service_pb2.AdmitRequest(api_key=key, holder="h", operation=TEXT, need=need, want=need),
            metadata=service,
        )
        one = quota_pb2.Settlement(
            reservation_id=f"{granted.grant.lease.lease_id}.1.500.0", charged=quota_pb2.Amount(tokens=400)
        )
        forged = quota_pb2.Settlement(reservation_id="A" * 48 + ".1.500.0", charged=quota_pb2.Amount(tokens=1))
        for _ in range(2):
            answer = await stub.Settle(
                quota_service_pb2.SettleRequest(settlements=[one, one, forged]), metadata=service
            )
            assert set(answer.booked) == {one.reservation_id}
            assert list(answer.refused) == [forged.reservation_id]
    assert auth.spent(account) == (400, 0)


@pytest.mark.parametrize("key", ["", "moa-unknown", "x" * 5000, "열쇠", "\ud800", "moa-\x00"])
async def test_a_key_that_is_none_is_refused(auth: Auth, admit: Admit, key: str) -> None:
    """No key, an unknown one, and nonsense are all Unauthenticated."""
    admission = await admit(auth)
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="send "):
            await reserve(admission, key)
        with pytest.raises(Unauthenticated, match="send "):
            await admission.identify(key)


async def test_an_expired_key_ends_in_use(auth: Auth, admit: Admit) -> None:
    """A key stops at its expiry, though it was warm."""
    account, _, _ = await auth.account()
    admission = await admit(auth)
    # Its second begins when the database makes it: after the first of these times, and before the other.
    asked = time.monotonic()
    _, key = await auth.key(account, expires_in_s=1.0)
    made = time.monotonic()
    let_through = await refused(admission, key)
    assert time.monotonic() - asked > 0.9
    assert let_through - made < 3.1


@pytest.mark.parametrize("act", ["revoke", "disable"])
async def test_a_revoked_key_ends_everywhere_within_two_seconds(start: Start, admit: Admit, act: str) -> None:
    """Routers on different replicas refuse a warm key within 2 s of its end; work under way goes on and is booked."""
    first, second = await start(), await start()
    account, key_id, key = await first.account()
    routers = [await admit(first, journal=None), await admit(second, journal=None)]
    under_way = [await reserve(router, key, 500) for router in routers]
    for router in routers:
        for _ in range(10):
            (await reserve(router, key, 100)).release()
    if act == "revoke":
        await first.keys.revoke(account, key_id)
    else:
        await first.accounts.disable(account, actor="console")
    ended = time.monotonic()
    for router in routers:
        assert await refused(router, key) - ended < 2.0
    for reservation in under_way:
        settle(reservation, 200)
    await until(lambda: first.spent(account) == (400, 0))


async def test_permissions_are_globs_on_provider_model_and_operation(auth: Auth, admit: Admit) -> None:
    """A request needs a matching rule of the account, and of the key's scopes where it has any."""
    rules = [
        quota_pb2.Rule(provider="local-*", model="*"),
        quota_pb2.Rule(provider="openai-text", model="gpt-4*", operations=[TEXT]),
    ]
    account, _, key = await auth.account(rules=rules)
    _, narrow = await auth.key(account, scopes=[quota_pb2.Rule(provider="*", model="gpt-4o-mini")])
    admission = await admit(auth)
    who, narrowed = await admission.identify(key), await admission.identify(narrow)
    table = [
        (TEXT, "local-text", "anything", True, False),
        (IMAGE, "local-image", "anything", True, False),
        (TEXT, "openai-text", "gpt-4o", True, False),
        (TEXT, "openai-text", "gpt-4o-mini", True, True),
        (IMAGE, "openai-text", "gpt-4o", False, False),
        (TEXT, "openai-text", "o3", False, False),
        (TEXT, "gemini-text", "gemini-2.0", False, False),
        (quota_pb2.OPERATION_UNSPECIFIED, "openai-text", "", True, True),
        (quota_pb2.OPERATION_UNSPECIFIED, "gemini-text", "", False, False),
    ]
    for operation, provider, model, wide, tight in table:
        assert who.may(operation, provider, model) is wide, (provider, model)
        assert narrowed.may(operation, provider, model) is tight, (provider, model)
    for _ in range(2):  # cold, then warm
        with pytest.raises(PermissionDenied):
            await reserve(admission, key, provider="gemini-text", model="gemini-2.0")


async def test_a_new_rule_works_within_seconds(auth: Auth, admit: Admit) -> None:
    """A warm key gains what is granted to its account, without asking anew."""
    account, _, key = await auth.account(rules=[quota_pb2.Rule(provider="local-*", model="*")])
    admission = await admit(auth)
    who = await admission.identify(key)
    assert not who.may(TEXT, "openai-text", "gpt-4o")
    auth.query("insert into rules (account_id, provider, model) values (%s, 'openai-*', '*') returning 1", account)
    granted = asked = time.monotonic()
    while not (await admission.identify(key)).may(TEXT, "openai-text", "gpt-4o"):
        assert asked - granted < 3
        await asyncio.sleep(0.02)
        asked = time.monotonic()


async def test_concurrent_requests_never_exceed_the_limit(start: Start, admit: Admit) -> None:
    """300 requests at once over three routers and two replicas, with room for 100: exactly 100 are let through."""
    first, second = await start(), await start()
    account, _, key = await first.account(tokens=10_000)
    routers = [await admit(r, journal=None) for r in (first, second, first)]

    async def one(router: Admission) -> bool:
        try:
            reservation = await reserve(router, key, 100)
        except QuotaExhausted:
            return False
        await asyncio.sleep(0)
        settle(reservation, 100)
        return True

    answers = await asyncio.gather(*(one(routers[n % 3]) for n in range(300)))
    let_through = sum(answers)
    assert let_through <= 100
    # What a router leased ahead and did not need comes back when it is idle; then the rest fits.
    end = time.monotonic() + 40
    while let_through < 100 and time.monotonic() < end:
        let_through += await one(routers[let_through % 3])
        await asyncio.sleep(0.02)
    assert let_through == 100
    await until(lambda: first.spent(account) == (10_000, 0))
    assert not await one(routers[0])


async def test_one_caller_is_neither_refused_nor_cut_for_what_another_router_has_idle(
    start: Start, admit: Admit
) -> None:
    """Each of its requests needs most of what is left; once that is used up, it is told at once when it begins anew."""
    replicas = await start(), await start()
    account, _, key = await replicas[0].account(tokens=50)
    routers = [await admit(replica, journal=None) for replica in replicas]
    for at, (need, used) in enumerate([(26, 16), (26, 16), (18, 18)]):
        reservation = await reserve(routers[at % 2], key, need, min_tokens=1)
        assert reservation.tokens == need
        settle(reservation, used)
    with pytest.raises(QuotaExhausted, match="50 tokens a day does not cover this request; it begins anew at"):
        await reserve(routers[0], key, 1)
    assert replicas[0].spent(account) == (50, 0)


async def test_what_a_vanished_router_held_comes_back(start: Start, admit: Admit) -> None:
    """A holder that never returns its lease loses it after the lease's time; others are told that, and not of tomorrow,
    and can then use the quota. What they used up is used up until tomorrow."""
    auth = await start(lease_s=2.0)
    account, _, key = await auth.account(tokens=1000)
    admission = await admit(auth)
    async with grpc.aio.insecure_channel(auth.address) as link:
        amount = quota_pb2.Amount(tokens=1000)
        await quota_service_pb2_grpc.QuotaServiceStub(link).Admit(
            quota_service_pb2.AdmitRequest(api_key=key, holder="gone", need=amount, want=amount),
            metadata=metadata(TOKEN, "r"),
        )
        started = asked = time.monotonic()
        with pytest.raises(
            QuotaExhausted, match="the rest is set aside for requests that run; what they do not use is"
        ):
            await reserve(admission, key, 1000)
    waits: list[float] = []
    while True:
        try:
            settle(await reserve(admission, key, 1000), 1000)
            break
        except QuotaExhausted as refused:
            waits.append(refused.retry_after_s or 0)
            # As late as the first refusal said.
            assert asked - started < 7
            await asyncio.sleep(0.05)
            asked = time.monotonic()
    await until(lambda: auth.spent(account) == (1000, 0))
    assert not waits or 0 < min(waits) <= max(waits) <= 7
    with pytest.raises(QuotaExhausted, match="1,000 tokens a day does not cover this request; it begins anew at"):
        await reserve(admission, key, 1000)


async def test_a_restart_of_auth_loses_nothing(start: Start, admit: Admit) -> None:
    """Settlements wait while auth is away and are booked when it is back; requests then work again."""
    auth = await start()
    account, _, key = await auth.account()
    admission = await admit(auth)
    reservations = [await reserve(admission, key, 100) for _ in range(20)]
    await auth.stack.aclose()
    for reservation in reservations:
        settle(reservation, 70)
    back = await start(port=auth.port)
    await until(lambda: back.spent(account) == (1400, 0))
    end = time.monotonic() + 40
    while True:
        try:
            settle(await reserve(admission, key, 100), 1)
            break
        except MoaError:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
    await until(lambda: back.spent(account) == (1401, 0))


async def test_stopping_gives_everything_back(start: Start, admit: Admit) -> None:
    """After a clean stop of router and auth nothing is held: what is taken of the day is what was charged."""
    auth = await start()
    account, key_id, key = await auth.account()
    admission = await admit(auth)
    for _ in range(50):
        settle(await reserve(admission, key, 100), 30)
    await admission.stop()
    await auth.stack.aclose()
    assert auth.taken(account) == auth.taken(key_id) == auth.spent(account) == (1500, 0)


async def test_a_grant_that_has_not_changed_is_not_told_again(auth: Auth) -> None:
    """A holder names the version that it has; what an administrator changed meanwhile is told whole."""
    account, key_id, _ = await auth.account()
    async with grpc.aio.insecure_channel(auth.address) as link:
        stub: quota_service_pb2_grpc.QuotaServiceAsyncStub = quota_service_pb2_grpc.QuotaServiceStub(link)

        async def told(version: int) -> quota_service_pb2.RefreshResponse:
            request = quota_service_pb2.RefreshRequest(holder="h", key_ids=[key_id], versions=[version])
            return await stub.Refresh(request, metadata=metadata(TOKEN, ""))

        (grant,) = (await told(0)).grants
        again = await told(grant.version)
        assert (list(again.grants), list(again.unchanged)) == ([], [0])
        await auth.accounts.update(account, actor="console", priority="low")
        async with asyncio.timeout(90):
            while not (changed := await told(grant.version)).grants:
                await asyncio.sleep(0.02)
    assert changed.grants[0].priority == quota_pb2.PRIORITY_LOW
    assert changed.grants[0].version != grant.version


async def test_who_is_overtaken_is_not_refused(auth: Auth, admit: Admit) -> None:
    """Images are lent for those who wait, and taken by those who come meanwhile and need not: who waited is lent more.

    600 requests of accounts with room for five times as many, that come within moments of each other: none is refused.
    """
    order = random.Random(1)

    async def drawn(admission: Admission, key: str) -> None:
        await asyncio.sleep(order.random() * 0.2)
        await admission.reserve(
            key,
            operation=quota_pb2.OPERATION_IMAGE,
            provider="local-image",
            model="m",
            need=Amount(images=1),
            request_id="r",
        )

    for _ in range(6):
        _, _, key = await auth.account(images=500)
        admission = await admit(auth)
        await asyncio.gather(*(drawn(admission, key) for _ in range(100)))
