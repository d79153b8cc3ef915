"""Keys in use are kept fresh however many there are: in calls of bounded size, without what has not changed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest

from moa.quota.v1 import quota_pb2, quota_service_pb2
from services.quota_client import _refreshing, costless
from services.quota_client._lease_store import LeaseStore
from services.quota_client._lease_stores import Asked, LeaseStores
from services.quota_client._pace import Paces
from services.quota_client._refreshing import Refreshing
from services.quota_client._settling import Settling
from services.quota_client.amounts import Amount

ACTIVE = 3_000


class _Auth:
    """Auth, as far as it refreshes: every key is good, and a grant's version is what the test says."""

    def __init__(self) -> None:
        self.asked: list[quota_service_pb2.RefreshRequest] = []
        self.version = 7
        self.failing: set[str] = set()
        self.stores: LeaseStores
        """Those of the process that asks."""

    async def Refresh(self, request: quota_service_pb2.RefreshRequest, **_: Any) -> quota_service_pb2.RefreshResponse:
        self.asked.append(request)
        if self.failing.intersection(request.key_ids):
            raise grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata())
        answer = quota_service_pb2.RefreshResponse(reported=True)
        for place, (key_id, version) in enumerate(zip(request.key_ids, request.versions, strict=True)):
            if version == self.version:
                answer.unchanged.append(place)
            else:
                answer.grants.append(_grant(key_id, self.version))
        answer.leases.extend(_lease(lease_id) for lease_id in request.lease_ids)
        return answer

    async def Admit(self, request: quota_service_pb2.AdmitRequest, **_: Any) -> quota_service_pb2.AdmitResponse:
        grant = _grant("key_0", self.version)
        grant.lease.CopyFrom(_lease("lent"))
        grant.remaining.resets_at.FromSeconds(2**31)
        return quota_service_pb2.AdmitResponse(grant=grant)


def _lease(lease_id: str) -> quota_pb2.Lease:
    lease = quota_pb2.Lease(lease_id=lease_id, amount=quota_pb2.Amount(tokens=10))
    lease.expires_in.FromSeconds(20)
    return lease


def _grant(key_id: str, version: int = 0) -> quota_pb2.Grant:
    grant = quota_pb2.Grant(account_id="a", key_id=key_id, version=version)
    grant.fresh_for.FromMilliseconds(1500)
    return grant


@pytest.fixture
def auth() -> _Auth:
    return _Auth()


async def there() -> None:
    """Auth is there."""


def held(auth: Any, now: float, count: int = ACTIVE) -> tuple[Refreshing, dict[str, LeaseStore]]:
    """A process that used every key a moment ago, and holds a lease for each that must be renewed."""
    settling = Settling(auth, service_token="t", folder=None, holder="h")
    paces = Paces(auth, service_token="t", holder="h")
    stores = LeaseStores(auth, service_token="t", holder="h", settling=settling, paces=paces, there=there)
    for number in range(count):
        grant = _grant(f"key_{number}")
        grant.lease.CopyFrom(_lease(f"lease_{number}"))
        grant.remaining.resets_at.FromSeconds(2**31)
        store = LeaseStore(str(number).encode(), grant, now - 10, settling, paces, stores.give_back)
        store.used_at = now
        stores.by_key_id[grant.key_id] = store
    auth.stores = stores
    refreshing = Refreshing(auth, service_token="t", holder="h", stores=stores, settling=settling, paces=paces)
    return refreshing, stores.by_key_id


