"""Google's Gemini API (`generativelanguage.googleapis.com`)."""

from __future__ import annotations

from services.providers.counts import count_of
from services.providers.google import listing
from services.providers.google.access import authority, caller_authority, check_request
from services.providers.google.errors import error_from
from services.providers.google.text.batches import BATCHES
from services.providers.google.text.carried import VENDOR
from services.providers.google.text.read import reader
from services.providers.google.text.request import count_request_from, request_from
from services.providers.text.base import Adapter

ADAPTER = Adapter(
    name="gemini",
    request_from=request_from,
    reader=reader,
    error_from=error_from,
    authority=authority,
    request_id_header="x-goog-request-id",
    vendor=VENDOR,
    batches=BATCHES,
    count_request_from=count_request_from,
    count_from=count_of("totalTokens"),
    chooses=True,
    list_models=listing.list_models,
    check_request=check_request,
    caller_authority=caller_authority,
)
