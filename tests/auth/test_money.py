"""Dollars over days, months and in all: set by administrators, reserved, settled, refused by name, told."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import grpc
import pytest

from moa.account.v1 import account_pb2
from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import admin_service_pb2 as admin_pb
from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from services.catalogue import Model, Prices
from services.common.errors import QuotaExhausted
from services.quota_client import Admission, Reservation
from services.quota_client.amounts import NANO, Amount
from tests.auth.asking import audited, until
from tests.auth.client import Client, code_of
from tests.auth.conftest import Admit, Auth
from tests.databases import NOON

BEGUN = date(2026, 1, 1)
"""The day on which requests begin here; on the next one prices are higher, and so they are when these are settled."""
MODEL = Model(
    id="m",
    provider="cloud",
    prices=(
        Prices(input=1.0, cached=0.5, output=4.0),
        Prices(since=BEGUN + timedelta(days=1), input=9.0, cached=9.0, output=9.0),
    ),
)
CENT = NANO // 100


async def bought(admission: Admission, key: str, nano_usd: int, *, least: int | None = None) -> Reservation:
    """Reserve so many nano-dollars, and tokens enough."""
    reservation = await admission.reserve(
        key,
        operation=quota_pb2.OPERATION_TEXT,
        provider="cloud",
        model="m",
        need=Amount(tokens=1000, nano_usd=nano_usd),
        least=None if least is None else Amount(tokens=1, nano_usd=least),
        cost=MODEL.cost_on(BEGUN),
        request_id="r",
    )
    assert isinstance(reservation, Reservation)
    return reservation


def limited(account_id: str, **limits: Any) -> admin_pb.UpdateAccountRequest:
    return admin_pb.UpdateAccountRequest(account_id=account_id, limits=account_pb2.Limits(**limits))


async def refusal(admission: Admission, key: str, nano_usd: int) -> str:
    """Ask until a limit that was set just now binds, as it does within two seconds; return what is said."""
    while True:
        try:
            (await bought(admission, key, nano_usd)).release()
        except QuotaExhausted as refused:
            return refused.message
        await asyncio.sleep(0.02)


async def settled(auth: Auth, account: str) -> None:
    """Wait until something of an account is settled; the books balance."""
    await until(lambda: auth.query("select 1 from ledger where kind = 'settle' and account_id = %s", account) != [])
    await audited(auth.url)


async def test_dollars_are_reserved_and_settled_by_what_was_reported(
    client: Client, root: str, auth: Auth, admit: Admit
) -> None:
    """The bound is out of reach while a request runs; then what was consumed costs what its kinds of tokens cost on the
    day on which it began, whatever they cost since."""
    account, key_id, key = await auth.account()
    await client.admin.UpdateAccount(limited(account, usd_a_month="1.00"), metadata=client.sent(root))
    admission = await admit(auth)
    held = await bought(admission, key, 80 * CENT)
    said = await refusal(admission, key, 30 * CENT)
    assert said.startswith(
        "the account's limit of $1.00 a month does not cover this request now: the rest is set aside"
    )
    usage = usage_pb2.Usage(prompt_tokens=100, cached_tokens=40, completion_tokens=50, exact=True)
    held.settle(usage=usage, provider="cloud", model="m")
    owed = 60 * 1000 + 40 * 500 + 50 * 4000
    await settled(auth, account)
    rows = auth.query("select nano_usd, reserved_nano_usd from ledger where kind = 'settle' and key_id = %s", key_id)
    assert rows == [(owed, 80 * CENT)]
    assert auth.query("select charged_nano_usd from usage_days where key_id = %s", key_id) == [(owed,)]
    await admission.stop()
    other = await admit(auth)
    assert (await bought(other, key, 100 * CENT - owed)).amount.nano_usd == 100 * CENT - owed
    await other.stop()


async def test_a_refusal_names_the_limit_its_owner_and_when_it_begins_anew(
    client: Client, root: str, auth: Auth, admit: Admit
) -> None:
    """A key's total, its account's month, in the account's own zone: each is told apart, with its time."""
    account, _, key = await auth.account()
    admin = client.sent(root)
    await client.admin.UpdateAccount(limited(account, usd_a_month="0.50", usd_a_day="0.40"), metadata=admin)
    admission = await admit(auth)
    month = datetime.now(NOON).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    ends = (month + timedelta(days=32)).replace(day=1).astimezone(UTC)
    assert await refusal(admission, key, 60 * CENT) == (
        "the account's limit of $0.40 a day is less than this request may come to, $0.60; ask for less, or ask whoever"
        " set it for more"
    )
    spent = await bought(admission, key, 30 * CENT)
    usage = usage_pb2.Usage(completion_tokens=300 * NANO // 1000 // 4000, exact=True)
    spent.settle(usage=usage, provider="cloud", model="m")
    await settled(auth, account)
    assert await refusal(admission, key, 25 * CENT) == (
        f"the account's limit of $0.50 a month does not cover this request; it begins anew at {ends:%Y-%m-%dT%H:%M:%SZ}"
    )
    with pytest.raises(QuotaExhausted, match=r"the account's limit of \$0\.40 a day .* anew at"):
        await bought(admission, key, 15 * CENT)
    other, narrow = await auth.key(account)
    changed = admin_pb.UpdateAccountKeyRequest(
        account_id=account, key_id=other, limits=account_pb2.Limits(usd_in_total="0.10")
    )
    told = await client.admin.UpdateAccountKey(changed, metadata=admin)
    assert told.key.limits == account_pb2.Limits(usd_in_total="0.10")
    assert await refusal(admission, narrow, 20 * CENT) == (
        "the key's limit of $0.10 in all is less than this request may come to, $0.20; ask for less, or ask whoever set"
        " it for more"
    )
    await admission.stop()


async def test_where_dollars_are_short_less_is_granted(client: Client, root: str, auth: Auth, admit: Admit) -> None:
    """A request that can do with less has what is left, and never more."""
    account, _, key = await auth.account()
    await client.admin.UpdateAccount(limited(account, usd_in_total="0.25"), metadata=client.sent(root))
    admission = await admit(auth)
    granted = (await bought(admission, key, 90 * CENT, least=CENT)).amount
    assert granted == Amount(tokens=1000, nano_usd=25 * CENT, requests=1)
    await admission.stop()


async def test_what_was_used_before_a_limit_was_set_counts(client: Client, root: str, auth: Auth, admit: Admit) -> None:
    """Dollars are counted for everybody, so that a month's limit binds from the middle of the month."""
    account, _, key = await auth.account(tokens=1_000_000)
    admission = await admit(auth)
    held = await bought(admission, key, 80 * CENT)
    held.settle(usage=usage_pb2.Usage(completion_tokens=100_000, exact=True), provider="cloud", model="m")
    await admission.stop()
    await client.admin.UpdateAccount(limited(account, usd_a_month="0.50"), metadata=client.sent(root))
    other = await admit(auth)
    assert "$0.50 a month" in await refusal(other, key, 20 * CENT)
    await other.stop()


async def test_one_limit_changes_no_other(client: Client, root: str, auth: Auth) -> None:
    """What is not named stays; what is named in `no_limit` is taken away; 0 is nothing and not everything."""
    account, _, _ = await auth.account(tokens=5000, images=7)
    admin = client.sent(root)
    changed = await client.admin.UpdateAccount(
        admin_pb.UpdateAccountRequest(account_id=account, limits=account_pb2.Limits(requests_per_minute=2)),
        metadata=admin,
    )
    kept = account_pb2.Limits(tokens_a_day=5000, images_a_day=7, keys=10)
    assert changed.account.limits == account_pb2.Limits(requests_per_minute=2, **_fields(kept))
    changed = await client.admin.UpdateAccount(limited(account, usd_a_month="0"), metadata=admin)
    assert changed.account.limits.usd_a_month == "0.00"
    free = admin_pb.UpdateAccountRequest(account_id=account, no_limit=["usd_a_month", "requests_per_minute"])
    changed = await client.admin.UpdateAccount(free, metadata=admin)
    assert changed.account.limits == kept
    for wrong in (
        admin_pb.UpdateAccountRequest(account_id=account, no_limit=["tokens_a_day"]),
        admin_pb.UpdateAccountRequest(account_id=account, no_limit=["keys"]),
        admin_pb.UpdateAccountRequest(
            account_id=account, no_limit=["usd_a_day"], limits=account_pb2.Limits(usd_a_day="1")
        ),
    ):
        assert await code_of(client.admin.UpdateAccount(wrong, metadata=admin)) == grpc.StatusCode.INVALID_ARGUMENT
    needed = admin_pb.UpdateAccountRequest(account_id=account, no_limit=["tokens_a_day"])
    words = "at most 1,000,000 tokens a day: give one up to it; only an account of the role service may have none"
    with pytest.raises(grpc.aio.AioRpcError, match=words):
        await client.admin.UpdateAccount(needed, metadata=admin)


async def test_standings_tell_every_limit_of_an_account_and_the_asking_key(
    client: Client, root: str, auth: Auth, admit: Admit
) -> None:
    """How much there is, how much was charged, and until when; what only runs is not charged, but is of its minute."""
    account, _, first = await auth.account(manages=frozenset({"account"}))
    await client.admin.UpdateAccount(
        limited(account, usd_a_month="2.50", requests_per_minute=600, usd_per_minute="0.60"), metadata=client.sent(root)
    )
    made = await client.account.CreateKey(
        pb.CreateKeyRequest(limits=account_pb2.Limits(usd_in_total="0.75", images_per_minute=3)),
        metadata=client.sent(first),
    )
    admission = await admit(auth)
    held = await bought(admission, made.api_key, 20 * CENT)
    running = await bought(admission, made.api_key, 20 * CENT)
    held.settle(usage=usage_pb2.Usage(completion_tokens=25_000, exact=True), provider="cloud", model="m")
    await settled(auth, account)
    told = await client.account.GetLimits(pb.GetLimitsRequest(), metadata=client.sent(made.api_key))
    shown = {(one.limit, one.key_id): (one.most, one.used, one.HasField("resets_at")) for one in told.standings}
    assert shown["usd_a_month", ""] == ("2.50", "0.10", True)
    assert shown["usd_in_total", made.key.key_id] == ("0.75", "0.10", False)
    assert shown["tokens_a_day", ""][0] == "100000"
    assert shown["images_per_minute", made.key.key_id] == ("3", "0", False)
    most, used, resets = shown["usd_per_minute", ""]
    assert (most, resets) == ("0.60", True)
    assert 0 < float(used) <= 0.6
    running.release()
    await admission.stop()


async def test_a_rotated_key_shares_its_limits_with_what_it_replaced(
    client: Client, root: str, auth: Auth, admit: Admit
) -> None:
    """A limit that is set on the new one counts for whatever counts on the same counters, and at settlement too."""
    account, key_id, key = await auth.account(manages=frozenset({"account"}))
    rotated = await client.account.RotateKey(pb.RotateKeyRequest(key_id=key_id), metadata=client.sent(key))
    await client.admin.UpdateAccountKey(
        admin_pb.UpdateAccountKeyRequest(
            account_id=account, key_id=rotated.key.key_id, limits=account_pb2.Limits(usd_in_total="0.50")
        ),
        metadata=client.sent(root),
    )
    assert auth.query("select distinct nano_usd_in_total from keys where account_id = %s", account) == [(50 * CENT,)]
    admission = await admit(auth)
    held = await bought(admission, rotated.api_key, 10 * CENT)
    held.settle(usage=usage_pb2.Usage(completion_tokens=1_000_000, exact=True), provider="cloud", model="m")
    await admission.stop()
    rows = auth.query(
        "select nano_usd, uncovered_nano_usd from ledger where kind = 'settle' and account_id = %s", account
    )
    assert rows == [(50 * CENT, 400 * CENT - 50 * CENT)]


def _fields(limits: account_pb2.Limits) -> dict[str, Any]:
    return {field.name: value for field, value in limits.ListFields()}
