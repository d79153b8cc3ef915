"""Sign requests for AWS (Signature Version 4), with botocore's own signer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials

from services.common.large import LARGE_BYTES
from services.providers.credentials import JSON_HEADERS, Keys
from services.providers.http.client import Outgoing

_KEY_HEADER: Final = "Authorization"


async def signed(
    outgoing: Outgoing,
    more: Mapping[str, str],
    credentials: Credentials | ReadOnlyCredentials,
    service: str,
    region: str,
) -> Mapping[str, str]:
    """Return a request's headers, `more` and its own, with its signature.

    A large body is hashed in a thread, which holds the interpreter's lock for none of the 38 ms that 8 MB take.
    """
    if len(outgoing.body) <= LARGE_BYTES:
        return _signed(outgoing, more, credentials, service, region)
    return await asyncio.to_thread(_signed, outgoing, more, credentials, service, region)


def _signed(
    outgoing: Outgoing,
    more: Mapping[str, str],
    credentials: Credentials | ReadOnlyCredentials,
    service: str,
    region: str,
) -> Mapping[str, str]:
    headers = {**more, **outgoing.headers}
    request = AWSRequest(method=outgoing.method, url=str(outgoing.url), headers=headers, data=outgoing.body)
    SigV4Auth(credentials, service, region).add_auth(request)
    return dict(request.headers.items())


class SigV4:
    """Signs each request anew.

    Args:
        pairs: Access keys and their secrets, used in rotation.
        session_token: The token that belongs to temporary credentials; else empty.
        service: The service's signing name (`bedrock`).
        region: Its region.
        more: Headers that every request carries.
    """

    def __init__(
        self,
        pairs: list[tuple[str, str]],
        *,
        session_token: str,
        service: str,
        region: str,
        more: Mapping[str, str] = JSON_HEADERS,
    ) -> None:
        self._access = [access for access, _ in pairs]
        self._credentials = [Credentials(access, key, session_token or None) for access, key in pairs]
        self._service = service
        self._region = region
        self._keys = Keys(self._access)
        self._more = more

    async def headers(self, outgoing: Outgoing) -> Mapping[str, str]:
        """Return the request's headers with its signature."""
        return await signed(outgoing, self._more, self._credentials[self._keys.take()], self._service, self._region)

    def rest(self, headers: Mapping[str, str], seconds: float) -> bool:
        """Pass over the key that signed `headers`, for a while. Tells whether another one is awake."""
        signed = headers.get(_KEY_HEADER, "")
        for index, access in enumerate(self._access):
            if f"Credential={access}/" in signed:
                return self._keys.rest(index, seconds)
        return False