async def test_an_answer_that_comes_late_is_as_fresh_as_when_it_was_asked_for(
    auth: _Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that a newer one overtook counts no longer than it would have, nor is it kept for what is said of another."""
    now = 1000.0
    monkeypatch.setattr("services.quota_client._refreshing.time.monotonic", lambda: now)
    refreshing, keys = held(auth, now, count=1)
    await refreshing.round()
    key = keys["key_0"]
    answered = auth.Refresh

    async def overtaken(request: Any, **more: Any) -> Any:
        answer = await answered(request, **more)
        key.take(_grant("key_0"), now - 1)
        return answer

    monkeypatch.setattr(auth, "Refresh", overtaken)
    await refreshing.round()
    assert (key.version, key.fresh_until) == (0, now + 0.5)


async def test_all_keys_are_asked_about_in_small_calls(auth: _Auth, monkeypatch: pytest.MonkeyPatch) -> None:
    """3,000 active keys: none goes stale and no lease expires; what has not changed is not told again."""
    now = 1000.0
    monkeypatch.setattr("services.quota_client._refreshing.time.monotonic", lambda: now)
    refreshing, keys = held(auth, now)
    await refreshing.round()
    assert max(len(request.key_ids) for request in auth.asked) <= 500
    assert all(key.fresh_until == now + 1.5 for key in keys.values())
    assert all(lease.alive_until == now + 20 for key in keys.values() for lease in key.leases)
    auth.asked.clear()
    now = 1000.4
    await refreshing.round()
    assert sum(len(request.key_ids) for request in auth.asked) == ACTIVE
    assert all(version == 7 for request in auth.asked for version in request.versions)
    assert all(key.fresh_until == now + 1.5 for key in keys.values())
    auth.version = 8
    await refreshing.round()
    assert {key.version for key in keys.values()} == {8}


async def test_a_call_that_fails_leaves_the_other_keys_fresh(auth: _Auth, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the keys of that call are not verified."""
    now = 1000.0
    monkeypatch.setattr("services.quota_client._refreshing.time.monotonic", lambda: now)
    refreshing, keys = held(auth, now)
    auth.failing = {"key_0"}
    await refreshing.round()
    assert sum(key.fresh_until == now + 1.5 for key in keys.values()) == ACTIVE - 500


async def test_a_round_is_given_up_while_auth_is_away(auth: _Auth, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process does not spend a call's time on each 500 keys, and the next round begins with others."""
    now = 1000.0
    monkeypatch.setattr("services.quota_client._refreshing.time.monotonic", lambda: now)
    refreshing, keys = held(auth, now)
    auth.failing = set(keys)
    await refreshing.round()
    await refreshing.round()
    assert len(auth.asked) == 4
    assert len({request.key_ids[0] for request in auth.asked}) == 4


async def test_a_process_without_keys_rests(auth: _Auth, monkeypatch: pytest.MonkeyPatch) -> None:
    """No round is made until auth is asked about a key; from then on one after the other."""
    monkeypatch.setattr("services.quota_client._refreshing.ROUND_S", 0)
    monkeypatch.setattr("services.quota_client._refreshing.REST_S", 3600)
    # A key that nobody used for ten seconds is not kept fresh, however long this machine takes to come here.
    monkeypatch.setattr("services.quota_client._refreshing.time.monotonic", lambda: 1000.0)
    refreshing, keys = held(auth, 1000.0, 600)
    used = dict(keys)
    keys.clear()
    refreshing.start(())
    for _ in range(100):
        await asyncio.sleep(0)
    assert auth.asked == []
    keys.update(used)
    auth.stores.taken.set()
    while len(auth.asked) < 3 * 2:  # the test's own time limit ends this
        await asyncio.sleep(0)
    await refreshing.stop()


async def test_leases_are_renewed_while_keys_are_asked_about(auth: _Auth, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round that takes longer than a lease lasts ends none: those that are due are renewed by themselves, once."""
    monkeypatch.setattr(_refreshing, "RENEW_S", -1.0)
    monkeypatch.setattr("services.quota_client._refreshing.time.monotonic", lambda: 1000.0)
    refreshing, stores = held(auth, 1000.0)
    await refreshing.round()
    alone = [name for request in auth.asked if not request.key_ids for name in request.lease_ids]
    assert sorted(alone) == sorted(f"lease_{number}" for number in range(ACTIVE))
    assert [name for request in auth.asked if request.key_ids for name in request.lease_ids] == []
    assert all(len(request.lease_ids) <= 500 for request in auth.asked)
    assert sum(len(request.key_ids) for request in auth.asked) == len(stores) == ACTIVE


async def test_what_was_just_lent_for_a_request_is_not_given_back(auth: _Auth) -> None:
    """A request whose body came slowly asks for its lease long after its key was looked at: a round that comes before
    it takes the lease up leaves that alone."""
    now = time.monotonic()
    refreshing, keys = held(auth, now - 60, 1)
    (key,) = keys.values()
    auth.stores.by_digest[key.digest] = key
    need = Amount(tokens=5)
    asked = Asked("key", quota_pb2.OPERATION_TEXT, "p", "m", need, need, costless, "r")
    store = await auth.stores.ask(key.digest, asked, least=need)
    await refreshing.round()
    assert any(lease.has(need, time.monotonic()) for lease in store.leases)
