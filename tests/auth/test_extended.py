"""A request that is lent more while it runs: how it is settled, and by whom when its router died."""

from __future__ import annotations

from dataclasses import dataclass
from unittest.mock import AsyncMock
from uuid import UUID

import pytest

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.auth.adapters.ledger import Ledger
from services.auth.adapters.verified_keys import VerifiedKeys
from services.auth.domain.accounts import Short
from services.auth.domain.ledger import Booking, Ending, Further, LeaseIds
from services.common.errors import QuotaExhausted, Unavailable
from services.common.rpc.client import channel
from services.quota_client import AbandonedCalls, Reservation
from services.quota_client._lease_stores import LeaseStores
from services.quota_client.amounts import Amount
from tests.auth.asking import PEPPER, TOKEN, audited, reserve, settle, tokens, until
from tests.auth.conftest import Admit, Auth

BLOCK = Amount(tokens=100)
BOOKED = (
    "select kind, tokens, prompt_tokens from ledger where account_id = %s"
    " and kind in ('settle', 'orphan', 'late') order by id"
)


async def extended(reservation: Reservation, *, times: int) -> None:
    """Lend a request so many blocks more."""
    for _ in range(times):
        assert await reservation.extend(BLOCK, least=BLOCK) == BLOCK


async def test_what_was_lent_meanwhile_is_settled_with_the_first(auth: Auth, admit: Admit) -> None:
    """Each reservation pays what those before it do not cover; it is one request, and the rest can be lent again."""
    account, _, key = await auth.account(tokens=1000)
    admission = await admit(auth)
    running = await reserve(admission, key, 100)
    await extended(running, times=3)
    assert running.tokens == 400
    settle(running, 250)
    await until(lambda: auth.spent(account) == (250, 0))
    assert auth.query(BOOKED, account) == [
        ("settle", 100, 125),
        ("settle", 100, None),
        ("settle", 50, None),
        ("settle", 0, None),
    ]
    assert auth.query("select sum(requests), sum(charged_tokens) from usage_days where account_id = %s", account) == [
        (1, 250)
    ]
    settle(await reserve(admission, key, 750), 750)
    await until(lambda: auth.spent(account) == (1000, 0))
    await audited(auth.url)


