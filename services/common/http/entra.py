"""Microsoft Entra tokens, by the client credentials of an application.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlencode

import msgspec
from yarl import URL

from services.common.catalogue import Timeouts
from services.common.errors import UpstreamAuth
from services.common.http.client import MAX_ERROR_BYTES, Outgoing, Pool, proxy_for
from services.common.http.credentials import JSON_HEADERS

SCOPE: Final = "https://cognitiveservices.azure.com/.default"
"""What tokens are asked for."""
_EARLY_S: Final = 300.0
"""How long before its end a token is replaced."""


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float


class EntraToken:
    """Puts a bearer token on each request, and fetches a new one when it is due; one fetch serves all who wait.

    Args:
        token_url: The tenant's token endpoint.
        client_id: The application's id.
        client_secret: Its secret.
        more: Headers that every request carries.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str,
        *,
        more: Mapping[str, str] = JSON_HEADERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        form = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": client_secret,
            "scope": SCOPE,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        self._request = Outgoing(URL(token_url), urlencode(form).encode(), headers)
        self._more = more
        self._clock = clock
        self._lock = asyncio.Lock()
        self._headers: dict[str, str] = {}
        self._until = 0.0

    async def headers(self, outgoing: Outgoing) -> Mapping[str, str]:
        """Give the request's headers with a token that is good for some minutes yet. Raises UpstreamAuth."""
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
        pool = Pool(Timeouts(), proxy=proxy_for(str(self._request.url)))
        try:
            reply = await pool.send(self._request, self._request.headers)
            body = await reply.read_all(MAX_ERROR_BYTES)
            reply.close()
            token = msgspec.json.decode(body, type=_Token) if reply.status == 200 else None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            token = None
        finally:
            await pool.close()
        if token is None:
            raise UpstreamAuth("the provider refused the gateway's credentials")
        self._headers = {**self._more, "Authorization": f"Bearer {token.access_token}"}
        self._until = self._clock() + max(0.0, token.expires_in - min(_EARLY_S, token.expires_in / 2))
