"""The pace of accounts and keys, and of those who guess, over several routers and replicas: limits do not multiply."""

from __future__ import annotations

import asyncio
import itertools
import time

import grpc
import pytest

from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import account_service_pb2_grpc
from moa.quota.v1 import quota_pb2
from services.auth.domain.accounts import KeyLimits
from services.common.errors import RateLimited, Unauthenticated
from services.common.rpc import call as calls
from services.common.rpc import status
from services.quota_client import Admission, Reservation
from tests.auth.asking import Router, reserve, settle, until
from tests.auth.client import Client, code_of
from tests.auth.conftest import Admit, Auth, Start


async def three(start: Start, admit: Admit, *, lease_s: float = 2.0) -> tuple[Auth, list[Admission]]:
    """Start three replicas with a router each; return the first replica and the routers."""
    replicas = [await start(lease_s=lease_s, block_s=2 * lease_s) for _ in range(3)]
    return replicas[0], [await admit(replica, journal=None) for replica in replicas]


async def tried(router: Admission, key: str) -> Reservation | RateLimited:
    try:
        return await reserve(router, key, 1)
    except RateLimited as refusal:
        return refusal


async def all_at_once(routers: list[Admission], *keys: str, each: int) -> list[Reservation]:
    """Try so often on every router with every key; give what was let through."""
    tries = [tried(router, key) for _ in range(each) for router in routers for key in keys]
    return [answer for answer in await asyncio.gather(*tries) if isinstance(answer, Reservation)]


def paced(auth: Auth, account: str, *, a_minute: int = 0, at_once: int = 0, tokens: int = 0) -> None:
    auth.query(
        "update accounts set requests_a_minute = %s, concurrent_requests = %s, tokens_a_minute = %s where id = %s"
        " returning 1",
        a_minute,
        at_once,
        tokens,
        account,
    )


async def test_requests_a_minute_are_counted_over_all_routers(start: Start, admit: Admit) -> None:
    """Three routers together begin what one alone may in a minute, over all of the account's keys."""
    auth, routers = await three(start, admit)
    account, _, first = await auth.account()
    _, second = await auth.key(account)
    paced(auth, account, a_minute=30)
    began = time.monotonic()
    let_through = await all_at_once(routers, first, second, each=20)
    came_back = (time.monotonic() - began) / 2 + 1
    assert 30 <= len(let_through) <= 30 + came_back
    end = time.monotonic() + 60
    while isinstance(refusal := await tried(routers[0], first), Reservation):  # one comes back every two seconds
        assert time.monotonic() < end
    assert "30 requests a minute for this account" in refusal.message
    assert refusal.retry_after_s is not None
    assert 0 < refusal.retry_after_s <= 2.1


async def test_requests_at_once_are_counted_over_all_routers(start: Start, admit: Admit) -> None:
    """Never more than the limit run at once on three routers, and one that ends makes room on another."""
    # A router that cannot renew its slots within a lease's time loses them; a busy machine needs more than 2 s.
    auth, routers = await three(start, admit, lease_s=30.0)
    account, _, key = await auth.account()
    paced(auth, account, at_once=7)
    running = await all_at_once(routers, key, each=7)
    assert len(running) == 7
    assert await all_at_once(routers, key, each=2) == []
    for reservation in running:
        reservation.release()
    # The slots are the last router's within moments.
    running = []
    end = time.monotonic() + 20
    while len(running) < 7:
        assert time.monotonic() < end, f"only {len(running)} of 7 slots came to one router"
        answer = await tried(routers[2], key)
        if isinstance(answer, Reservation):
            running.append(answer)
        else:
            await asyncio.sleep(0.05)
    assert await all_at_once(routers, key, each=2) == []


@pytest.mark.parametrize("most", [1, 2])
async def test_one_request_after_another_is_never_one_too_many(start: Start, admit: Admit, most: int) -> None:
    """However few may run at once, and whichever of three routers each comes to: what has ended counts nowhere."""
    auth, routers = await three(start, admit, lease_s=30.0)
    account, _, key = await auth.account()
    paced(auth, account, at_once=most)
    for number in range(12):
        (await reserve(routers[number % 3], key, 1)).release()
    running = await all_at_once(routers, key, each=2)
    assert len(running) == most


async def test_slots_of_a_vanished_router_come_back(start: Start, admit: Admit) -> None:
    """A router that vanishes with requests under way costs the account their slots for a lease's time."""
    auth, routers = await three(start, admit, lease_s=30.0)
    account, _, key = await auth.account()
    paced(auth, account, at_once=2)
    assert len([await reserve(routers[0], key, 1) for _ in range(2)]) == 2
    assert isinstance(await tried(routers[1], key), RateLimited)
    assert isinstance(routers[0], Router)
    routers[0].vanish()
    holds = "select expires_at < now() + interval '31 s' from pace_slots where subject = %s and holder = %s"
    assert auth.query(holds, account, routers[0].holder) == [(True,)]
    over = "update pace_slots set expires_at = now() where subject = %s and holder = %s returning 1"
    end = time.monotonic() + 60
    while not isinstance(await tried(routers[1], key), Reservation):
        assert time.monotonic() < end
        # Time passes; a renewal that was on its way as the router vanished is over, too.
        auth.query(over, account, routers[0].holder)
        await asyncio.sleep(0.05)


