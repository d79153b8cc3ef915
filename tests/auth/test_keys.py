"""Keys as their owners see them, over the public services."""

from __future__ import annotations

import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from moa.account.v1 import account_service_pb2 as pb
from moa.quota.v1 import quota_pb2
from services.common.errors import Unauthenticated
from tests.auth.asking import refused, reserve, settle, until
from tests.auth.client import Client, code_of
from tests.auth.conftest import Admit, Auth


async def test_who_goes_by_what_a_key_may_hears_only_what_is_fresh(
    auth: Auth, admit: Admit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a key was known for some seconds ago is told to none who acts by it: auth is asked first."""
    _, key_id, key = await auth.account()
    admission = await admit(auth)
    assert admission.verified(key) is None
    # On a busy machine an answer may be older than that by the time it is looked at.
    while (held := admission.verified(key)) is None:
        await admission.identify(key)
    assert held.key_id == key_id
    later = time.monotonic() + 2
    with monkeypatch.context() as clock:
        clock.setattr(time, "monotonic", lambda: later)
        assert admission.verified(key) is None
        assert admission.known(key) is held


async def test_a_key_from_birth_to_end(client: Client, auth: Auth, admit: Admit) -> None:
    """A key is shown once, listed by its prefix, renamed, rotated and revoked; the account has one at a time."""
    session = client.sent((await client.sign_up("keys@example.com")).session_token)
    made = await client.account.CreateKey(pb.CreateKeyRequest(name="first", style="sk"), metadata=session)
    assert made.api_key.startswith("sk-")
    assert len(made.api_key) > 40
    assert made.api_key.startswith(made.key.prefix)
    assert len(made.key.prefix) < 12
    second = client.account.CreateKey(pb.CreateKeyRequest(), metadata=session)
    assert await code_of(second) == grpc.StatusCode.ABORTED
    renamed = await client.account.RenameKey(pb.RenameKeyRequest(key_id=made.key.key_id, name="둘"), metadata=session)
    assert renamed.key.name == "둘"
    rotated = await client.account.RotateKey(pb.RotateKeyRequest(key_id=made.key.key_id), metadata=session)
    assert rotated.key.name == "둘"
    assert rotated.api_key.startswith("sk-")
    admission = await admit(auth)
    with pytest.raises(Unauthenticated):
        await admission.identify(made.api_key)
    await admission.identify(rotated.api_key)
    for _ in range(2):
        revoked = await client.account.RevokeKey(pb.RevokeKeyRequest(key_id=rotated.key.key_id), metadata=session)
        assert revoked.key.HasField("revoked_at")
    listed = await client.account.ListKeys(pb.ListKeysRequest(), metadata=session)
    assert [key.key_id for key in listed.keys] == [rotated.key.key_id, made.key.key_id]
    again = client.account.RotateKey(pb.RotateKeyRequest(key_id=rotated.key.key_id), metadata=session)
    assert await code_of(again) == grpc.StatusCode.ABORTED


async def test_another_accounts_key_is_not_there(client: Client) -> None:
    """Another account's key cannot be renamed, rotated or revoked, and looks like none at all."""
    one = client.sent((await client.sign_up("one@example.com")).session_token)
    other = client.sent((await client.sign_up("other@example.com")).session_token)
    key_id = (await client.account.CreateKey(pb.CreateKeyRequest(), metadata=one)).key.key_id
    for target in (key_id, "key_none", ""):
        for call in (
            client.account.RenameKey(pb.RenameKeyRequest(key_id=target, name="x"), metadata=other),
            client.account.RotateKey(pb.RotateKeyRequest(key_id=target), metadata=other),
            client.account.RevokeKey(pb.RevokeKeyRequest(key_id=target), metadata=other),
        ):
            assert await code_of(call) == grpc.StatusCode.NOT_FOUND


async def test_a_key_reads_and_changes_nothing_unless_it_manages_the_account(client: Client) -> None:
    """A key without SCOPE_ACCOUNT may read the account's affairs, and not widen itself."""
    session = client.sent((await client.sign_up("scoped@example.com")).session_token)
    made = await client.account.CreateKey(
        pb.CreateKeyRequest(scopes=[quota_pb2.Rule(provider="local-text")]), metadata=session
    )
    narrow = client.sent(made.api_key)
    assert (await client.account.ListKeys(pb.ListKeysRequest(), metadata=narrow)).keys[0].scopes[0].model == "*"
    for call in (
        client.account.CreateKey(pb.CreateKeyRequest(), metadata=narrow),
        client.account.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.key_id), metadata=narrow),
        client.account.UpdateMe(pb.UpdateMeRequest(name="x"), metadata=narrow),
    ):
        assert await code_of(call) == grpc.StatusCode.PERMISSION_DENIED