async def test_auth_is_not_asked_while_a_lease_has_room(
    auth: Auth, admit: Admit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With auth away a running request is lent what its router holds, and told after that that accounts are away."""
    _, _, key = await auth.account()
    admission = await admit(auth)
    running = await reserve(admission, key, 100)
    monkeypatch.setattr(LeaseStores, "ask", AsyncMock(side_effect=Unavailable("away")))
    monkeypatch.setattr(LeaseStores, "top_up_ahead", lambda *_: None)
    await extended(running, times=3)
    with pytest.raises(Unavailable):
        await running.extend(BLOCK, least=BLOCK)
    assert running.tokens == 400


async def test_a_day_that_is_over_lends_nothing_more(auth: Auth, admit: Admit) -> None:
    """A request that runs over midnight is lent more out of the day that it is then, and each day pays its part."""
    account, _, key = await auth.account()
    admission = await admit(auth)
    running = await reserve(admission, key, 100)
    running.lease.usable_until = 0.0
    await extended(running, times=1)
    assert running.further[0].lease is not running.lease
    settle(running, 150)
    await until(lambda: auth.spent(account) == (150, 0))
    assert auth.query(BOOKED, account) == [("settle", 100, 75), ("settle", 50, None)]


async def test_what_exceeds_all_that_was_lent_is_charged_out_of_what_is_left(auth: Auth, admit: Admit) -> None:
    """What a provider reports beyond a request's reservations is charged as far as the day has room."""
    account, _, key = await auth.account(tokens=1000)
    admission = await admit(auth)
    running = await reserve(admission, key, 100)
    await extended(running, times=1)
    settle(running, 1100)
    await until(lambda: auth.spent(account) == (1000, 0))
    rows = auth.query("select tokens, uncovered_tokens from ledger where account_id = %s and kind = 'settle'", account)
    assert rows == [(900, 100), (100, 0)]
    await audited(auth.url)


async def test_as_much_is_lent_as_there_is(auth: Auth, admit: Admit) -> None:
    """Near the limit less is lent, and then nothing, until another request that held some came to nothing."""
    account, _, key = await auth.account(tokens=350)
    admission = await admit(auth)
    running, other = await reserve(admission, key, 100), await reserve(admission, key, 100)
    await extended(running, times=1)
    assert await running.extend(BLOCK, least=Amount(tokens=1)) == Amount(tokens=50)
    with pytest.raises(QuotaExhausted):
        await running.extend(BLOCK, least=Amount(tokens=1))
    other.release()
    await extended(running, times=1)
    assert running.tokens == 350
    running.release()
    await until(lambda: auth.query("select count(*) from open_reservations") == [(0,)])
    assert auth.spent(account) == (0, 0)


async def test_a_running_request_is_lent_more_though_it_may_not_begin(auth: Auth, admit: Admit) -> None:
    """A pace counts requests, not what they are lent."""
    account, _, key = await auth.account()
    auth.query("update accounts set concurrent_requests = 1, requests_a_minute = 1 where id = %s returning 1", account)
    admission = await admit(auth)
    running = await reserve(admission, key, 100)
    await extended(running, times=10)
    settle(running, 1050)
    await until(lambda: auth.spent(account) == (1050, 0))


async def test_a_backend_settles_what_its_dead_router_was_lent_meanwhile(auth: Auth, admit: Admit) -> None:
    """The backend knows the first reservation alone: the further ones that its router reported pay their part, and
    when the router wakes up after all, what was booked stands."""
    account, _, key = await auth.account(tokens=1000)
    admission = await admit(auth)
    running = await reserve(admission, key, 100)
    running.report(usage=tokens(150), provider="local-text", model="m")
    await extended(running, times=2)
    names = [running.reservation_id, *(one.reservation_id for one in running.further)]
    reported = "select count(*) from open_reservations where reservation_id = any(%s) and length(so_far) > 0"
    await until(lambda: auth.query(reported, names) == [(3,)])
    async with channel(auth.address) as link:
        backend = AbandonedCalls(link, service_token=TOKEN, after_s=0)
        await backend.start()
        backend.left(
            running.reservation_id,
            usage=usage_pb2.Usage(prompt_tokens=100, completion_tokens=80),
            operation=quota_pb2.OPERATION_TEXT,
            provider="local-text",
            model="m",
            request_id="r",
        )
        await backend.stop()
    booked = [("settle", 100, 100), ("settle", 80, None), ("settle", 0, None)]
    assert auth.query(BOOKED, account) == booked
    settle(running, 220)
    settle(await reserve(admission, key, 100), 3)
    await until(lambda: auth.spent(account) == (183, 0))
    assert auth.query(BOOKED, account) == [*booked, ("settle", 3, 1)]
    assert auth.query("select count(*) from open_reservations where reservation_id = any(%s)", names) == [(0,)]
    await audited(auth.url)


@dataclass(frozen=True)
class Lent:
    """A request with a first and a further reservation of 100 tokens each, in the ledger."""

    ledger: Ledger
    lease: str
    block: UUID

    @property
    def reservations(self) -> list[Further]:
        return [Further(f"{self.lease}.{number}.100.0.0", self.lease, self.block, BLOCK) for number in (1, 2)]

    def booking(self, charged: int, *, further_unknown: bool = False) -> Booking:
        """Return its settlement; of a backend, which knows its first reservation alone."""
        first, second = self.reservations
        further = [] if further_unknown else [second]
        settlement = quota_pb2.Settlement(
            reservation_id=first.reservation_id,
            charged=quota_pb2.Amount(tokens=charged),
            usage=tokens(charged),
            further=[one.reservation_id for one in further],
            first_alone=further_unknown,
        )
        return Booking(*first, settlement, further)


async def lent(auth: Auth) -> tuple[str, Lent]:
    """Lend a request more; give its account too."""
    account, key_id, _ = await auth.account(tokens=1000)
    ledger = Ledger(auth.postgres, grace_s=10, alive_s=0)
    (who,) = await VerifiedKeys(auth.postgres).by_ids([key_id])
    whole = BLOCK * 2
    borrowed = await ledger.borrow(who, holder="h", least=whole, need=whole, want=whole, ttl_s=60)
    assert not isinstance(borrowed, Short)
    return account, Lent(ledger, LeaseIds(PEPPER).make(borrowed.block_id, 1), borrowed.block_id)


@pytest.mark.parametrize("known", [True, False])
async def test_what_orphans_paid_is_not_charged_again(auth: Auth, known: bool) -> None:
    """A request's reservations are charged as last reported when its router is dead, each its part. Its router's own
    settlement corrects each; a backend, which cannot name the further ones any more, corrects the first alone."""
    account, request = await lent(auth)
    ledger, reported = request.ledger, request.booking(150)
    await ledger.report([reported, *reported.others()])
    await ledger.end([Ending(request.lease, request.block, BLOCK * 2)])
    assert auth.query(BOOKED, account) == [("orphan", 100, 75), ("orphan", 50, None)]
    await ledger.settle([request.booking(180, further_unknown=not known)])
    late = [("late", 0, 90), ("late", 30, None)] if known else [("late", 0, 90)]
    assert auth.query(BOOKED, account)[2:] == late
    await audited(auth.url)


async def test_what_the_first_paid_for_all_is_not_charged_again(auth: Auth) -> None:
    """A backend books before auth has heard of a further reservation: the first grows by what it lacks, and when the
    router settles all the same, the further one pays nothing, and is over."""
    account, request = await lent(auth)
    await request.ledger.settle([request.booking(150, further_unknown=True)])
    done = await request.ledger.settle([request.booking(160)])
    assert auth.query(BOOKED, account) == [("settle", 150, 75), ("settle", 0, None)]
    assert [known.charged.tokens for known in done.known.values()] == [150]
    await audited(auth.url)
