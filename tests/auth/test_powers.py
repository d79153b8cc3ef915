"""No key makes a key, or changes one, into more than itself, in any dimension."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.local.database import Database
from moa.account.v1 import account_pb2
from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import admin_service_pb2 as admin_pb
from moa.quota.v1 import quota_pb2
from services.auth.adapters.ledger import Ledger
from services.auth.adapters.verified_keys import VerifiedKeys
from services.auth.domain.accounts import CEILINGS, EVERYTHING, Short
from services.auth.domain.ledger import Return
from services.auth.domain.powers import ACCOUNT, ADMIN, Power, check_gives, check_within
from services.auth.domain.records import KeyRecord
from services.auth.migrations import SCHEMA, migrate
from services.common import migrations
from services.common.errors import PermissionDenied, QuotaExhausted, RateLimited
from services.quota_client.amounts import NANO, Amount, dollars, field_of
from services.quota_client.permissions import covers, permitted
from tests.auth.asking import audited, reserve, settle
from tests.auth.client import Client, code_of
from tests.auth.conftest import Admit, Auth
from tests.laws import tries

NOW = datetime(2026, 11, 20, tzinfo=UTC)
_NAMES = ("a", "b", "ab", "abc", "b/a", "[", "a]", "ba")
_GLOBS = st.one_of(st.sampled_from(["", "*", "a*", "*a", "?", "a?", "[ab]", "[!a]*", "[]a]", "[", "**", "*b*"]),
                   st.text(alphabet="ab*?[]!/", max_size=5))  # fmt: skip
_OPERATIONS = (quota_pb2.OPERATION_TEXT, quota_pb2.OPERATION_IMAGE, quota_pb2.OPERATION_TASK)
_RULES = st.builds(
    quota_pb2.Rule, provider=_GLOBS, model=_GLOBS, operations=st.lists(st.sampled_from(_OPERATIONS), max_size=2)
)
_LIMIT = st.one_of(st.none(), st.integers(0, 4))
_PACE = st.one_of(st.none(), st.integers(1, 4))
_POWERS = st.builds(
    Power,
    manages=st.frozensets(st.sampled_from([ACCOUNT, ADMIN])),
    scopes=st.lists(_RULES, max_size=2).map(tuple),
    tokens_a_day=_LIMIT,
    images_a_day=_LIMIT,
    requests_a_minute=_PACE,
    concurrent_requests=_PACE,
    nano_usd_a_month=_LIMIT,
    tokens_in_total=_LIMIT,
    priority=st.sampled_from([None, "low", "normal", "high"]),
    expires_at=st.one_of(st.none(), st.integers(0, 3).map(lambda days: NOW + timedelta(days=days))),
)


def reach(power: Power) -> list[float]:
    """How far a key reaches in each dimension that has an order, by another account of it than the law's."""
    endless = float("inf")
    return [
        endless if power.tokens_a_day is None else power.tokens_a_day,
        endless if power.images_a_day is None else power.images_a_day,
        power.requests_a_minute or endless,
        power.concurrent_requests or endless,
        endless if power.nano_usd_a_month is None else power.nano_usd_a_month,
        endless if power.tokens_in_total is None else power.tokens_in_total,
        ["low", "normal", "high", None].index(power.priority),
        endless if power.expires_at is None else power.expires_at.timestamp(),
    ]


def uses(power: Power) -> set[tuple[int, str, str]]:
    """What a key may use of some providers and models."""
    return {
        (operation, provider, model)
        for operation in _OPERATIONS
        for provider in _NAMES
        for model in _NAMES
        if permitted([EVERYTHING], power.scopes, operation, provider, model)
    }


def within(made: Power, maker: Power) -> bool:
    return (
        made.manages <= maker.manages
        and uses(made) <= uses(maker)
        and all(one <= other for one, other in zip(reach(made), reach(maker), strict=True))
    )


