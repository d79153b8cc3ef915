"""Secrets that were sent are found nowhere afterwards."""

from __future__ import annotations

import pytest

from moa.account.v1 import account_service_pb2 as pb
from tests.auth.client import Client, code_of
from tests.auth.conftest import Auth


async def test_secrets_are_in_no_table_and_no_log(
    client: Client, auth: Auth, root: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Keys, session tokens and passwords that were sent are found in no row of any table and in no log line."""
    canary = "canary-password-42"
    made = await client.account.SignUp(
        pb.SignUpRequest(email="canary@example.com", password=canary), metadata=client.sent()
    )
    key = await client.account.CreateKey(pb.CreateKeyRequest(), metadata=client.sent(made.session_token))
    await client.account.GetMe(pb.GetMeRequest(), metadata=client.sent(key.api_key))
    await code_of(client.account.GetMe(pb.GetMeRequest(), metadata=client.sent("moa-canary-of-a-wrong-key")))
    secrets = (canary, made.session_token, key.api_key, "moa-canary-of-a-wrong-key", root)
    tables = [name for (name,) in auth.query("select tablename from pg_tables where schemaname = 'public'")]
    assert "keys" in tables
    everything = "\n".join(str(auth.query(f"select t::text from {table} t")) for table in tables)
    told = capfd.readouterr()
    for secret in secrets:
        assert secret not in everything
        assert secret not in told.out + told.err
