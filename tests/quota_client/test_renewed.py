"""A reservation that goes on under another id, after a call that was left before its end."""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import Mock

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.quota_client import costless
from services.quota_client._lease_store import LeaseStore
from services.quota_client.amounts import Amount


def test_the_quota_stays_and_the_old_id_is_worth_nothing() -> None:
    """The same amount of the same lease, in the paces that were entered once; nobody else can take it meanwhile, a
    word on the old id comes too late, and what was reported so far is not forgotten."""
    grant = quota_pb2.Grant(account_id="a", key_id="k")
    grant.lease.lease_id = "lease"
    grant.lease.amount.tokens = 100
    grant.lease.expires_in.seconds = 60
    grant.remaining.resets_at.FromSeconds(int(time.time()) + 3600)
    settling, share = Mock(), Mock()
    paces: Any = Mock(of=lambda *_: (share,))
    now = time.monotonic()
    store = LeaseStore(b"d", grant, now, settling, paces, Mock())
    lease = store.find(Amount(100), now)
    assert lease is not None
    first = store.reserve(
        lease,
        Amount(100),
        operation=quota_pb2.OPERATION_TEXT,
        request_id="r",
        cost=costless,
        now=now,
        paces=store.paces,
    )
    first.report(usage=usage_pb2.Usage(completion_tokens=3), provider="p", model="m")
    second = first.renewed()
    [voided] = [call.args[0] for call in settling.settled.call_args_list]
    assert (voided.reservation_id, voided.charged.tokens) == (first.reservation_id, 0)
    assert second.reservation_id != first.reservation_id
    assert (second.tokens, second.request_id, second.so_far) == (100, "r", first.so_far)
    assert list(store.open) == [second.reservation_id]
    assert (lease.free.tokens, lease.open, share.end.call_count) == (0, 1, 0)
    first.settle(usage=usage_pb2.Usage(completion_tokens=50), provider="p", model="m")
    assert settling.settled.call_count == 1
    second.settle(usage=usage_pb2.Usage(prompt_tokens=10, completion_tokens=30), provider="q", model="n")
    assert (lease.free.tokens, lease.open, share.end.call_count) == (60, 0, 1)
    assert not store.open