@settings(max_examples=tries(100), deadline=None)
@given(maker=_POWERS, made=_POWERS)
def test_what_is_permitted_is_no_more_than_its_maker(maker: Power, made: Power) -> None:
    """Whatever a key is and asks for: what the law lets pass reaches no further in any dimension."""
    check_within(maker, maker)
    try:
        check_within(maker, made)
    except PermissionDenied:
        return
    assert within(made, maker)


@settings(max_examples=tries(100), deadline=None)
@given(maker=_POWERS, more=st.sampled_from([f.name for f in dataclasses.fields(Power)]), other=_POWERS)
def test_more_in_one_dimension_is_refused_by_its_name(maker: Power, more: str, other: Power) -> None:
    """A key that is another but for one dimension, and more in that, is refused with the field's name."""
    made = dataclasses.replace(maker, **{more: getattr(other, more)})
    field = "expires_in" if more == "expires_at" else field_of(more)
    if within(made, maker):
        return
    with pytest.raises(PermissionDenied) as refused:
        check_within(maker, made)
    assert refused.value.param == field


@given(_GLOBS, _GLOBS, st.text(alphabet="ab[]/", max_size=4))
def test_a_pattern_that_covers_another_matches_what_it_matches(one: str, other: str, name: str) -> None:
    """No name passes the narrower pattern and not the wider one."""
    wide, narrow = quota_pb2.Rule(provider=one), quota_pb2.Rule(provider=other)
    if name and covers(wide, narrow) and permitted([narrow], [], quota_pb2.OPERATION_TEXT, name, "m"):
        assert permitted([wide], [], quota_pb2.OPERATION_TEXT, name, "m")
    assert covers(narrow, narrow)
    assert covers(quota_pb2.Rule(), narrow)


def test_a_narrower_pattern_is_seen_to_be_narrower() -> None:
    """The patterns that people write are told apart."""
    for wide, narrow in (("local-*", "local-text"), ("*", "?"), ("a*c", "ab*c"), ("gpt-*", "gpt-4*"), ("[ab]*", "a*")):
        assert covers(quota_pb2.Rule(provider=wide), quota_pb2.Rule(provider=narrow))
        assert not covers(quota_pb2.Rule(provider=narrow), quota_pb2.Rule(provider=wide))


def asked(power: Power) -> pb.CreateKeyRequest:
    """A request for such a key, which lasts some days from now where it is to end."""
    request = pb.CreateKeyRequest(
        scopes=power.scopes,
        tokens_a_day=power.tokens_a_day,
        images_a_day=power.images_a_day,
        # Its own calls count, too: it must not run out of them.
        requests_per_minute=power.requests_a_minute and power.requests_a_minute * 100,
        concurrent_requests=power.concurrent_requests,
        limits=account_pb2.Limits(
            usd_a_month=None if power.nano_usd_a_month is None else dollars(power.nano_usd_a_month),
            tokens_in_total=power.tokens_in_total,
        ),
        priority={None: 0, "low": 1, "normal": 2, "high": 3}[power.priority],  # type: ignore[arg-type]
        manages=[{ACCOUNT: account_pb2.SCOPE_ACCOUNT, ADMIN: account_pb2.SCOPE_ADMIN}[name] for name in power.manages],
    )
    if power.expires_at is not None:
        request.expires_in.FromTimedelta(power.expires_at - NOW + timedelta(days=1))
    return request


def shown(key: account_pb2.Key) -> Power:
    """What a key is, as its account sees it."""
    names = {account_pb2.SCOPE_ACCOUNT: ACCOUNT, account_pb2.SCOPE_ADMIN: ADMIN}
    return Power(
        manages=frozenset(names[scope] for scope in key.manages),
        scopes=tuple(key.scopes),
        tokens_a_day=key.tokens_a_day if key.HasField("tokens_a_day") else None,
        images_a_day=key.images_a_day if key.HasField("images_a_day") else None,
        requests_a_minute=key.requests_per_minute if key.HasField("requests_per_minute") else None,
        concurrent_requests=key.concurrent_requests if key.HasField("concurrent_requests") else None,
        nano_usd_a_month=round(Decimal(key.limits.usd_a_month) * NANO) if key.limits.HasField("usd_a_month") else None,
        tokens_in_total=key.limits.tokens_in_total if key.limits.HasField("tokens_in_total") else None,
        priority=[None, "low", "normal", "high"][key.priority],
        expires_at=key.expires_at.ToDatetime(tzinfo=UTC) if key.HasField("expires_at") else None,
    )