async def test_keys_of_every_style_work_alike(client: Client, auth: Auth, admit: Admit) -> None:
    """`moa-`, `sk-` and `dk-` keys are the same; an account has ten at most, one unless it is granted more."""
    made = await client.sign_up("styles@example.com")
    session = client.sent(made.session_token)
    auth.query("update accounts set key_count = 10 where id = %s returning 1", made.account.account_id)
    admission = await admit(auth)
    for number in range(10):
        style = ("", "moa", "sk", "dk")[number % 4]
        key = await client.account.CreateKey(pb.CreateKeyRequest(style=style), metadata=session)
        assert key.api_key.startswith(f"{style or 'moa'}-")
        assert (await admission.identify(key.api_key)).key_id == key.key.key_id
    more = client.account.CreateKey(pb.CreateKeyRequest(), metadata=session)
    assert await code_of(more) == grpc.StatusCode.ABORTED
    other = client.account.CreateKey(pb.CreateKeyRequest(style="xx"), metadata=session)
    assert await code_of(other) == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_key_ends_when_it_was_to_end(client: Client, auth: Auth, admit: Admit) -> None:
    """A key with an expiry shows it, works until then, and makes room for another after it."""
    session = client.sent((await client.sign_up("expiry@example.com")).session_token)
    for bad in (Duration(), Duration(seconds=-1), Duration(seconds=11 * 366 * 86_400)):
        call = client.account.CreateKey(pb.CreateKeyRequest(expires_in=bad), metadata=session)
        assert await code_of(call) == grpc.StatusCode.INVALID_ARGUMENT
    made = await client.account.CreateKey(pb.CreateKeyRequest(expires_in=Duration(seconds=3600)), metadata=session)
    admission = await admit(auth)
    assert (await admission.identify(made.api_key)).key_id == made.key.key_id
    assert 3590 < made.key.expires_at.seconds - made.key.created_at.seconds <= 3600
    auth.query("update keys set expires_at = now() where id = %s returning 1", made.key.key_id)
    # A replica trusts what it heard last for a moment.
    await refused(await admit(auth, journal=None), made.api_key)
    assert (await client.account.CreateKey(pb.CreateKeyRequest(), metadata=session)).api_key


async def test_a_key_shows_when_it_was_last_used(client: Client, auth: Auth, admit: Admit) -> None:
    """A key that was never used says so; one that was, when."""
    session = client.sent((await client.sign_up("used@example.com")).session_token)
    made = await client.account.CreateKey(pb.CreateKeyRequest(), metadata=session)
    assert not made.key.HasField("last_used_at")
    settle(await reserve(await admit(auth), made.api_key), 10)
    await until(lambda: auth.query("select last_used_at from keys where id = %s", made.key.key_id) != [(None,)])
    (listed,) = (await client.account.ListKeys(pb.ListKeysRequest(), metadata=session)).keys
    assert listed.last_used_at.seconds >= made.key.created_at.seconds


async def test_a_keys_own_limits_are_shown_and_outlive_its_rotation(client: Client) -> None:
    """What a key may use of its account's limits stands in every list of it, and in its successor."""
    session = client.sent((await client.sign_up("own@example.com")).session_token)
    asked = pb.CreateKeyRequest(tokens_a_day=500, images_a_day=0, requests_per_minute=30, concurrent_requests=2)
    asked.tokens_per_minute = 9000
    made = await client.account.CreateKey(asked, metadata=session)
    rotated = await client.account.RotateKey(pb.RotateKeyRequest(key_id=made.key.key_id), metadata=session)
    for key in (made.key, rotated.key):
        assert (key.tokens_a_day, key.images_a_day) == (500, 0)
        assert (key.requests_per_minute, key.concurrent_requests, key.tokens_per_minute) == (30, 2, 9000)
