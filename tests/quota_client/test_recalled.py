"""Leases that were lent under other limits than those that bind now."""

from __future__ import annotations

import time
from unittest.mock import Mock

import pytest

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.quota_client import costless
from services.quota_client._lease_store import LeaseStore
from services.quota_client.amounts import NOTHING, Amount


def granted(limits_version: int, tokens: int = 0) -> quota_pb2.Grant:
    grant = quota_pb2.Grant(account_id="a", key_id="k", limits_version=limits_version)
    grant.remaining.resets_at.FromSeconds(int(time.time()) + 3600)
    if tokens:
        grant.lease.lease_id = "lease"
        grant.lease.amount.tokens = tokens
        grant.lease.expires_in.seconds = 60
    return grant


@pytest.mark.parametrize("act", ["shrink", "renewed", "none"])
def test_what_is_free_goes_back_at_once_and_what_runs_leaves_at_its_end(act: str) -> None:
    """Every token is either consumed or returned, once, whatever becomes of the request; none is reserved anew."""
    returned: list[int] = []

    def give_back(store: LeaseStore) -> None:
        for lease in store.leases:
            if lease.free:
                returned.append(lease.free.tokens)
                lease.free = NOTHING

    now = time.monotonic()
    store = LeaseStore(b"d", granted(1, 100), now, Mock(), Mock(of=lambda *_: ()), give_back)
    lease = store.find(Amount(40), now)
    assert lease is not None
    running = store.reserve(
        lease, Amount(40), operation=quota_pb2.OPERATION_TEXT, request_id="r", cost=costless, now=now
    )
    for version in (1, 0, 1):
        store.take(granted(version), now)
    assert returned == []
    store.take(granted(2), now)
    assert returned == [60]
    assert store.find(Amount(1), now) is None
    if act == "shrink":
        running = store.shrink(running, Amount(25))
    elif act == "renewed":
        running = store.renewed(running)
    assert store.find(Amount(1), now) is None
    running.settle(usage=usage_pb2.Usage(completion_tokens=10), provider="p", model="m")
    assert sum(returned) == 90
    assert min(returned) > 0
