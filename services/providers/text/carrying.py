"""A provider's own fields on their way to a caller who speaks its vendor's API."""

from __future__ import annotations

from typing import Any, Final

from moa.common.v1.vendor_pb2 import VendorFields
from services.common import vendor_fields
from services.common.errors import UpstreamBroken
from services.common.scrub import scrub

_OPAQUE: Final = frozenset(("thoughtSignature", "thought_signature", "signature", "data", "encrypted_content"))
"""Bytes as text: whoever made them checks them to the letter."""


_PICTURES: Final = _OPAQUE | {"result", "partial_image_b64"}
MOST_PICTURE_BYTES: Final = 24 * 2**20
"""Of an event that holds a picture as base64."""


def carried_of(vendor: str, fields: dict[str, Any], *, pictured: bool = False) -> VendorFields:
    """Return an event's envelope: a provider's words beside an answer are not the model's, and hold no key of ours.

    `pictured`: whether it may hold a picture. Raises UpstreamBroken where they are more than pass: what is dropped must
    not look like success.
    """
    made = vendor_fields.envelope(vendor, _scrubbed(fields, _PICTURES if pictured else _OPAQUE))
    if len(made.json) > (MOST_PICTURE_BYTES if pictured else vendor_fields.MOST_BYTES):
        raise UpstreamBroken("the provider sent more beside the answer than is passed on")
    return made


def _scrubbed(value: Any, opaque: frozenset[str]) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {name: inner if name in opaque else _scrubbed(inner, opaque) for name, inner in value.items()}
    if isinstance(value, list):
        return [_scrubbed(each, opaque) for each in value]
    return value
