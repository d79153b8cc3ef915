"""Microsoft Entra tokens, fetched and renewed: of an application, a workload identity or a managed identity.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
https://learn.microsoft.com/azure/app-service/overview-managed-identity
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlencode

import msgspec
from yarl import URL

from services.catalogue import Provider, Timeouts
from services.common import scrub
from services.common.errors import UpstreamAuth
from services.providers.credentials import JSON_HEADERS, Authority, HeaderKeys, keys_of, secret
from services.providers.http.client import MAX_ERROR_BYTES, Outgoing, Pool, proxy_for

_RESOURCE: Final = "https://cognitiveservices.azure.com"
SCOPE: Final = f"{_RESOURCE}/.default"
"""What tokens are asked for."""
METADATA_URL: Final = "http://169.254.169.254"
"""Where a virtual machine's metadata service is."""
_EARLY_S: Final = 300.0
"""How long before its end a token is replaced."""
_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float | None = None
    """Seconds from now."""
    expires_on: float | None = None
    """Seconds since 1970: all that App Service tells."""

    def life_s(self) -> float:
        """Return for how long it is good."""
        if self.expires_in is not None:
            return self.expires_in
        return self.expires_on - time.time() if self.expires_on is not None else 0.0


class EntraToken:
    """Puts a bearer token on each request, and fetches a new one when it is due; one fetch serves all who wait.

    Args:
        ask: Makes the request for a token. Called for each, so that a secret in a file is read anew. Raises
            ProviderNotConfigured when the file is gone.
        more: Headers that every request carries.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        ask: Callable[[], Outgoing],
        *,
        more: Mapping[str, str] = JSON_HEADERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._more = more
        self._clock = clock
        self._lock = asyncio.Lock()
        self._headers: dict[str, str] = {}
        self._until = 0.0

    async def headers(self, outgoing: Outgoing) -> Mapping[str, str]:
        """Return the request's headers with a token that is good for some minutes yet. Raises UpstreamAuth."""
        if self._clock() >= self._until:
            async with self._lock:
                if self._clock() >= self._until:
                    await self._fetch()
        return {**self._headers, **outgoing.headers} if outgoing.headers else self._headers

    def rest(self, headers: Mapping[str, str], seconds: float) -> bool:
        """Forget the token that was refused, so that the next request fetches another. There is no other key."""
        if headers.get("Authorization") == self._headers.get("Authorization"):
            self._until = 0.0
        return False

    async def _fetch(self) -> None:
        # Fetches are an hour apart: a connection is not worth keeping.
        request = self._ask()
        pool = Pool(Timeouts(), proxy=proxy_for(str(request.url)))
        try:
            reply = await pool.send(request, request.headers)
            body = await reply.read_all(MAX_ERROR_BYTES)
            reply.close()
            # Some endpoints write numbers as strings.
            token = msgspec.json.decode(body, type=_Token, strict=False) if reply.status == 200 else None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            token = None
        finally:
            await pool.close()
        if token is None:
            raise UpstreamAuth("the provider refused the gateway's credentials")
        scrub.renewed(f"entra {request.url.origin()}", token.access_token)
        life_s = token.life_s()
        self._headers = {**self._more, "Authorization": f"Bearer {token.access_token}"}
        self._until = self._clock() + max(0.0, life_s - min(_EARLY_S, life_s / 2))


def authority(
    provider: Provider, environment: Mapping[str, str], login_url: str, *, more: Mapping[str, str] = JSON_HEADERS
) -> Authority:
    """Return what signs an Azure provider's requests, by what its credentials name.

    `api_key`: the resource's keys. `token`: an Entra token that someone else renews. `tenant_id` and `client_id` with
    `client_secret`: an application's tokens; with `federated_token`: a workload identity's. `identity_endpoint` and
    `identity_header`: App Service's managed identity. `managed_identity`: a virtual machine's, `system` or a client id.
    """
    named = provider.credentials
    if "api_key" in named:
        return HeaderKeys("api-key", keys_of(secret(provider, "api_key", environment)), more)
    if "token" in named:
        return HeaderKeys("Authorization", [f"Bearer {secret(provider, 'token', environment)}"], more)
    if "identity_endpoint" in named:
        return EntraToken(_app_service(provider, environment), more=more)
    if "managed_identity" in named:
        base = environment.get("AZURE_POD_IDENTITY_AUTHORITY_HOST", METADATA_URL)
        return EntraToken(_instance(base, secret(provider, "managed_identity", environment)), more=more)
    return EntraToken(_application(provider, environment, login_url), more=more)


def _application(provider: Provider, environment: Mapping[str, str], login_url: str) -> Callable[[], Outgoing]:
    tenant = secret(provider, "tenant_id", environment)
    url = URL(f"{login_url}/{tenant}/oauth2/v2.0/token")
    form = {
        "grant_type": "client_credentials",
        "client_id": secret(provider, "client_id", environment),
        "scope": SCOPE,
    }
    name = "federated_token" if "federated_token" in provider.credentials else "client_secret"
    secret(provider, name, environment)

    def ask() -> Outgoing:
        result = secret(provider, name, environment)
        proof = (
            {"client_secret": result}
            if name == "client_secret"
            else {"client_assertion_type": _ASSERTION, "client_assertion": result}
        )
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return Outgoing(url, urlencode({**form, **proof}).encode(), headers)

    return ask


def _app_service(provider: Provider, environment: Mapping[str, str]) -> Callable[[], Outgoing]:
    header = secret(provider, "identity_header", environment)
    url = URL(secret(provider, "identity_endpoint", environment))
    url = url.update_query({"api-version": "2019-08-01", "resource": _RESOURCE})
    return lambda: Outgoing(url, b"", {"X-IDENTITY-HEADER": header}, "GET")


def _instance(base: str, identity: str) -> Callable[[], Outgoing]:
    query = {"api-version": "2018-02-01", "resource": _RESOURCE}
    if identity not in ("1", "system"):
        query["client_id"] = identity
    url = URL(f"{base}/metadata/identity/oauth2/token").update_query(query)
    return lambda: Outgoing(url, b"", {"Metadata": "true"}, "GET")
