"""Signatures for AWS."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from yarl import URL

from services.common.large import LARGE_BYTES
from services.providers.aws.sigv4 import SigV4
from services.providers.http.client import Outgoing


async def test_a_large_body_is_signed_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing eight megabytes keeps nobody waiting; a small body is signed at once."""
    threads: list[int] = []
    add_auth = SigV4Auth.add_auth

    def noted(self: SigV4Auth, request: Any) -> None:
        threads.append(threading.get_ident())
        add_auth(self, request)

    monkeypatch.setattr(SigV4Auth, "add_auth", noted)
    signer = SigV4([("AKIA", "secret")], session_token="", service="bedrock", region="us-east-1")
    for size in (LARGE_BYTES, LARGE_BYTES + 1):
        for body in (b"x" * size, memoryview(b"x" * size)):
            headers = await signer.headers(Outgoing(URL("https://bedrock.invalid/model/m/converse"), body, {}))
            assert "Credential=AKIA/" in headers["Authorization"]
    here = threading.get_ident()
    assert [thread == here for thread in threads] == [True, True, False, False]
