"""AWS Bedrock: Claude, Nova and every other model behind Converse and ConverseStream."""

from __future__ import annotations

from collections.abc import Mapping

from yarl import URL

from services.catalogue import Provider
from services.providers.aws import access as aws_access
from services.providers.aws import listing
from services.providers.aws.access import Options
from services.providers.aws.errors import error_from
from services.providers.aws.text.read import reader
from services.providers.aws.text.request import count_request_from, request_from
from services.providers.counts import count_of
from services.providers.credentials import Authority
from services.providers.http.client import Outgoing
from services.providers.text.base import Adapter


def authority(provider: Provider, environment: Mapping[str, str]) -> Authority:
    """Return what signs requests."""
    return aws_access.authority(provider, environment, service="bedrock", region=aws_access.region_of(provider))


def check_request(provider: Provider) -> Outgoing:
    """Ask the control plane for its models: it costs nothing and needs the key."""
    base = provider.base_url.rstrip("/").replace("//bedrock-runtime.", "//bedrock.", 1)
    return Outgoing(URL(f"{base}/foundation-models?byOutputModality=TEXT"), b"", {}, "GET")


ADAPTER = Adapter(
    name="bedrock",
    options=Options,
    request_from=request_from,
    reader=reader,
    error_from=error_from,
    authority=authority,
    request_id_header="x-amzn-requestid",
    caches=True,
    count_request_from=count_request_from,
    count_from=count_of("inputTokens"),
    list_models=listing.list_models,
    check_request=check_request,
)
