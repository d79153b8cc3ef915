"""Acting for an account without its key."""

from __future__ import annotations

import pytest

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.common.errors import PermissionDenied, QuotaExhausted, Unauthenticated
from services.quota_client import TaskReservation, grants
from services.quota_client.amounts import Amount
from services.quota_client.grants import ActingFor
from tests.auth.asking import TOKEN
from tests.auth.conftest import Admit, Start

IMAGE = quota_pb2.OPERATION_IMAGE


async def test_a_grant_acts_for_its_key_and_reserves_like_it(start: Start, admit: Admit) -> None:
    """A service without the key is admitted under the key's id, with the key's permissions and quota."""
    auth = await start()
    account_id, key_id, _ = await auth.account(images=3)
    admission = await admit(auth)
    grant = grants.mint(TOKEN, ActingFor(account_id=account_id, key_id=key_id))
    verified_key = await admission.identify(grant)
    assert (verified_key.account_id, verified_key.key_id) == (account_id, key_id)
    booking = await admission.reserve(
        grant, operation=IMAGE, provider="p", model="m", need=Amount(images=2), request_id="r"
    )
    booking.settle(usage=usage_pb2.Usage(images=2), provider="p", model="m")
    await admission.stop()
    assert auth.spent(account_id) == (0, 2)


@pytest.mark.parametrize("off_s", [grants.SKEW_S, -grants.SKEW_S])
def test_clocks_that_are_minutes_apart_make_no_grant_stale(off_s: float) -> None:
    """Whoever reads a grant may have another time than who made it."""
    acting = ActingFor(account_id="a", key_id="k")
    assert grants.read(TOKEN, grants.mint(TOKEN, acting, now_s=1e9), now_s=1e9 + off_s) == acting
    assert grants.read(TOKEN, grants.mint(TOKEN, acting, now_s=1e9), now_s=1e9 + 2 * grants.SKEW_S) is None


async def test_a_grant_with_a_reservation_pays_nothing_twice(start: Start, admit: Admit) -> None:
    """What the signer reserved is neither reserved nor settled again, and covers no more than it says."""
    auth = await start()
    account_id, key_id, _ = await auth.account(images=0)
    admission = await admit(auth)
    acting = ActingFor(account_id=account_id, key_id=key_id, reservation_id="lease.1.0.2", images=2)
    grant = grants.mint(TOKEN, acting)
    booking = await admission.reserve(
        grant, operation=IMAGE, provider="p", model="m", need=Amount(images=2), request_id="r"
    )
    assert isinstance(booking, TaskReservation)
    assert booking.reservation_id == ""  # nothing that a backend could settle
    booking.settle(usage=usage_pb2.Usage(images=2), provider="p", model="m")
    with pytest.raises(QuotaExhausted):
        await admission.reserve(grant, operation=IMAGE, provider="p", model="m", need=Amount(images=3), request_id="r")
    await admission.stop()
    assert auth.spent(account_id) == (0, 0)


async def test_a_grant_gives_no_more_than_its_key_has(start: Start, admit: Admit) -> None:
    """The key's permissions hold for whoever acts for it."""
    auth = await start()
    account_id, key_id, _ = await auth.account(rules=[quota_pb2.Rule(provider="local-*", model="*")])
    admission = await admit(auth)
    acting = ActingFor(account_id=account_id, key_id=key_id, reservation_id="lease.1.0.1", images=1)
    with pytest.raises(PermissionDenied):
        await admission.reserve(
            grants.mint(TOKEN, acting),
            operation=IMAGE,
            provider="cloud",
            model="m",
            need=Amount(images=1),
            request_id="r",
        )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda grant: grant[:-2],
        lambda grant: grant.replace(".", ".x", 1),
        lambda grant: grants.PREFIX + "key-id",
        lambda grant: grants.PREFIX,
        lambda grant: grants.mint("another service token", ActingFor(account_id="a", key_id="k")),
        lambda grant: grants.mint(TOKEN, ActingFor(account_id="a", key_id="k"), now_s=0),
    ],
)
async def test_a_forged_or_stale_grant_is_no_key(start: Start, admit: Admit, spoil: object) -> None:
    """Whatever is wrong with a grant, its bearer is nobody."""
    auth = await start()
    account_id, key_id, _ = await auth.account()
    admission = await admit(auth)
    await admission.identify(grants.mint(TOKEN, ActingFor(account_id=account_id, key_id=key_id)))
    bad = spoil(grants.mint(TOKEN, ActingFor(account_id=account_id, key_id=key_id)))  # type: ignore[operator]
    with pytest.raises(Unauthenticated):
        await admission.identify(bad)
    with pytest.raises(Unauthenticated):
        await admission.reserve(bad, operation=IMAGE, provider="p", model="m", need=Amount(images=1), request_id="r")