@settings(max_examples=tries(12), deadline=None, suppress_health_check=list(HealthCheck))
@given(maker=_POWERS, made=_POWERS, priority=st.integers(0, 3), data=st.data())
async def test_no_call_makes_a_key_more_than_the_one_that_calls(
    client: Client, auth: Auth, maker: Power, made: Power, priority: Any, data: st.DataObject
) -> None:
    """Made, changed, replaced: of whatever keys an account has, what comes of a key's call is no more than that key."""
    account = await auth.accounts.create(
        role="admin", limits=dataclasses.replace(CEILINGS, key_count=100), rules=[EVERYTHING], priority="high"
    )
    key_id, secret = await auth.key(account, manages=frozenset({ACCOUNT, ADMIN}))
    root = client.sent(secret)
    calls = dataclasses.replace(maker, manages=maker.manages | {ACCOUNT})
    caller = await client.account.CreateKey(asked(calls), metadata=root)
    other = await client.account.CreateKey(asked(made), metadata=root)
    it, before = client.sent(caller.api_key), shown(caller.key)
    target = data.draw(st.sampled_from([caller.key.key_id, other.key.key_id, key_id]))
    change = pb.UpdateKeyRequest(key_id=target, priority=priority)
    for call in (
        client.account.CreateKey(asked(made), metadata=it),
        client.account.UpdateKey(change, metadata=it),
        client.account.RenameKey(pb.RenameKeyRequest(key_id=target, name="x"), metadata=it),
        client.account.RotateKey(pb.RotateKeyRequest(key_id=target), metadata=it),
    ):
        try:
            answer = await call
        except grpc.aio.AioRpcError as refused:
            assert refused.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)  # noqa: PT017
        else:
            assert within(shown(answer.key), before)


async def test_a_limited_key_does_not_free_itself(client: Client, auth: Auth) -> None:
    """100 tokens, 100 requests a minute, low priority, an hour: no call makes of it what lacks any of that."""
    account, _, _ = await auth.account()
    little = asked(Power(tokens_a_day=100, requests_a_minute=1, priority="low", manages=frozenset({ACCOUNT})))
    little.expires_in.FromSeconds(3600)
    _, root = await auth.key(account, manages=frozenset({ACCOUNT}))
    made = await client.account.CreateKey(little, metadata=client.sent(root))
    key = client.sent(made.api_key)
    same = {"tokens_a_day": 100, "requests_per_minute": 100, "priority": 1}
    brief = Duration(seconds=60)
    for field, request in {
        "tokens_a_day": pb.CreateKeyRequest(requests_per_minute=100, priority=1, expires_in=brief),  # type: ignore[arg-type]
        "requests_per_minute": pb.CreateKeyRequest(tokens_a_day=100, priority=1, expires_in=brief),  # type: ignore[arg-type]
        "priority": pb.CreateKeyRequest(**{**same, "priority": 0}, expires_in=brief),  # type: ignore[arg-type]
        "expires_in": pb.CreateKeyRequest(**same),  # type: ignore[arg-type]
    }.items():
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.account.CreateKey(request, metadata=key)
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert field in (refused.value.details() or "")
        assert "logged in" in (refused.value.details() or "")
    up = pb.UpdateKeyRequest(key_id=made.key.key_id, priority=quota_pb2.PRIORITY_NORMAL)
    assert await code_of(client.account.UpdateKey(up, metadata=key)) == grpc.StatusCode.PERMISSION_DENIED
    assert (await client.account.CreateKey(pb.CreateKeyRequest(**same, expires_in=brief), metadata=key)).api_key  # type: ignore[arg-type]


