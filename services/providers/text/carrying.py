"""A provider's own fields on their way to a caller who speaks its vendor's API."""

from __future__ import annotations

from typing import Any, Final

from moa.common.v1.vendor_pb2 import VendorFields
from services.common import vendor_fields
from services.common.errors import UpstreamBroken
from services.common.scrub import scrub

_OPAQUE: Final = frozenset(("thoughtSignature", "thought_signature", "signature", "data", "encrypted_content"))
"""Bytes as text: whoever made them checks them to the letter."""


def carried_of(vendor: str, fields: dict[str, Any]) -> VendorFields:
    """Return an event's envelope: a provider's words beside an answer are not the model's, and hold no key of ours.

    Raises UpstreamBroken where they are more than pass: what is dropped must not look like success.
    """
    made = vendor_fields.envelope(vendor, _scrubbed(fields))
    if len(made.json) > vendor_fields.MOST_BYTES:
        raise UpstreamBroken("the provider sent more beside the answer than is passed on")
    return made


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {name: inner if name in _OPAQUE else _scrubbed(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_scrubbed(each) for each in value]
    return value
