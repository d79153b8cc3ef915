"""Replicas of the auth service that know an identity provider, and that provider."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import pytest

from moa.account.v1 import oidc_service_pb2_grpc
from tests.auth.client import Client, connected
from tests.auth.conftest import Start
from tests.auth.oidc.browsers import Browser, Go, World
from tests.emulators.issuer import Issuer


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as found:
        yield found


@pytest.fixture
async def go(start: Start, issuer: Issuer) -> AsyncIterator[Go]:
    """Start replicas that know the issuer."""
    links: list[grpc.aio.Channel] = []
    http = aiohttp.ClientSession()

    async def begin(**settings: Any) -> World:
        auth = await start(
            **{
                "signup": "invite",
                "oidc_issuer": issuer.url,
                "oidc_client_id": issuer.client_id,
                "oidc_client_secret": issuer.client_secret,
                "oidc_signup": "open",
                **settings,
            }
        )
        client, link = await connected(auth.public_port)
        links.append(link)

        def browser() -> Browser:
            other = Client(client.account, client.admin, client.team, client.budget, client.log)
            return Browser(oidc_service_pb2_grpc.OidcServiceStub(link), other, http)

        issuer.person["sub"] = f"person-{time.monotonic_ns()}"
        ((before,),) = auth.query("select coalesce(max(id), 0) from audit")
        return World(auth, issuer, browser, before)

    yield begin
    await http.close()
    for link in links:
        await link.close()
