"""Fields of a vendor's own API that pass from callers to that vendor and back (docs/decisions/0020-vendor-fields.md).

Dialects and providers of one vendor import this, nobody else: an import contract and a test of words hold it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from moa.common.v1.vendor_pb2 import VendorFields
from services.common.errors import InvalidField

MOST_BYTES: Final = 262_144
"""Of the fields of one request, or of one event of an answer."""
MOST_NAMES: Final = 64
_PIECES: Final = frozenset(("data", "transcript"))
"""What OpenAI's streams give in pieces, of a sound."""

_NO_OPS: Final[Mapping[str, float]] = {"repetition_penalty": 1}
"""Fields that no contract types, with the value that changes nothing."""

Json = dict[str, Any]

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


def envelope(vendor: str, fields: Mapping[str, Any] | None = None, names: Iterable[str] = ()) -> VendorFields:
    """Return an envelope. It may be too large; who sends it knows what that means."""
    return VendorFields(vendor=vendor, json=_encode(fields) if fields else b"", names=list(names)[:MOST_NAMES])


def fields_of(given: VendorFields, vendor: str, where: str = "vendor") -> Json:
    """Return an envelope's fields; none where it is another vendor's. Raises InvalidField for what is no object."""
    if given.vendor != vendor or not given.json:
        return {}
    try:
        fields = _decode(given.json)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise InvalidField(f"{where}.json is not a JSON object", param=where)
    return fields


def is_no_op(name: str, value: Any) -> bool:
    """Return whether a field of a request has the value that changes nothing, which nobody needs to be told of."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == _NO_OPS.get(name)


def merge(into: Json, fields: Mapping[str, Any]) -> None:
    """Put fields into an object, at any depth, where it has none of the name: what is typed is never changed."""
    for name, value in fields.items():
        if name not in into:
            into[name] = value
        elif isinstance(into[name], dict) and isinstance(value, dict):
            merge(into[name], value)


def go_on(into: Json, fields: Mapping[str, Any]) -> None:
    """Take a further piece of an answer's fields in: objects merge, lists and sounds go on, others are replaced."""
    for name, value in fields.items():
        known = into.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            go_on(known, value)
        elif isinstance(known, list) and isinstance(value, list):
            known.extend(value)
        elif name in _PIECES and isinstance(known, str) and isinstance(value, str):
            into[name] = known + value
        elif not isinstance(known, dict | list):
            into[name] = value