async def test_keys_of_a_limited_key_keep_its_limits_together(client: Client, auth: Auth, admit: Admit) -> None:
    """What it makes, and what takes its place, spends what it has left of its day, and not as much again."""
    account, _, _ = await auth.account(tokens=10_000)
    _, root = await auth.key(account, manages=frozenset({ACCOUNT}))
    limits = {"tokens_a_day": 100, "manages": [account_pb2.SCOPE_ACCOUNT]}
    first = await client.account.CreateKey(pb.CreateKeyRequest(**limits), metadata=client.sent(root))  # type: ignore[arg-type]
    ledger = Ledger(auth.postgres, grace_s=10, alive_s=20)
    key = client.sent(first.api_key)
    child = await client.account.CreateKey(pb.CreateKeyRequest(**limits), metadata=key)  # type: ignore[arg-type]
    assert child.key.bound_by == first.key.key_id
    grandchild = client.account.CreateKey(pb.CreateKeyRequest(**limits), metadata=client.sent(child.api_key))  # type: ignore[arg-type]
    assert await code_of(grandchild) == grpc.StatusCode.PERMISSION_DENIED

    async def borrows(made: pb.CreateKeyResponse | pb.RotateKeyResponse, tokens: int) -> bool:
        (who,) = await VerifiedKeys(auth.postgres).by_ids([made.key.key_id])
        amount = Amount(tokens=tokens)
        block = await ledger.borrow(who, holder="h", least=amount, need=amount, want=amount, ttl_s=60)
        if isinstance(block, Short):
            return False
        await ledger.give_back([Return(f"r-{made.key.key_id}-{tokens}", block.block_id, Amount(tokens=1))])
        return True

    assert await borrows(child, 40)
    assert await borrows(first, 20)
    second = await client.account.RotateKey(pb.RotateKeyRequest(key_id=first.key.key_id), metadata=key)
    again = await client.account.RotateKey(
        pb.RotateKeyRequest(key_id=child.key.key_id), metadata=client.sent(second.api_key)
    )
    assert not await borrows(again, 43)
    assert await borrows(again, 25)
    assert not await borrows(second, 19)
    assert await borrows(second, 18)
    assert auth.taken(first.key.key_id) == (99, 0)
    assert auth.taken(child.key.key_id) == (63, 0)
    admission = await admit(auth)
    for secret in (again.api_key, second.api_key):
        with pytest.raises(QuotaExhausted):
            await reserve(admission, secret, 2)
    await audited(auth.url)


async def test_a_limited_key_takes_no_other_keys_place(client: Client, auth: Auth) -> None:
    """The secret of a key that it did not make would be a second day for it."""
    account, _, _ = await auth.account()
    _, root = await auth.key(account, manages=frozenset({ACCOUNT}))
    asks = {"tokens_a_day": 100, "manages": [account_pb2.SCOPE_ACCOUNT]}
    one, other = [
        await client.account.CreateKey(pb.CreateKeyRequest(**asks), metadata=client.sent(root))  # type: ignore[arg-type]
        for _ in range(2)
    ]
    rotate = client.account.RotateKey(pb.RotateKeyRequest(key_id=other.key.key_id), metadata=client.sent(one.api_key))
    assert await code_of(rotate) == grpc.StatusCode.PERMISSION_DENIED


