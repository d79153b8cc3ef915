"""Browsers of people who log in with an identity provider."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from moa.account.v1 import oidc_service_pb2 as oidc_pb
from moa.account.v1 import oidc_service_pb2_grpc
from services.common.rpc import rest
from tests.auth.client import Client
from tests.auth.conftest import Auth
from tests.emulators.issuer import Issuer

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
        answer: oidc_pb.LogInByOidcResponse
        answer, _ = await self._keep(call)
        return answer

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


Go = Callable[..., Any]
"""Starts a replica with settings; returns a World."""
