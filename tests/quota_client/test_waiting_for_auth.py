"""A request that waits for auth to be started again, and the lease that it is then granted."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import pytest

from moa.quota.v1 import quota_pb2, quota_service_pb2
from services.common.errors import QuotaExhausted
from services.quota_client import costless
from services.quota_client._lease_stores import Asked, LeaseStores
from services.quota_client._pace import Paces
from services.quota_client._settling import Settling
from services.quota_client.amounts import Amount

LEASE_S = 20


class Auth:
    """Lends what is asked, or one of how many parts of it."""

    def __init__(self, parts: int = 1) -> None:
        self.parts = parts
        self.asked = 0

    async def Admit(self, request: quota_service_pb2.AdmitRequest, **_: Any) -> quota_service_pb2.AdmitResponse:
        self.asked += 1
        grant = quota_pb2.Grant(account_id="a", key_id="k")
        grant.fresh_for.FromMilliseconds(1500)
        grant.remaining.resets_at.FromSeconds(2**31)
        grant.lease.lease_id = "l"
        grant.lease.amount.CopyFrom((Amount.read(request.want) // self.parts).message())
        grant.lease.expires_in.FromSeconds(LEASE_S)
        return quota_service_pb2.AdmitResponse(grant=grant)


async def test_a_lease_counts_from_when_auth_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Auth is away for longer than a lease lasts: what it lends when it is back can be used."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    async def back() -> None:
        now[0] += LEASE_S + 5

    auth: Any = Auth()
    settling = Settling(auth, service_token="t", folder=None, holder="h")
    paces = Paces(auth, service_token="t", holder="h")
    held = LeaseStores(auth, service_token="t", holder="h", settling=settling, paces=paces, there=back)
    asked = Asked("key", quota_pb2.OPERATION_TEXT, "p", "m", Amount(100), Amount(100), costless, "r")
    store = await held.ask(b"digest", asked, least=Amount(100))
    assert store.find(Amount(100), now[0]) is not None


@pytest.mark.parametrize(("failure", "logged"), [(QuotaExhausted("no more"), 0), (KeyError("a fault"), 1)])
async def test_a_refusal_that_nobody_waits_for_is_no_fault(failure: Exception, logged: int) -> None:
    """A caller leaves while auth is asked for it: that auth refuses is not logged as an exception; a fault is, once."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    asking, left = asyncio.Event(), asyncio.Event()

    async def refused() -> None:
        asking.set()
        await left.wait()
        raise failure

    auth: Any = Auth()
    settling = Settling(auth, service_token="t", folder=None, holder="h")
    paces = Paces(auth, service_token="t", holder="h")
    held = LeaseStores(auth, service_token="t", holder="h", settling=settling, paces=paces, there=refused)
    need = Amount(100)
    asked = Asked("key", quota_pb2.OPERATION_TEXT, "p", "m", need, need, costless, "r")
    caller = asyncio.create_task(held.ask(b"d", asked, least=need))
    await asking.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    running = asyncio.all_tasks() - {asyncio.current_task()}
    left.set()
    await asyncio.wait(running)
    del caller, running
    gc.collect()
    assert len(told) == logged


@pytest.mark.parametrize(("parts", "asked"), [(1, 2), (16, 2)])
async def test_where_there_is_little_auth_is_not_asked_at_each_request(
    parts: int, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is leased ahead of need is asked for once a second at most, where what was lent leaves its key as poor."""
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)

    async def there() -> None: ...

    auth: Any = Auth()
    settling = Settling(auth, service_token="t", folder=None, holder="h")
    paces = Paces(auth, service_token="t", holder="h")
    held = LeaseStores(auth, service_token="t", holder="h", settling=settling, paces=paces, there=there)
    need = Amount(100)
    store = await held.ask(
        b"d", Asked("key", quota_pb2.OPERATION_TEXT, "p", "m", need, need, costless, "r"), least=need
    )
    auth.parts = parts
    store.leases[0].free = Amount(1)
    for _ in range(5):
        held.top_up_ahead(store, time.monotonic())
        if store.topping_up is not None:
            await store.topping_up
    assert auth.asked == asked