async def test_what_a_router_does_not_use_goes_back(auth: Auth, admit: Admit) -> None:
    """What a router was allowed beyond its need goes back within moments of its last request."""
    account, _, key = await auth.account()
    paced(auth, account, a_minute=600, at_once=600)
    router = await admit(auth)
    (await reserve(router, key, 1)).release()
    left = auth.query("select starts from paces where subject = %s", account)[0][0]
    assert auth.query("select slots > 10 from pace_slots where subject = %s", account) == [(True,)]
    await until(lambda: auth.query("select count(*) from pace_slots where subject = %s", account) == [(0,)])
    await until(lambda: auth.query("select starts from paces where subject = %s", account)[0][0] > left + 10)


async def test_a_key_has_a_pace_of_its_own(start: Start, admit: Admit) -> None:
    """A key's pace binds that key alone, on whatever router; the account's binds all of them."""
    auth, routers = await three(start, admit, lease_s=30.0)
    account, _, wide = await auth.account()
    _, narrow = await auth.key(account, limits=KeyLimits(concurrent_requests=2))
    paced(auth, account, at_once=5)
    assert len(await all_at_once(routers, narrow, each=3)) == 2
    with pytest.raises(RateLimited, match="2 requests at once for this key"):
        await reserve(routers[0], narrow, 1)
    assert len(await all_at_once(routers, wide, each=5)) == 3
    refusal = await tried(routers[1], wide)
    assert isinstance(refusal, RateLimited)
    assert "5 requests at once for this account" in refusal.message


async def test_a_paced_answer_tells_its_pace(auth: Auth, admit: Admit) -> None:
    """What is left of a minute stands beside what is left of the day, in answers and in refusals."""
    account, _, key = await auth.account()
    paced(auth, account, a_minute=3)
    router = await admit(auth)
    reservation = await reserve(router, key, 1)
    assert reservation.verified_key.remaining().limit_requests == 3
    assert reservation.verified_key.remaining().free_requests == 2
    for _ in range(2):
        await reserve(router, key, 1)
    for _ in range(2):  # told by auth, then remembered
        refusal = await tried(router, key)
        assert isinstance(refusal, RateLimited)
        told = dict(refusal.headers)
        assert told["x-ratelimit-limit-requests"] == "3"
        assert told["x-ratelimit-remaining-requests"] == "0"
        assert '"requests";q=3;qu="requests";w=60' in told["ratelimit-policy"]
        assert '"tokens"' in told["ratelimit"]


async def test_tokens_a_minute_are_counted_over_all_routers(start: Start, admit: Admit) -> None:
    """Three routers together use what one may in a minute; what a request did not come to serves the next ones, on
    another router too, and a refusal says how long to wait and what is left."""
    auth, routers = await three(start, admit, lease_s=30.0)
    account, _, key = await auth.account()
    paced(auth, account, tokens=6000)
    began = time.monotonic()
    # What a router has ahead of need is too little for one more, and goes back when it stays unused.
    running = [await reserve(routers[number % 2], key, 1000) for number in range(4)]
    refusal: RateLimited | None = None
    while refusal is None:  # a hundred come back each second
        try:
            running.append(await reserve(routers[2], key, 1000))
        except RateLimited as beyond:
            refusal = beyond
    assert len(running) <= 6 + (time.monotonic() - began) / 10 + 1
    assert "6,000 tokens a minute for this account" in refusal.message
    assert refusal.retry_after_s is not None
    assert 0 < refusal.retry_after_s <= 10.1
    told = dict(refusal.headers)
    assert told["x-ratelimit-limit-tokens"] == "6000"
    assert int(told["x-ratelimit-remaining-tokens"]) < 1000
    assert '"tokens-a-minute";q=6000;qu="tokens";w=60' in told["ratelimit-policy"]
    for reservation in running:
        settle(reservation, 10)
    await until(lambda: auth.query("select tokens from paces where subject = %s", account)[0][0] > 4000)
    (await reserve(routers[2], key, 4000)).release()


