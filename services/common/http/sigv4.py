"""Sign requests for AWS (Signature Version 4), with botocore's own signer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from yarl import URL

from services.common.catalogue import Provider
from services.common.errors import ProviderNotConfigured
from services.common.http.client import Outgoing
from services.common.http.credentials import (
    JSON_HEADERS,
    Authority,
    HeaderKeys,
    Keys,
    keys_of,
    optional_secret,
    secret,
)

_KEY_HEADER: Final = "Authorization"


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The provider's `options` in the catalogue."""

    region: str = ""
    """The region that requests are signed for; empty: the one in the address."""


_CHAIN: Final = frozenset({"profile", "role_arn", "container", "instance_role"})
"""Names of credentials that say: ask botocore's own chain."""


def signed(
    outgoing: Outgoing,
    more: Mapping[str, str],
    credentials: Credentials | ReadOnlyCredentials,
    service: str,
    region: str,
) -> Mapping[str, str]:
    """Give a request's headers, `more` and its own, with its signature."""
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
        """Give the request's headers with its signature."""
        return signed(outgoing, self._more, self._credentials[self._keys.take()], self._service, self._region)

    def rest(self, headers: Mapping[str, str], seconds: float) -> bool:
        """Pass over the key that signed `headers`, for a while. Tells whether another one is awake."""
        signed = headers.get(_KEY_HEADER, "")
        for index, access in enumerate(self._access):
            if f"Credential={access}/" in signed:
                return self._keys.rest(index, seconds)
        return False


def authority(provider: Provider, environment: Mapping[str, str], *, service: str, region: str) -> Authority:
    """Give what signs a provider's requests: `access_key` and `secret_key`, or an `api_key` (a Bedrock API key).

    Several access keys, parted by commas, go with as many secret keys. Temporary credentials name their
    `session_token` too. Where the credentials name a `profile`, a `role_arn`, a `container` or an `instance_role`,
    botocore's own chain finds and renews them; the variables are botocore's, which reads them itself.
    """
    if _CHAIN & provider.credentials.keys():
        from services.common.http.aws_chain import ChainSigV4  # only where it is asked for: see there

        return ChainSigV4(service=service, region=region, instance_role="instance_role" in provider.credentials)
    if "api_key" in provider.credentials:
        keys = keys_of(secret(provider, "api_key", environment))
        return HeaderKeys(_KEY_HEADER, [f"Bearer {key}" for key in keys], JSON_HEADERS)
    access = keys_of(secret(provider, "access_key", environment))
    secrets = keys_of(secret(provider, "secret_key", environment))
    if len(access) != len(secrets):
        raise ProviderNotConfigured(f"provider {provider.id!r} needs as many secret keys as access keys")
    token = optional_secret(provider, "session_token", environment)
    return SigV4(list(zip(access, secrets, strict=True)), session_token=token, service=service, region=region)


def region_of(provider: Provider) -> str:
    """Give the region of a provider: its option, or the one in `https://bedrock-runtime.<region>.amazonaws.com`."""
    region = msgspec.convert(provider.options, Options).region
    host = URL(provider.base_url).host or ""
    if not region and host.startswith("bedrock-runtime") and host.count(".") >= 3:
        region = host.split(".")[1]
    if not region:
        raise ProviderNotConfigured(f"provider {provider.id!r} needs options.region")
    return region
