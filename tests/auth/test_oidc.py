"""Log-ins with an identity provider: what is believed of it, whose an account is, and what groups give."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import grpc
import pytest
from aiohttp import web

from moa.account.v1 import account_pb2
from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import admin_service_pb2 as admin_pb
from moa.account.v1 import oidc_service_pb2 as oidc_pb
from moa.account.v1 import oidc_service_pb2_grpc
from moa.account.v1 import team_service_pb2 as team_pb
from services.auth.domain.oidc import is_path_of_ours
from services.common.rpc import rest
from tests.auth.client import PASSWORD, Client, code_of, connected
from tests.auth.conftest import Auth, Start
from tests.auth.test_log_ins import code_of_secret
from tests.emulators.issuer import Issuer, SigningKey

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
CONFLICT, NOT_FOUND, INVALID = grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
HOME = "https://moa.example.com"


@dataclass
class Browser:
    """Somebody's browser: keeps cookies, and follows where it is sent."""

    stub: oidc_service_pb2_grpc.OidcServiceAsyncStub
    client: Client
    http: aiohttp.ClientSession
    cookies: dict[str, str] = field(default_factory=dict)

    def sent(self, token: str = "", path: str = "") -> tuple[tuple[str, str], ...]:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = (*self.client.sent(token), *((("cookie", cookie),) if cookie else ()))
        return (*headers, (rest.ORIGINAL_PATH, path)) if path else headers

    async def _keep(self, call: Any) -> tuple[Any, str]:
        """Return an answer and where it sends the browser, and keep its cookies."""
        answer = await call
        location = ""
        for name, value in await call.initial_metadata():
            if name == "set-cookie":
                given, *attributes = value.split("; ")
                assert {"Path=/", "HttpOnly", "Secure"} <= set(attributes)
                name_of, _, text = given.partition("=")
                assert name_of.startswith("__Host-moa_oidc_")
                self.cookies.pop(name_of, None)
                if "Max-Age=0" not in attributes:
                    self.cookies[name_of] = text
            elif name == "location":
                location = value
        return answer, location

    async def start(self, return_to: str = "") -> str:
        """Return where the browser is sent to log in."""
        path = f"/auth/oidc/start?return_to={return_to}" if return_to else "/auth/oidc/start"
        _, location = await self._keep(self.stub.StartOidc(oidc_pb.StartOidcRequest(), metadata=self.sent(path=path)))
        return str(location)

    async def back(self, location: str) -> str:
        """Return where the browser is sent back to, having come back from the issuer to `location`."""
        path = location.removeprefix(HOME)
        call = self.stub.FinishOidc(oidc_pb.FinishOidcRequest(), metadata=self.sent(path=path))
        return (await self._keep(call))[1]

    async def at_issuer(self, location: str) -> str:
        """Return where the issuer sends the browser back to."""
        async with self.http.get(location, allow_redirects=False) as answer:
            assert answer.status == 302, await answer.text()
            return answer.headers["location"]

    async def arrive(self, return_to: str = "") -> str:
        """Log in at the issuer; return where that ended."""
        return await self.back(await self.at_issuer(await self.start(return_to)))

    async def log_in(self, **asked: Any) -> oidc_pb.LogInByOidcResponse:
        """Return a session by the log-in that has come back."""
        call = self.stub.LogInByOidc(oidc_pb.LogInByOidcRequest(**asked), metadata=self.sent())
        return (await self._keep(call))[0]

    async def through(self, **asked: Any) -> oidc_pb.LogInByOidcResponse:
        """Log in."""
        assert await self.arrive() == f"{HOME}/#oidc=ready"
        return await self.log_in(**asked)


@dataclass
class World:
    """A replica, its issuer, and browsers."""

    auth: Auth
    issuer: Issuer
    browser: Callable[[], Browser]
    before: int
    """The last entry of the audit log when it began."""

    def causes(self) -> list[str]:
        """Return why log-ins failed, by the audit log."""
        rows = self.auth.query(
            "select details from audit where act = 'log_in.failed' and id > %s order by id", self.before
        )
        return [text.removeprefix("cause=") for (details,) in rows for text in details if text.startswith("cause=")]


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as found:
        yield found


Go = Callable[..., Any]


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
            other = Client(client.account, client.admin, client.team, client.budget)
            return Browser(oidc_service_pb2_grpc.OidcServiceStub(link), other, http)

        issuer.person["sub"] = f"person-{time.monotonic_ns()}"
        ((before,),) = auth.query("select coalesce(max(id), 0) from audit")
        return World(auth, issuer, browser, before)

    yield begin
    await http.close()
    for link in links:
        await link.close()


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
async def test_somebody_logs_in_with_each_algorithm(go: Go, issuer: Issuer, alg: str) -> None:
    """Gets an account at the first log-in, and the same one at the next; the issuer finds nothing wrong with it."""
    world = await go()
    issuer.keys = [SigningKey.make(alg)]
    issuer.person |= {"email": f"Anna.{alg}@Example.com", "email_verified": True, "name": " Anna\n"}
    browser = world.browser()
    assert await browser.arrive("/console/keys?all=1") == f"{HOME}/console/keys?all=1#oidc=ready"
    first = await browser.log_in()
    account = first.account
    assert (account.email, account.name, account.role) == (f"anna.{alg.lower()}@example.com", "Anna", account_pb2.ROLE_USER)
    session = browser.client.sent(first.session_token)
    assert (await browser.client.account.GetMe(pb.GetMeRequest(), metadata=session)).account == account
    again = await world.browser().through()
    assert again.account.account_id == account.account_id
    acts = world.auth.query("select act, details from audit where account_id = %s order by id", account.account_id)
    assert [act for act, _ in acts] == ["account.created", "identity.linked", "session.begun", "session.begun"]
    assert "by=oidc" in acts[-1][1]
    assert not issuer.refused
    assert not any("anna" in str(act).lower() for act in acts)