async def test_a_providers_limits_are_counted_over_all_routers(start: Start, admit: Admit) -> None:
    """Four routers together ask a provider no more often, and for no more tokens, than one may; what the provider says
    is left counts for all of them; and what a router that vanished held is there again in its time."""
    # A router that cannot renew its slots within a lease's time loses them; a busy machine needs more than 5 s.
    replicas = [await start(lease_s=30.0, block_s=60.0) for _ in range(2)]
    routers = [await admit(replicas[number % 2], journal=None) for number in range(4)]
    rates = [("openai-text", quota_pb2.Pace(requests_per_minute=12, tokens_per_minute=6000, concurrent_requests=9))]
    began = time.monotonic()

    async def asked(router: Admission, tokens: int) -> int:
        try:
            await router.upstreams.enter(rates, tokens)
        except RateLimited:
            return 0
        return 1

    got = sum(await asyncio.gather(*(asked(router, 100) for _ in range(6) for router in routers)))
    assert got == 9
    for router in routers:
        assert isinstance(router, Router)
        router.vanish()
    fresh = await admit(replicas[0], journal=None)
    assert not await asked(fresh, 100)
    gone = [router.holder for router in routers]
    holds = "select distinct expires_at < now() + interval '31 s' from pace_slots where slots > 0 and holder = any(%s)"
    assert replicas[0].query(holds, gone) == [(True,)]
    end = time.monotonic() + 60
    while not await asked(fresh, 100):
        assert time.monotonic() < end
        # Time passes; a renewal that was on its way as the routers vanished is over, too.
        replicas[0].query("update pace_slots set expires_at = now() where holder = any(%s) returning 1", gone)
        await asyncio.sleep(0.05)
    count = 1
    while await asked(fresh, 100):
        count += 1
    assert count <= 3 + (time.monotonic() - began) / 5 + 1
    rates = [("other-text", quota_pb2.Pace(requests_per_minute=12))]
    fresh.upstreams.reported(rates[0], requests=0, tokens=None, wait_s=0)
    assert [await asked(router, 100) for router in (fresh, await admit(replicas[1], journal=None))] == [0, 0]


async def test_guesses_of_keys_are_counted_over_all_routers(start: Start, admit: Admit) -> None:
    """An address that tries wrong keys on three routers has no more tries than on one."""
    _, routers = await three(start, admit)
    calls.begin("/test", "r", "198.51.100.20")
    answers = []
    began = time.monotonic()
    for number in range(66):
        with pytest.raises((Unauthenticated, RateLimited)) as refusal:
            await routers[number % 3].identify(f"moa-guess-{number}")
        answers.append(refusal.type)
    came_back = time.monotonic() - began + 1
    assert 30 <= answers.count(Unauthenticated) <= 30 + came_back


async def test_logins_are_counted_over_all_replicas(start: Start) -> None:
    """An address that guesses passwords on three replicas has no more tries than on one, whatever the emails."""
    replicas = [await start() for _ in range(3)]
    links = [grpc.aio.insecure_channel(f"127.0.0.1:{replica.public_port}") for replica in replicas]
    stubs = [account_service_pb2_grpc.AccountServiceStub(link) for link in links]
    sent = (("x-envoy-external-address", "198.51.100.21"),)
    codes: list[grpc.StatusCode] = []
    began = time.monotonic()
    while codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) < 3:
        request = pb.LogInRequest(email=f"absent{len(codes)}@example.com", password="wrong")
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stubs[len(codes) % 3].LogIn(request, metadata=sent)
        codes.append(failure.value.code())
    came_back = (time.monotonic() - began) / 6 + 1
    assert 10 <= codes.count(grpc.StatusCode.UNAUTHENTICATED) <= 10 + came_back
    for link in links:
        await link.close()


async def test_who_guesses_is_not_stored_by_name(start: Start) -> None:
    """What was typed where an email belongs, a password maybe, is in no row; rows go when they count no more."""
    auth = await start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{auth.public_port}") as link:
        stub = account_service_pb2_grpc.AccountServiceStub(link)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.LogIn(pb.LogInRequest(email="my secret words", password="x"))
    assert auth.query("select count(*) from tries where full_at > now()")[0][0] >= 1
    assert "secret" not in str(auth.query("select t::text from tries t"))


async def test_every_call_with_a_key_counts(auth: Auth, admit: Admit, client: Client) -> None:
    """Listings, counts, files and tasks (`arrive`), the account's own affairs and generations share one pace."""
    router = await admit(auth)

    async def generate(key: str) -> None:
        (await reserve(router, key, 1)).release()

    async def look(key: str) -> None:
        try:
            await client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(key))
        except grpc.aio.AioRpcError as failure:
            raise status.error_from_rpc(failure) from None

    for first, second in itertools.permutations((router.arrive, generate, look), 2):
        account, _, key = await auth.account()
        paced(auth, account, a_minute=1)
        await first(key)
        with pytest.raises(RateLimited) as refused:
            await second(key)
        assert refused.value.retry_after_s


async def test_a_session_keeps_its_accounts_pace(auth: Auth, client: Client) -> None:
    """Who is logged in makes no more requests a minute than the account may."""
    made = await client.sign_up("paced@example.com")
    paced(auth, made.account.account_id, a_minute=1)
    await client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(made.session_token))
    call = client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(made.session_token))
    assert await code_of(call) == grpc.StatusCode.RESOURCE_EXHAUSTED