async def test_keys_of_a_paced_key_keep_its_pace_together(client: Client, auth: Auth, admit: Admit) -> None:
    """A key that may begin two requests a minute begins two with all that it makes and that takes its place.

    The call by which it makes another is one.
    """
    account, _, _ = await auth.account()
    _, root = await auth.key(account, manages=frozenset({ACCOUNT}))
    asks = {"requests_per_minute": 2, "manages": [account_pb2.SCOPE_ACCOUNT]}
    first = await client.account.CreateKey(pb.CreateKeyRequest(**asks), metadata=client.sent(root))  # type: ignore[arg-type]
    key = client.sent(first.api_key)
    child = await client.account.CreateKey(pb.CreateKeyRequest(**asks), metadata=key)  # type: ignore[arg-type]
    admission = await admit(auth)
    settle(await reserve(admission, child.api_key), 1)
    with pytest.raises(RateLimited):
        await reserve(admission, first.api_key)
    second = await client.account.RotateKey(pb.RotateKeyRequest(key_id=first.key.key_id), metadata=client.sent(root))
    for secret in (child.api_key, second.api_key):
        with pytest.raises(RateLimited):
            await reserve(admission, secret)


async def test_an_administrators_key_needs_the_scope(client: Client, auth: Auth, root: str) -> None:
    """A key of an administrator reads nothing of /admin unless it has SCOPE_ADMIN, which only they can give."""
    made = await client.account.CreateKey(
        pb.CreateKeyRequest(tokens_a_day=1, manages=[account_pb2.SCOPE_ACCOUNT]), metadata=client.sent(root)
    )
    listing = client.admin.ListAccounts(admin_pb.ListAccountsRequest(), metadata=client.sent(made.api_key))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await listing
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert "SCOPE_ADMIN" in (refused.value.details() or "")
    wants = pb.CreateKeyRequest(tokens_a_day=1, manages=[account_pb2.SCOPE_ADMIN])
    assert await code_of(client.account.CreateKey(wants, metadata=client.sent(made.api_key))) == (
        grpc.StatusCode.PERMISSION_DENIED
    )
    session = client.sent((await client.sign_up("not-an-admin@example.com")).session_token)
    assert await code_of(client.account.CreateKey(wants, metadata=session)) == grpc.StatusCode.INVALID_ARGUMENT


@given(power=_POWERS, bound_by=st.sampled_from([None, "key_other"]))
def test_only_a_key_without_any_limit_gives(power: Power, bound_by: str | None) -> None:
    """Whatever it is limited in, and also where a limited key made it, it is refused, with the way that is open."""
    key = KeyRecord(
        id="key_it", account_id="acc_it", name="", prefix="", created_at=NOW, revoked_at=None, last_used_at=None,
        counts_as=None, bound_by=bound_by, manages=[ADMIN], expires_at=power.expires_at, priority=power.priority,
        scopes=[{"provider": one.provider, "model": one.model} for one in power.scopes],
        **power.amounts(), requests_a_minute=power.requests_a_minute, concurrent_requests=power.concurrent_requests,
        budgeted=False,
    )  # fmt: skip
    if bound_by is None and not power.scopes and reach(power) == reach(Power()):
        check_gives(key)
    else:
        with pytest.raises(PermissionDenied, match="administrator's key without limits, or do this logged in"):
            check_gives(key)


def test_keys_keep_what_they_could(database: Database) -> None:
    """Keys without scopes go on managing their account, an administrator's everything; scoped ones nothing."""
    url = database.create("t_what_keys_could")
    migrations.upgrade(url, SCHEMA, "0009")
    with psycopg.connect(url) as link:
        for role in ("user", "admin"):
            link.execute(
                "insert into accounts (id, role, tokens_a_day, images_a_day, key_count) values (%s, %s, 0, 0, 9)",
                (role, role),
            )
            for name, scopes in (("whole", "[]"), ("scoped", '[{"model": "*", "provider": "*"}]')):
                link.execute(
                    "insert into keys (id, account_id, prefix, digest, scopes) values (%s, %s, '', %s, %s)",
                    (f"key_{role}_{name}", role, f"{role}{name}".encode(), scopes),
                )
    migrate(url)
    with psycopg.connect(url) as link:
        found: dict[str, list[str]] = dict(link.execute("select id, manages from keys").fetchall())
    assert found == {
        "key_user_whole": ["account"],
        "key_user_scoped": [],
        "key_admin_whole": ["account", "admin"],
        "key_admin_scoped": [],
    }
