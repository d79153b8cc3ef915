"""Anthropic's Messages API (`api.anthropic.com`)."""

from __future__ import annotations

from services.providers.anthropic import listing
from services.providers.anthropic.access import authority, check_request
from services.providers.anthropic.errors import error_from
from services.providers.anthropic.text.batches import BATCHES
from services.providers.anthropic.text.carried import VENDOR
from services.providers.anthropic.text.read import reader
from services.providers.anthropic.text.request import count_request_from, request_from
from services.providers.counts import count_of
from services.providers.text.base import Adapter

ADAPTER = Adapter(
    name="anthropic",
    request_from=request_from,
    reader=reader,
    error_from=error_from,
    authority=authority,
    request_id_header="request-id",
    caches=True,
    vendor=VENDOR,
    count_request_from=count_request_from,
    count_from=count_of("input_tokens"),
    batches=BATCHES,
    list_models=listing.list_models,
    check_request=check_request,
)
