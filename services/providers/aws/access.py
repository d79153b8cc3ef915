"""What signs a provider's requests to AWS, by what its row in the catalogue names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from yarl import URL

from services.catalogue import Provider
from services.common.errors import ProviderNotConfigured
from services.providers.credentials import Authority, bearers, keys_of, optional_secret, secret
from services.providers.http.client import Outgoing


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The provider's `options` in the catalogue."""

    region: str = ""
    """The region that requests are signed for; empty: the one in the address."""


_CHAIN: Final = frozenset({"profile", "role_arn", "container", "instance_role"})
"""Names of credentials that say: ask botocore's own chain."""


def authority(provider: Provider, environment: Mapping[str, str], *, service: str, region: str) -> Authority:
    """Return what signs a provider's requests: `access_key` and `secret_key`, or an `api_key` (a Bedrock API key).

    Several access keys, parted by commas, go with as many secret keys. Temporary credentials name their
    `session_token` too. Where the credentials name a `profile`, a `role_arn`, a `container` or an `instance_role`,
    botocore's own chain finds and renews them; the variables are botocore's, which reads them itself.
    """
    # Botocore is 5 MB, which a process without a provider at AWS does not need.
    from services.providers.aws.sigv4 import SigV4

    if _CHAIN & provider.credentials.keys():
        from services.providers.aws.chain import ChainSigV4  # only where it is asked for: see there

        return ChainSigV4(service=service, region=region, instance_role="instance_role" in provider.credentials)
    if "api_key" in provider.credentials:
        return bearers(secret(provider, "api_key", environment))
    access = keys_of(secret(provider, "access_key", environment))
    secrets = keys_of(secret(provider, "secret_key", environment))
    if len(access) != len(secrets):
        raise ProviderNotConfigured(f"provider {provider.id!r} needs as many secret keys as access keys")
    token = optional_secret(provider, "session_token", environment)
    return SigV4(list(zip(access, secrets, strict=True)), session_token=token, service=service, region=region)


def bedrock_authority(provider: Provider, environment: Mapping[str, str]) -> Authority:
    """Return what signs requests to Bedrock; see `authority`."""
    return authority(provider, environment, service="bedrock", region=region_of(provider))


def check_of(modality: str) -> Callable[[Provider], Outgoing]:
    """Return what asks Bedrock's control plane for its models of an output: it costs nothing and needs the key."""

    def check_request(provider: Provider) -> Outgoing:
        base = provider.base_url.rstrip("/").replace("//bedrock-runtime.", "//bedrock.", 1)
        return Outgoing(URL(f"{base}/foundation-models?byOutputModality={modality}"), b"", {}, "GET")

    return check_request


def region_of(provider: Provider) -> str:
    """Return the region of a provider: its option, or the one in `https://bedrock-runtime.<region>.amazonaws.com`."""
    region = msgspec.convert(provider.options, Options).region
    host = URL(provider.base_url).host or ""
    if not region and host.startswith("bedrock-runtime") and host.count(".") >= 3:
        region = host.split(".")[1]
    if not region:
        raise ProviderNotConfigured(f"provider {provider.id!r} needs options.region")
    return region
