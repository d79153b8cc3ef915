"""Keys as their owners see them, over the public services."""

from __future__ import annotations

import grpc
import pytest

from moa.account.v1 import account_service_pb2 as pb
from moa.quota.v1 import quota_pb2
from services.common.errors import Unauthenticated
from tests.auth.client import Client, code_of
from tests.auth.conftest import Admit, Auth


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


async def test_a_scoped_key_reads_and_changes_nothing(client: Client) -> None:
    """A key with scopes may read the account's affairs, and not widen itself."""
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
